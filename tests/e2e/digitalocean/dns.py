"""Domains and their records."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

from pydantic import Field

from tests.e2e.digitalocean import projects
from tests.e2e.digitalocean.account import Account, Domain, Record
from tests.e2e.digitalocean.calls import NOTHING, Answer, Body, Call, Json, Refused, Route, invalid, missing

TTL = 1800
NAME_SERVERS = ("ns1.digitalocean.com", "ns2.digitalocean.com", "ns3.digitalocean.com")
DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?")
HOST = re.compile(
    r"@|(\*|[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
NAMES_A_HOST = ("CNAME", "MX", "NS", "SRV")
NEEDED = {
    "MX": ("priority",),
    "SRV": ("priority", "port", "weight"),
    "CAA": ("flags", "tag"),
}

Type = Literal["A", "AAAA", "CAA", "CNAME", "MX", "NS", "SRV", "TXT"]


class _Create(Body):
    name: str
    ip_address: str = ""


class _Change(Body):
    type: Type | None = None
    name: str | None = None
    data: str | None = None
    priority: int | None = Field(default=None, ge=0, le=65535)
    port: int | None = Field(default=None, ge=0, le=65535)
    ttl: int | None = Field(default=None, ge=30, le=604800)
    weight: int | None = Field(default=None, ge=0, le=65535)
    flags: int | None = Field(default=None, ge=0, le=255)
    tag: Literal["", "issue", "issuewild", "iodef"] | None = None


def own_records(domain: Domain) -> list[str]:
    """Type and full name of all that somebody made."""
    return [
        f"{each.type} {_fqdn(domain, each)}"
        for each in domain.records.values()
        if each.data not in NAME_SERVERS
    ]


def _create(account: Account, call: Call) -> Answer:
    body = call.read(_Create)
    name = body.name.lower()
    if not DOMAIN.fullmatch(name):
        raise invalid("name", "must be a domain such as example.com")
    if name in account.domains:
        raise invalid("name", "domain already exists")
    domain = Domain(name=name, records={})
    for server in NAME_SERVERS:
        _add(account, domain, _Change(type="NS", name="@", data=f"{server}."))
    if body.ip_address:
        _add(account, domain, _Change(type="A", name="@", data=body.ip_address))
    account.domains[name] = domain
    projects.assign_default(account, domain.urn)
    return Answer(status=201, body={"domain": {**_show(domain), "zone_file": None}})


def _list(account: Account, call: Call) -> Answer:
    return call.listed("domains", [*account.domains.values()], _show)


def _get(account: Account, call: Call) -> Answer:
    return Answer(body={"domain": _show(_find(account, call))})


def _delete(account: Account, call: Call) -> Answer:
    domain = _find(account, call)
    del account.domains[domain.name]
    del account.assigned[domain.urn]
    return NOTHING


def _create_record(account: Account, call: Call) -> Answer:
    record = _add(account, _find(account, call), call.read(_Change))
    return Answer(status=201, body={"domain_record": _show_record(record)})


def _list_records(account: Account, call: Call) -> Answer:
    domain = _find(account, call)
    found = [*domain.records.values()]
    if kind := call.query.get("type"):
        found = [record for record in found if record.type == kind]
    if name := call.query.get("name"):
        found = [record for record in found if _fqdn(domain, record) == name.lower()]
    return call.listed("domain_records", found, _show_record)


def _get_record(account: Account, call: Call) -> Answer:
    return Answer(body={"domain_record": _show_record(_find_record(_find(account, call), call))})


def _update_record(account: Account, call: Call) -> Answer:
    domain, body = _find(account, call), call.read(_Change)
    record = _find_record(domain, call)
    if body.type not in (None, record.type):
        raise invalid("type", "cannot be changed")
    known = {name: value for name, value in vars(record).items() if name != "id" and value is not None}
    if record.type in NAMES_A_HOST:
        known["data"] = f"{record.data}."
    asked = _Change.model_validate({**known, **body.model_dump(exclude_none=True)})
    domain.records[record.id] = _checked(domain, asked, record.id)
    return Answer(body={"domain_record": _show_record(domain.records[record.id])})


def _delete_record(account: Account, call: Call) -> Answer:
    domain = _find(account, call)
    del domain.records[_find_record(domain, call).id]
    return NOTHING


def _add(account: Account, domain: Domain, asked: _Change) -> Record:
    record = _checked(domain, asked, account.new_id("record"))
    domain.records[record.id] = record
    return record


def _checked(domain: Domain, asked: _Change, record_id: int) -> Record:
    """The record as it is kept: what isn't of its type is null, whatever was sent (godo sends zeros)."""
    if asked.type is None:
        raise invalid("type", "Field required")
    name = (asked.name or "@").lower().removesuffix(".").removesuffix(f".{domain.name}")
    if not HOST.fullmatch(name):
        raise invalid("name", "must be a host name within the domain, or @")
    _check_data(asked.type, asked.data)
    of_type = NEEDED.get(asked.type, ())
    for field in of_type:
        if getattr(asked, field) is None:
            raise invalid(field, f"is needed for {asked.type}")
    record = Record(
        id=record_id,
        type=asked.type,
        name=name,
        data=(asked.data or "").removesuffix("." if asked.type in NAMES_A_HOST else ""),
        ttl=asked.ttl or TTL,
        priority=asked.priority if "priority" in of_type else None,
        port=asked.port if "port" in of_type else None,
        weight=asked.weight if "weight" in of_type else None,
        flags=asked.flags if "flags" in of_type else None,
        tag=asked.tag if "tag" in of_type else None,
    )
    for other in domain.records.values():
        if other.id == record_id or other.name != name:
            continue
        if "CNAME" in (other.type, record.type):
            raise Refused(422, "data: CNAME records cannot share a name with other records")
        if other.type == record.type:
            other.ttl = record.ttl  # RFC 2181, section 5.2
    return record


def _check_data(kind: Type, data: str | None) -> None:
    if not data:
        raise invalid("data", "Data can't be blank")
    if kind in ("A", "AAAA"):
        try:
            (ipaddress.IPv4Address if kind == "A" else ipaddress.IPv6Address)(data)
        except ValueError as error:
            raise invalid("data", f"IP address did not match IPv{4 if kind == 'A' else 6} format") from error
    if kind in NAMES_A_HOST and data != "@" and not data.endswith("."):
        raise invalid("data", "Data needs to end with a dot (.)")


def _fqdn(domain: Domain, record: Record) -> str:
    return domain.name if record.name == "@" else f"{record.name}.{domain.name}"


def _find(account: Account, call: Call) -> Domain:
    if domain := account.domains.get(call.arguments["domain"].lower()):
        return domain
    raise missing()


def _find_record(domain: Domain, call: Call) -> Record:
    if record := domain.records.get(call.number("record_id")):
        return record
    raise missing()


def _show(domain: Domain) -> Json:
    lines = [
        f"$ORIGIN {domain.name}.",
        f"$TTL {TTL}",
        *(
            f"{_fqdn(domain, each)}. {each.ttl} IN {each.type} {each.data}"
            for each in domain.records.values()
        ),
    ]
    return {"name": domain.name, "ttl": TTL, "zone_file": "\n".join(lines) + "\n"}


def _show_record(record: Record) -> Json:
    return dict(vars(record))


ROUTES = (
    Route("POST", "/v2/domains", _create, "domain:create"),
    Route("GET", "/v2/domains", _list, "domain:read"),
    Route("GET", "/v2/domains/{domain}", _get, "domain:read"),
    Route("DELETE", "/v2/domains/{domain}", _delete, "domain:delete"),
    Route("POST", "/v2/domains/{domain}/records", _create_record, "domain:create"),
    Route("GET", "/v2/domains/{domain}/records", _list_records, "domain:read"),
    Route("GET", "/v2/domains/{domain}/records/{record_id}", _get_record, "domain:read"),
    Route("PUT", "/v2/domains/{domain}/records/{record_id}", _update_record, "domain:update"),
    Route("PATCH", "/v2/domains/{domain}/records/{record_id}", _update_record, "domain:update"),
    Route("DELETE", "/v2/domains/{domain}/records/{record_id}", _delete_record, "domain:delete"),
)
