"""VPCs: private networks, one of which is the default of its region."""

from __future__ import annotations

import ipaddress
import uuid
from typing import Annotated

from pydantic import AfterValidator, Field

from tests.e2e.digitalocean.account import Account, Member, Vpc, now
from tests.e2e.digitalocean.addresses import Pool
from tests.e2e.digitalocean.calls import NOTHING, Answer, Body, Call, Json, Refused, Route, invalid, missing
from tests.e2e.digitalocean.catalogue import REGIONS

PRIVATE = [ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
# DigitalOcean's own: its guide on planning a VPC.
RESERVED = [
    ipaddress.IPv4Network(text)
    for text in ("10.244.0.0/16", "10.245.0.0/16", "10.246.0.0/24", "10.229.0.0/16")
]
GENERATED_LENGTH = 20


def _ip_range(text: str) -> str:
    network = ipaddress.IPv4Network(text)
    if not 16 <= network.prefixlen <= 28:
        raise ValueError("must not be smaller than /28 nor larger than /16")
    if not any(network.subnet_of(private) for private in PRIVATE):
        raise ValueError("must be in the private address ranges of RFC1918")
    if any(network.overlaps(reserved) for reserved in RESERVED):
        raise ValueError("overlaps with a range that is reserved for internal use")
    return text


class _Description(Body):
    name: str = Field(pattern=r"^[a-zA-Z0-9\-.]+$")
    description: str = Field(default="", max_length=255)


class _Create(_Description):
    region: str
    ip_range: Annotated[str, AfterValidator(_ip_range)] | None = None


class _Put(_Description):
    default: bool | None = None


class _Patch(Body):
    name: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9\-.]+$")
    description: str | None = Field(default=None, max_length=255)
    default: bool | None = None


def make_default(account: Account, region: str) -> Vpc:
    """Makes a region's default VPC, or returns it, as DigitalOcean does for whoever names none."""
    with account.lock:
        if vpc := _default(account, region):
            return vpc
        vpc = _new(account, f"default-{region}", "", region, None)
    _make(account, vpc)
    return vpc


def _default(account: Account, region: str) -> Vpc | None:
    return next((vpc for vpc in account.vpcs.values() if vpc.default and vpc.region == region), None)


def _new(account: Account, name: str, description: str, region: str, ip_range: str | None) -> Vpc:
    if region not in REGIONS:
        raise invalid("region", f"{region} is not a region")
    _check_name(account, name, None)
    taken = [vpc.pool.network for vpc in account.vpcs.values()]
    if ip_range is None:
        all_ranges = ipaddress.IPv4Network(account.generated_vpcs).subnets(new_prefix=GENERATED_LENGTH)
        free = (each for each in all_ranges if not any(each.overlaps(other) for other in taken))
        if (network := next(free, None)) is None:
            raise invalid("ip_range", f"no range is left in {account.generated_vpcs}")
    else:
        network = ipaddress.IPv4Network(ip_range)
        if any(network.overlaps(other) for other in taken):
            raise invalid("ip_range", "This range/size overlaps with another VPC network in your account.")
    vpc = Vpc(
        id=str(uuid.uuid4()),
        name=name,
        description=description,
        region=region,
        pool=Pool(str(network), quarters=3),  # the last one is for balancers
        default=_default(account, region) is None,
        created_at=now(),
    )
    account.vpcs[vpc.id] = vpc
    return vpc


def _make(account: Account, vpc: Vpc) -> None:
    try:
        account.machinery.make_network(vpc.id, str(vpc.pool.network))
    except Exception:
        with account.lock:
            del account.vpcs[vpc.id]
        raise
    with account.lock:
        vpc.ready = True


def _check_name(account: Account, name: str, own: str | None) -> None:
    if any(vpc.name == name and vpc.id != own for vpc in account.vpcs.values()):
        raise invalid("name", "VPC names must be unique, and there is one of this name")


def _create(account: Account, call: Call) -> Answer:
    body = call.read(_Create)
    with account.lock:
        vpc = _new(account, body.name, body.description, body.region, body.ip_range)
    _make(account, vpc)
    return Answer(status=201, body={"vpc": _show(vpc)})


def _list(account: Account, call: Call) -> Answer:
    return call.listed("vpcs", [vpc for vpc in account.vpcs.values() if vpc.ready], _show)


def _get(account: Account, call: Call) -> Answer:
    return Answer(body={"vpc": _show(_find(account, call))})


def _put(account: Account, call: Call) -> Answer:
    vpc, body = _find(account, call), call.read(_Put)
    return _update(account, vpc, body.name, body.description, body.default)


def _patch(account: Account, call: Call) -> Answer:
    vpc, body = _find(account, call), call.read(_Patch)
    description = vpc.description if body.description is None else body.description
    return _update(account, vpc, body.name or vpc.name, description, body.default)


def _update(account: Account, vpc: Vpc, name: str, description: str, default: bool | None) -> Answer:
    _check_name(account, name, vpc.id)
    if vpc.default and default is False:
        raise invalid("default", "cannot be unset; make another VPC of the region the default")
    if default:
        for other in account.vpcs.values():
            if other.region == vpc.region:
                other.default = other is vpc
    vpc.name, vpc.description = name, description
    return Answer(body={"vpc": _show(vpc)})


def _delete(account: Account, call: Call) -> Answer:
    with account.lock:
        vpc = _find(account, call)
        if vpc.default:
            raise Refused(403, "Can not delete default VPCs")
        if account.members(vpc.id):
            # The OpenAPI description says 403; this is what is seen (pulumi-digitalocean#753).
            raise Refused(409, "Can not delete VPC with members")
        vpc.ready = False
    account.machinery.remove_network(vpc.id)
    with account.lock:
        del account.vpcs[vpc.id]
    return NOTHING


def _list_members(account: Account, call: Call) -> Answer:
    kind = call.query.get("resource_type", "")
    members = account.members(_find(account, call).id)
    return call.listed(
        "members", [each for each in members if each.urn.startswith(f"do:{kind}")], _show_member
    )


def _show_member(member: Member) -> Json:
    return {"urn": member.urn, "name": member.name, "created_at": member.created_at}


def _find(account: Account, call: Call) -> Vpc:
    if vpc := account.vpc(call.arguments["vpc_id"]):
        return vpc
    raise missing()


def _show(vpc: Vpc) -> Json:
    return {
        "id": vpc.id,
        "urn": f"do:vpc:{vpc.id}",
        "name": vpc.name,
        "description": vpc.description,
        "region": vpc.region,
        "ip_range": str(vpc.pool.network),
        "default": vpc.default,
        "created_at": vpc.created_at,
    }


ROUTES = (
    Route("POST", "/v2/vpcs", _create, "vpc:create", slow=True),
    Route("GET", "/v2/vpcs", _list, "vpc:read"),
    Route("GET", "/v2/vpcs/{vpc_id}", _get, "vpc:read"),
    Route("PUT", "/v2/vpcs/{vpc_id}", _put, "vpc:update"),
    Route("PATCH", "/v2/vpcs/{vpc_id}", _patch, "vpc:update"),
    Route("DELETE", "/v2/vpcs/{vpc_id}", _delete, "vpc:delete", slow=True),
    Route("GET", "/v2/vpcs/{vpc_id}/members", _list_members, "vpc:read"),
)
