"""Reserved IPs: public addresses that lead to one droplet or another."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, RootModel

from tests.e2e.digitalocean import actions, catalogue, droplets, projects
from tests.e2e.digitalocean.account import Account, Action, Droplet, ReservedIp
from tests.e2e.digitalocean.calls import NOTHING, Answer, Body, Call, Json, Refused, Route, invalid, missing


class _Create(Body):
    region: str = ""
    droplet_id: int | None = None
    project_id: str = ""


class _Assign(Body):
    type: Literal["assign"]
    droplet_id: int


class _Unassign(Body):
    type: Literal["unassign"]


class _Action(RootModel[Annotated[_Assign | _Unassign, Field(discriminator="type")]]):
    """One of them."""


def _create(account: Account, call: Call) -> Answer:
    body = call.read(_Create)
    if (body.droplet_id is None) == (not body.region):
        raise invalid("region", "one of region and droplet_id is needed")
    if len(account.reserved_ips) >= account.reserved_ip_limit:
        raise Refused(422, "creating this reserved IP will exceed your reserved IP limit")
    project = projects.known(account, body.project_id)
    droplet = None if body.droplet_id is None else _droplet(account, body.droplet_id)
    region = droplet.region if droplet else body.region.lower()
    if region not in catalogue.REGIONS:
        raise invalid("region", f"{body.region} is not a region")
    reserved = ReservedIp(ip=account.reserved.take(), region=region)
    account.reserved_ips[reserved.ip] = reserved
    projects.assign(account, reserved.urn, project)
    links: Json = {}
    if droplet:
        href = f"{call.origin}/v2/droplets/{droplet.id}"
        links = {
            "droplets": [{"id": droplet.id, "rel": "droplet", "href": href}],
            "actions": [actions.link(_assign(account, reserved, droplet), call, "assign_ip")],
        }
    return Answer(status=202, body={"reserved_ip": _show(account, call, reserved), "links": links})


def _list(account: Account, call: Call) -> Answer:
    found = [*account.reserved_ips.values()]
    return call.listed("reserved_ips", found, lambda each: _show(account, call, each))


def _get(account: Account, call: Call) -> Answer:
    return Answer(body={"reserved_ip": _show(account, call, _find(account, call))})


def _delete(account: Account, call: Call) -> Answer:
    reserved = _find(account, call)
    _check_idle(account, reserved)
    del account.reserved_ips[reserved.ip]
    del account.assigned[reserved.urn]
    change = account.change()

    def give_back() -> None:
        account.follow(change)
        account.reserved.give_back(reserved.ip)

    account.workers.start(give_back)
    return NOTHING


def _act(account: Account, call: Call) -> Answer:
    reserved, body = _find(account, call), call.read(_Action).root
    _check_idle(account, reserved)
    if isinstance(body, _Assign):
        action = _assign(account, reserved, _droplet(account, body.droplet_id))
    elif reserved.droplet is None:
        raise Refused(422, "The reserved IP is not assigned to a Droplet.")
    else:
        action = _start(account, reserved, "unassign_ip", None)
    return Answer(status=201, body={"action": _show_action(account, reserved, action)})


def _droplet(account: Account, droplet_id: int) -> Droplet:
    droplet = account.droplets.get(droplet_id)
    if droplet is None:
        raise invalid("droplet_id", f"droplet {droplet_id} does not exist")
    droplets.check_idle(account, droplet)
    if not droplet.public:
        raise invalid("droplet_id", f"droplet {droplet_id} has no public networking")
    if any(each.droplet == droplet_id for each in account.reserved_ips.values()):
        raise invalid("droplet_id", f"droplet {droplet_id} already has a reserved IP")
    return droplet


def _assign(account: Account, reserved: ReservedIp, droplet: Droplet) -> Action:
    if droplet.region != reserved.region:
        raise invalid("droplet_id", "The reserved IP and the Droplet are in different regions.")
    return _start(account, reserved, "assign_ip", droplet.id)


def _start(account: Account, reserved: ReservedIp, kind: str, droplet: int | None) -> Action:
    def work() -> None:
        with account.lock:
            reserved.droplet = droplet if droplet in account.droplets else None
            change = account.change()
        account.follow(change)

    number = int(ipaddress.IPv4Address(reserved.ip))  # so does DigitalOcean
    return actions.start(
        account,
        kind,
        "reserved_ip",
        number,
        reserved.region,
        work=work,
        seconds=account.delays.action,
    )


def _check_idle(account: Account, reserved: ReservedIp) -> None:
    if account.running(int(ipaddress.IPv4Address(reserved.ip))):
        raise Refused(422, "The reserved IP already has a pending event.")


def _list_actions(account: Account, call: Call) -> Answer:
    return actions.listed(account, call, int(ipaddress.IPv4Address(_find(account, call).ip)))


def _get_action(account: Account, call: Call) -> Answer:
    reserved = _find(account, call)
    return actions.one(account, call, int(ipaddress.IPv4Address(reserved.ip)))


def _show_action(account: Account, reserved: ReservedIp, action: Action) -> Json:
    return {**actions.show(action), "project_id": account.assigned[reserved.urn][0]}


def _find(account: Account, call: Call) -> ReservedIp:
    if reserved := account.reserved_ips.get(call.arguments["ip"]):
        return reserved
    raise missing()


def _show(account: Account, call: Call, reserved: ReservedIp) -> Json:
    droplet = None if reserved.droplet is None else account.droplets[reserved.droplet]
    return {
        "ip": reserved.ip,
        "droplet": droplets.show(account, call, droplet) if droplet else None,
        "region": catalogue.show_region(reserved.region),
        "locked": account.running(int(ipaddress.IPv4Address(reserved.ip))),
        "project_id": account.assigned[reserved.urn][0],
    }


ROUTES = (
    Route("POST", "/v2/reserved_ips", _create, "reserved_ip:create"),
    Route("GET", "/v2/reserved_ips", _list, "reserved_ip:read"),
    Route("GET", "/v2/reserved_ips/{ip}", _get, "reserved_ip:read"),
    Route("DELETE", "/v2/reserved_ips/{ip}", _delete, "reserved_ip:delete"),
    Route("POST", "/v2/reserved_ips/{ip}/actions", _act, "reserved_ip:update"),
    Route("GET", "/v2/reserved_ips/{ip}/actions", _list_actions, "reserved_ip:read"),
    Route("GET", "/v2/reserved_ips/{ip}/actions/{action_id}", _get_action, "reserved_ip:read"),
)
