"""A record in a domain that the account has."""

from __future__ import annotations

from typing import Any, ClassVar

from lab.plugins.common import UNKNOWN
from lab.plugins.digitalocean.api import Json
from lab.plugins.digitalocean.resource import Data, Operation, Resource, given
from lab.plugins.digitalocean.schema import (
    Field,
    Fields,
    Plan,
    Values,
    between,
    name_field,
    not_empty,
    one_of,
    output,
)
from lab.plugins.digitalocean.waits import Failed

WITH_DOT = ("CNAME", "MX", "NS", "SRV", "CAA")
"""Types whose value is a name, which the state has with its final dot and the API without."""

_PORT = Field(type="integer", check=between(0, 65535))


def _same_name(old: Any, new: Any, values: Values) -> bool:
    domain = f"{values['domain']}."
    return bool((old == "@" and new == domain) or f"{old}.{domain}" == new)


def _same_value(old: Any, new: Any, values: Values) -> bool:
    domain = f"{values['domain']}."
    return bool((old == "@" and new == domain) or old == f"{new}.{domain}")


class DnsRecord(Resource):
    """A record of a domain."""

    token = "digitalocean:index/dnsRecord:DnsRecord"
    fields: ClassVar[Fields] = {
        "type": Field(
            type="string",
            required=True,
            replaces=True,
            check=one_of("A", "AAAA", "CAA", "CNAME", "MX", "NS", "TXT", "SRV", "SOA"),
        ),
        "domain": Field(type="string", required=True, replaces=True, check=not_empty),
        "name": name_field(same=_same_name),
        "port": _PORT,
        "priority": _PORT,
        "weight": _PORT,
        "ttl": Field(type="integer", computed=True, check=between(1, 2**63 - 1)),
        "value": Field(type="string", required=True, same=_same_value),
        "fqdn": output("string"),
        "flags": Field(type="integer", check=between(0, 255)),
        "tag": Field(type="string", check=one_of("issue", "issuewild", "iodef")),
    }

    def review(self, plan: Plan) -> None:
        """Refuse a record without what its type needs."""
        needed = {"MX": ["priority"], "SRV": ["priority", "weight"], "CAA": ["flags", "tag"]}
        kind = plan.values["type"]
        for name in needed.get(kind, []):
            if plan.values[name] in (None, UNKNOWN):
                raise Failed(f"`{name}` is required for when type is `{kind}`")

    async def create(self, operation: Operation, data: Data) -> None:
        """Make it."""
        if data["type"] == "SRV" and data["port"] is None:
            raise Failed("`port` is required for when type is `SRV`")
        body = {"type": data["type"]} | _body(data)
        answer = await operation.call(
            "Failed to create record", "domains.create_record", data["domain"], body=body
        )
        data.id = str(answer["domain_record"]["id"])
        await self.read(operation, data)

    async def read(self, operation: Operation, data: Data) -> None:
        """Take all of it from the API, which may have given it the TTL of others of its name."""
        answer = await operation.find(
            "Error retrieving record", "domains.get_record", data["domain"], int(data.id)
        )
        if answer is None:
            data.id = ""
            return
        record = answer["domain_record"]
        if (data["ttl"] or 0) != record["ttl"]:
            operation.warnings.append(
                f"The TTL for record ID {data.id} changed from {data['ttl'] or 0} to {record['ttl']}: "
                "records with the same name share one."
            )
        value = record["data"]
        if record["type"] in WITH_DOT and value != "@" and record.get("tag") != "iodef":
            value += "."
        data.values |= {
            "name": record["name"],
            "type": record["type"],
            "value": value,
            "ttl": record["ttl"],
            "tag": record.get("tag") or "",
            **{name: record.get(name) or 0 for name in ("port", "priority", "weight", "flags")},
            "fqdn": _fqdn(record["name"], data["domain"]),
        }

    async def update(self, operation: Operation, data: Data) -> None:
        """Set all but its type."""
        await operation.call(
            "Failed to update record",
            "domains.update_record",
            data["domain"],
            int(data.id),
            body=_body(data),
        )
        await self.read(operation, data)

    async def delete(self, operation: Operation, data: Data) -> None:
        """Delete it, or find it gone."""
        await operation.find("Error deleting record", "domains.delete_record", data["domain"], int(data.id))


def _body(data: Data) -> Json:
    numbers = {name: data[name] or 0 for name in ("priority", "port", "weight", "flags")}
    return given(name=data["name"], data=data["value"], ttl=data["ttl"], tag=data["tag"]) | numbers


def _fqdn(name: str, domain: str) -> str:
    if name == "@":
        return domain
    lower = name.lower()
    return lower.removesuffix(".") if lower.endswith(f"{domain}.") else f"{name}.{domain}"
