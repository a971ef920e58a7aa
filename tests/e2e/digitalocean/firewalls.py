"""Firewalls. Which droplets one applies to, and who its rules mean, is looked up anew at every change."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from typing import TypeVar

from pydantic import ValidationError

from tests.e2e.digitalocean.account import Account, Droplet, Firewall, now
from tests.e2e.digitalocean.asked import FirewallRequest, FirewallRules, InboundRule, OutboundRule
from tests.e2e.digitalocean.calls import (
    NOTHING,
    Answer,
    Body,
    Call,
    Json,
    Refused,
    Route,
    invalid,
    missing,
)

T = TypeVar("T")


class _Droplets(Body):
    droplet_ids: list[int]


class _Tags(Body):
    tags: list[str]


def applies_to(account: Account, firewall: Firewall) -> list[Droplet]:
    """The droplets that it protects, by id or tag."""
    tagged = {droplet.id for droplet in account.tagged(firewall.asked.tags)}
    ids = tagged.union(firewall.asked.droplet_ids)
    return [droplet for droplet in account.droplets.values() if droplet.id in ids]


def _create(account: Account, call: Call) -> Answer:
    asked = _checked(account, call.read(FirewallRequest), None)
    firewall = Firewall(id=str(uuid.uuid4()), asked=asked, created_at=now())
    account.firewalls[firewall.id] = firewall
    _settle(account, firewall, set())
    return Answer(status=202, body={"firewall": _show(firewall)})


def _list(account: Account, call: Call) -> Answer:
    return call.listed("firewalls", [*account.firewalls.values()], _show)


def _list_of_droplet(account: Account, call: Call) -> Answer:
    droplet = account.droplets.get(call.number("droplet_id"))
    if droplet is None:
        raise missing()
    found = [each for each in account.firewalls.values() if droplet in applies_to(account, each)]
    return call.listed("firewalls", found, _show)


def _get(account: Account, call: Call) -> Answer:
    return Answer(body={"firewall": _show(_find(account, call))})


def _put(account: Account, call: Call) -> Answer:
    firewall = _find(account, call)
    _become(account, firewall, call.read(FirewallRequest))
    return Answer(body={"firewall": _show(firewall)})


def _delete(account: Account, call: Call) -> Answer:
    del account.firewalls[_find(account, call).id]
    return NOTHING


def _add_droplets(account: Account, call: Call) -> Answer:
    firewall, body = _find(account, call), call.read(_Droplets)
    return _update(account, firewall, droplet_ids=_union(firewall.asked.droplet_ids, body.droplet_ids))


def _remove_droplets(account: Account, call: Call) -> Answer:
    firewall, body = _find(account, call), call.read(_Droplets)
    return _update(account, firewall, droplet_ids=_rest(firewall.asked.droplet_ids, body.droplet_ids))


def _add_tags(account: Account, call: Call) -> Answer:
    firewall, body = _find(account, call), call.read(_Tags)
    return _update(account, firewall, tags=_union(firewall.asked.tags, body.tags))


def _remove_tags(account: Account, call: Call) -> Answer:
    firewall, body = _find(account, call), call.read(_Tags)
    return _update(account, firewall, tags=_rest(firewall.asked.tags, body.tags))


def _add_rules(account: Account, call: Call) -> Answer:
    firewall, body = _find(account, call), call.read(FirewallRules)
    asked = firewall.asked
    return _update(
        account,
        firewall,
        inbound_rules=asked.inbound_rules + body.inbound_rules,
        outbound_rules=asked.outbound_rules + body.outbound_rules,
    )


def _remove_rules(account: Account, call: Call) -> Answer:
    firewall, body = _find(account, call), call.read(FirewallRules)
    asked = firewall.asked
    return _update(
        account,
        firewall,
        inbound_rules=_rest(asked.inbound_rules, body.inbound_rules),
        outbound_rules=_rest(asked.outbound_rules, body.outbound_rules),
    )


def _union(first: tuple[T, ...], second: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys([*first, *second]))


def _rest(first: tuple[T, ...], second: Collection[T]) -> tuple[T, ...]:
    return tuple(each for each in first if each not in second)


def _update(account: Account, firewall: Firewall, **fields: object) -> Answer:
    try:
        asked = FirewallRequest.model_validate({**dict(firewall.asked), **fields})
    except ValidationError as error:
        raise Refused(422, error.errors()[0]["msg"].removeprefix("Value error, ")) from error
    _become(account, firewall, asked)
    return NOTHING


def _become(account: Account, firewall: Firewall, asked: FirewallRequest) -> None:
    before = {droplet.id for droplet in applies_to(account, firewall)}
    firewall.asked = _checked(account, asked, firewall.id)
    _settle(account, firewall, before)


def _checked(account: Account, asked: FirewallRequest, own: str | None) -> FirewallRequest:
    """That it names nothing that isn't there; with tags as they were first written."""
    if any(each.asked.name == asked.name and each.id != own for each in account.firewalls.values()):
        raise Refused(409, "duplicate name")
    _check_droplets(account, "droplet_ids", asked.droplet_ids)
    for inbound in asked.inbound_rules:
        _check_target(account, "inbound_rules.sources", inbound)
    for outbound in asked.outbound_rules:
        _check_target(account, "outbound_rules.destinations", outbound)
    return asked.model_copy(update={"tags": tuple(account.known_tag("tags", tag) for tag in asked.tags)})


def _check_target(account: Account, field: str, rule: InboundRule | OutboundRule) -> None:
    target = rule.sources if isinstance(rule, InboundRule) else rule.destinations
    _check_droplets(account, f"{field}.droplet_ids", target.droplet_ids)
    for tag in target.tags:
        account.known_tag(f"{field}.tags", tag)
    for balancer in target.load_balancer_uids:
        if balancer not in account.balancers:
            raise invalid(f"{field}.load_balancer_uids", f"load balancer {balancer} does not exist")


def _check_droplets(account: Account, field: str, ids: Iterable[int]) -> None:
    for droplet in ids:
        if droplet not in account.droplets:
            raise invalid(field, f"droplet {droplet} does not exist")


def _settle(account: Account, firewall: Firewall, before: set[int]) -> None:
    """Lets it wait until the machinery has followed."""
    after = {droplet.id for droplet in applies_to(account, firewall)}
    firewall.status = "waiting"
    firewall.pending = {droplet: droplet not in after for droplet in sorted(before | after)}
    change = firewall.change = account.change()

    def settle() -> None:
        account.workers.pause(account.delays.firewall)
        account.follow(change)
        with account.lock:
            if firewall.change == change:
                failed = account.unenforced.intersection(firewall.pending)
                firewall.status = "failed" if failed else "succeeded"
                firewall.pending = {}

    account.workers.start(settle)


def _find(account: Account, call: Call) -> Firewall:
    if firewall := account.firewalls.get(call.arguments["firewall_id"]):
        return firewall
    raise missing()


def _show(firewall: Firewall) -> Json:
    return {
        "id": firewall.id,
        "name": firewall.asked.name,
        "status": firewall.status,
        "created_at": firewall.created_at,
        "pending_changes": [
            {"droplet_id": droplet, "removing": removing, "status": "waiting"}
            for droplet, removing in firewall.pending.items()
        ],
        "inbound_rules": [rule.shown() for rule in firewall.asked.inbound_rules],
        "outbound_rules": [rule.shown() for rule in firewall.asked.outbound_rules],
        "droplet_ids": firewall.asked.droplet_ids,
        "tags": firewall.asked.tags,
    }


ROUTES = (
    Route("POST", "/v2/firewalls", _create, "firewall:create"),
    Route("GET", "/v2/firewalls", _list, "firewall:read"),
    Route("GET", "/v2/droplets/{droplet_id}/firewalls", _list_of_droplet, "firewall:read"),
    Route("GET", "/v2/firewalls/{firewall_id}", _get, "firewall:read"),
    Route("PUT", "/v2/firewalls/{firewall_id}", _put, "firewall:update"),
    Route("DELETE", "/v2/firewalls/{firewall_id}", _delete, "firewall:delete"),
    Route("POST", "/v2/firewalls/{firewall_id}/droplets", _add_droplets, "firewall:update"),
    Route("DELETE", "/v2/firewalls/{firewall_id}/droplets", _remove_droplets, "firewall:update"),
    Route("POST", "/v2/firewalls/{firewall_id}/tags", _add_tags, "firewall:update"),
    Route("DELETE", "/v2/firewalls/{firewall_id}/tags", _remove_tags, "firewall:update"),
    Route("POST", "/v2/firewalls/{firewall_id}/rules", _add_rules, "firewall:update"),
    Route("DELETE", "/v2/firewalls/{firewall_id}/rules", _remove_rules, "firewall:update"),
)
