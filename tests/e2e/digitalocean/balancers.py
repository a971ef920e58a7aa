"""Load balancers. Which droplets are behind one by tag is looked up anew at every change."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from tests.e2e.digitalocean import asked, catalogue, projects, vpcs
from tests.e2e.digitalocean.account import Account, Balancer, Droplet, Member, now
from tests.e2e.digitalocean.asked import BalancerRequest
from tests.e2e.digitalocean.calls import (
    NOTHING,
    Answer,
    Body,
    Call,
    Json,
    Many,
    Refused,
    Route,
    invalid,
    missing,
)

BUSY = "Load Balancer can't be updated while it processes previous actions"


class _Droplets(Body):
    droplet_ids: Many[int]


def backends(account: Account, balancer: Balancer) -> list[Droplet]:
    """The droplets behind it, by id or tag; with a tag only those in its VPC."""
    if balancer.asked.tag:
        return [each for each in account.tagged([balancer.asked.tag]) if each.vpc == balancer.vpc]
    return [each for each in account.droplets.values() if each.id in balancer.asked.droplet_ids]


def _create(account: Account, call: Call) -> Answer:
    body = call.read(BalancerRequest)
    region = body.region.lower()
    if region not in catalogue.REGIONS:
        raise invalid("region", f"{body.region or 'none'} is not a region")
    with account.lock:
        body = _checked(account, body, None)
    vpc_id = body.vpc_uuid or vpcs.make_default(account, region).id
    with account.lock:
        vpc = account.vpc(vpc_id)
        if vpc is None or vpc.region != region:
            raise invalid("vpc_uuid", f"there is no VPC {vpc_id} in {region}")
        _check_droplets(account, body.droplet_ids, vpc.id)
        balancer = Balancer(
            id=str(uuid.uuid4()),
            asked=body,
            region=region,
            vpc=vpc.id,
            project=projects.known(account, body.project_id),
            public=account.public.take(),
            created_at=now(),
        )
        account.balancers[balancer.id] = balancer
        projects.assign(account, balancer.urn, balancer.project)
        _settle(account, balancer)
        return Answer(status=202, body={"load_balancer": _show(account, balancer)})


def _list(account: Account, call: Call) -> Answer:
    return call.listed("load_balancers", [*account.balancers.values()], lambda each: _show(account, each))


def _get(account: Account, call: Call) -> Answer:
    return Answer(body={"load_balancer": _show(account, _find(account, call))})


def _put(account: Account, call: Call) -> Answer:
    balancer, body = _find(account, call), call.read(BalancerRequest)
    for field, wanted, fixed in (
        ("region", body.region.lower(), balancer.region),
        ("vpc_uuid", body.vpc_uuid, balancer.vpc),
    ):
        if wanted not in ("", fixed):
            raise invalid(field, "cannot be changed")
    _become(account, balancer, _checked(account, body, balancer.id))
    projects.assign(account, balancer.urn, projects.known(account, body.project_id))
    return Answer(body={"load_balancer": _show(account, balancer)})


def _delete(account: Account, call: Call) -> Answer:
    balancer = _find(account, call)
    del account.balancers[balancer.id]
    account.assigned.pop(balancer.urn)
    for firewall in account.firewalls.values():
        firewall.asked = asked.without(firewall.asked, "load_balancer_uids", balancer.id)
    change = account.change()

    def leave() -> None:
        account.follow(change)
        account.public.give_back(balancer.public)

    account.workers.start(leave)
    member = Member(
        urn=balancer.urn, vpc=balancer.vpc, name=balancer.asked.name, created_at=balancer.created_at
    )
    account.leave(member)
    return NOTHING


def _add_droplets(account: Account, call: Call) -> Answer:
    balancer, body = _find(account, call), call.read(_Droplets)
    ids = dict.fromkeys([*balancer.asked.droplet_ids, *body.droplet_ids])
    return _set_droplets(account, balancer, tuple(ids))


def _remove_droplets(account: Account, call: Call) -> Answer:
    balancer, body = _find(account, call), call.read(_Droplets)
    rest = tuple(each for each in balancer.asked.droplet_ids if each not in body.droplet_ids)
    return _set_droplets(account, balancer, rest)


def _set_droplets(account: Account, balancer: Balancer, ids: tuple[int, ...]) -> Answer:
    if balancer.asked.tag:
        raise invalid("droplet_ids", "the load balancer's droplets are those with its tag")
    if len(ids) > asked.MOST_DROPLETS:
        raise invalid("droplet_ids", f"must be {asked.MOST_DROPLETS} at most")
    _become(account, balancer, balancer.asked.model_copy(update={"droplet_ids": ids}))
    return NOTHING


def _become(account: Account, balancer: Balancer, body: BalancerRequest) -> None:
    if balancer.busy:
        raise Refused(403, BUSY)
    _check_droplets(account, body.droplet_ids, balancer.vpc)
    balancer.asked = body
    _settle(account, balancer)


def _checked(account: Account, body: BalancerRequest, own: str | None) -> BalancerRequest:
    if any(each.asked.name == body.name and each.id != own for each in account.balancers.values()):
        raise Refused(422, "name is not unique")
    projects.known(account, body.project_id)
    tag = account.known_tag("tag", body.tag) if body.tag else ""
    return body.model_copy(update={"tag": tag})


def _check_droplets(account: Account, ids: Iterable[int], vpc: str) -> None:
    for each in ids:
        droplet = account.droplets.get(each)
        if droplet is None:
            raise invalid("droplet_ids", f"droplet {each} does not exist")
        if droplet.vpc != vpc:
            raise invalid("droplet_ids", f"droplet {each} is not in the load balancer's VPC")


def _settle(account: Account, balancer: Balancer) -> None:
    balancer.busy = True
    change = account.change()

    def settle() -> None:
        account.workers.pause(account.delays.balancer)
        account.follow(change)
        with account.lock:
            balancer.status = "errored" if balancer.id in account.unenforced else "active"
            balancer.busy = False

    account.workers.start(settle)


def _find(account: Account, call: Call) -> Balancer:
    if balancer := account.balancers.get(call.arguments["balancer_id"]):
        return balancer
    raise missing()


def _show(account: Account, balancer: Balancer) -> Json:
    body = balancer.asked
    return {
        "id": balancer.id,
        "name": body.name,
        "ip": balancer.public if balancer.status == "active" else "",
        "ipv6": "",
        "size_unit": body.size_unit,
        "type": body.type,
        "algorithm": body.algorithm,
        "status": balancer.status,
        "created_at": balancer.created_at,
        "forwarding_rules": [rule.model_dump() for rule in body.forwarding_rules],
        "health_check": body.health_check.shown(),
        "sticky_sessions": body.sticky_sessions.model_dump(),
        "region": catalogue.show_region(balancer.region),
        "tag": body.tag,
        "droplet_ids": [droplet.id for droplet in backends(account, balancer)],
        "redirect_http_to_https": body.redirect_http_to_https,
        "enable_proxy_protocol": body.enable_proxy_protocol,
        "enable_backend_keepalive": body.enable_backend_keepalive,
        "disable_lets_encrypt_dns_records": body.disable_lets_encrypt_dns_records,
        "vpc_uuid": balancer.vpc,
        "project_id": account.assigned[balancer.urn][0],
        "http_idle_timeout_seconds": body.http_idle_timeout_seconds,
        "firewall": body.firewall.model_dump(),
        "network": body.network,
        "network_stack": body.network_stack,
        "tls_cipher_policy": body.tls_cipher_policy,
    }


ROUTES = (
    Route("POST", "/v2/load_balancers", _create, "load_balancer:create", slow=True),
    Route("GET", "/v2/load_balancers", _list, "load_balancer:read"),
    Route("GET", "/v2/load_balancers/{balancer_id}", _get, "load_balancer:read"),
    Route("PUT", "/v2/load_balancers/{balancer_id}", _put, "load_balancer:update"),
    Route("DELETE", "/v2/load_balancers/{balancer_id}", _delete, "load_balancer:delete"),
    Route("POST", "/v2/load_balancers/{balancer_id}/droplets", _add_droplets, "load_balancer:update"),
    Route("DELETE", "/v2/load_balancers/{balancer_id}/droplets", _remove_droplets, "load_balancer:update"),
)
