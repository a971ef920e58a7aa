"""Tags: names for groups of droplets, which firewalls and balancers go by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tests.e2e.digitalocean import asked
from tests.e2e.digitalocean.account import Account, Droplet, Firewall
from tests.e2e.digitalocean.calls import NOTHING, Answer, Body, Call, Json, Route, invalid, missing

TagName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_\-:]+$", max_length=255)]


class _Create(Body):
    name: TagName


class _Resource(Body):
    resource_id: str
    resource_type: Literal["droplet"]  # there is nothing else to tag


class _Resources(Body):
    resources: list[_Resource]


def make(account: Account, name: str) -> str:
    """Makes a tag unless there is one of that name; its name as it was first written."""
    if found := account.tag(name):
        return found
    account.tags.append(name)
    return name


def _create(account: Account, call: Call) -> Answer:
    name = make(account, call.read(_Create).name)
    return Answer(status=201, body={"tag": _show(account, call, name)})


def _list(account: Account, call: Call) -> Answer:
    return call.listed("tags", account.tags, lambda name: _show(account, call, name))


def _get(account: Account, call: Call) -> Answer:
    return Answer(body={"tag": _show(account, call, _find(account, call))})


def _delete(account: Account, call: Call) -> Answer:
    name = _find(account, call)
    account.tags.remove(name)
    for droplet in account.tagged([name]):
        droplet.tags.remove(name)
    for firewall in account.firewalls.values():
        _forget(firewall, name)
    for balancer in account.balancers.values():
        if balancer.asked.tag == name:
            balancer.asked = balancer.asked.model_copy(update={"tag": ""})
    return NOTHING


def _forget(firewall: Firewall, name: str) -> None:
    tags = tuple(tag for tag in firewall.asked.tags if tag != name)
    firewall.asked = asked.without(firewall.asked, "tags", name).model_copy(update={"tags": tags})


def _tag(account: Account, call: Call) -> Answer:
    name = _find(account, call)
    for droplet in _droplets(account, call):
        if name not in droplet.tags:
            droplet.tags.append(name)
    return NOTHING


def _untag(account: Account, call: Call) -> Answer:
    name = _find(account, call)
    for droplet in _droplets(account, call):
        if name in droplet.tags:
            droplet.tags.remove(name)
    return NOTHING


def _droplets(account: Account, call: Call) -> list[Droplet]:
    found = []
    for place, resource in enumerate(call.read(_Resources).resources):
        droplet = next(
            (each for each in account.droplets.values() if str(each.id) == resource.resource_id), None
        )
        if droplet is None:
            raise invalid(f"resources.{place}.resource_id", f"there is no droplet {resource.resource_id}")
        found.append(droplet)
    return found


def _find(account: Account, call: Call) -> str:
    # In a path only the spelling of its creation is a tag's.
    if (name := call.arguments["tag"]) in account.tags:
        return name
    raise missing()


def _show(account: Account, call: Call, name: str) -> Json:
    droplets = [*account.tagged([name])]
    last = {"last_tagged_uri": f"{call.origin}/v2/droplets/{droplets[-1].id}"} if droplets else {}
    others = {kind: {"count": 0} for kind in ("images", "volumes", "volume_snapshots", "databases")}
    count = {"count": len(droplets), **last}
    return {"name": name, "resources": {**count, "droplets": count, **others}}


ROUTES = (
    Route("POST", "/v2/tags", _create, "tag:create"),
    Route("GET", "/v2/tags", _list, "tag:read"),
    Route("GET", "/v2/tags/{tag}", _get, "tag:read"),
    Route("DELETE", "/v2/tags/{tag}", _delete, "tag:delete"),
    Route("POST", "/v2/tags/{tag}/resources", _tag, "tag:create"),
    Route("DELETE", "/v2/tags/{tag}/resources", _untag, "tag:delete"),
)
