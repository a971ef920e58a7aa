"""A cloud firewall: what may reach droplets, and what they may reach."""

from __future__ import annotations

from typing import Any, ClassVar

from lab.plugins.common import UNKNOWN
from lab.plugins.digitalocean.api import Json
from lab.plugins.digitalocean.resource import Data, Operation, Resource, crash, given
from lab.plugins.digitalocean.schema import (
    Field,
    Fields,
    Plan,
    name_field,
    not_empty,
    one_of,
    output,
    sequence,
    tags_field,
)
from lab.plugins.digitalocean.waits import Failed

ICMP = "icmp"
NAMES = {"inbound": "source", "outbound": "destination"}
PEERS = {
    "Addresses": "addresses",
    "DropletIds": "droplet_ids",
    "LoadBalancerUids": "load_balancer_uids",
    "KubernetesIds": "kubernetes_ids",
    "Tags": "tags",
}
"""How a rule names its other end, here and in the API."""


def _rules(prefix: str) -> Field:
    fields: Fields = {
        "protocol": Field(type="string", required=True, check=one_of("tcp", "udp", ICMP)),
        "portRange": Field(type="string", check=not_empty),
        f"{prefix}Addresses": sequence("set", "string", not_empty)(),
        f"{prefix}DropletIds": sequence("set", "integer")(),
        f"{prefix}LoadBalancerUids": sequence("set", "string", not_empty)(),
        f"{prefix}KubernetesIds": sequence("set", "string", not_empty)(),
        f"{prefix}Tags": tags_field(),
    }
    return Field(type="set", element=Field(type="object", fields=fields))


class Firewall(Resource):
    """Rules for droplets by id and by tag. Whether the droplets have them already is not waited for."""

    token = "digitalocean:index/firewall:Firewall"
    fields: ClassVar[Fields] = {
        "name": name_field(),
        "dropletIds": sequence("set", "integer")(),
        "inboundRules": _rules("source"),
        "outboundRules": _rules("destination"),
        "tags": tags_field(),
        "status": output("string"),
        "createdAt": output("string"),
        "pendingChanges": output("list", element=Field(type="object")),
    }

    def review(self, plan: Plan) -> None:
        """Refuse a firewall without rules, and a rule without the ports that it is for."""
        rules = {way: plan.values[f"{way}Rules"] for way in NAMES}
        if all(found in (None, [], UNKNOWN) for found in rules.values()):
            raise Failed("At least one rule must be specified")
        for way, found in rules.items():
            for rule in [] if found == UNKNOWN else found or []:
                if rule != UNKNOWN and rule["protocol"] != ICMP and not rule.get("portRange"):
                    raise Failed(f"`port_range` of {way} rules is required if protocol is `tcp` or `udp`")

    async def create(self, operation: Operation, data: Data) -> None:
        """Make it."""
        answer = await operation.call("Error creating firewall", "firewalls.create", body=_body(data))
        data.id = answer["firewall"]["id"]
        await self.read(operation, data)

    async def read(self, operation: Operation, data: Data) -> None:
        """Take all of it from the API."""
        answer = await operation.find("Error retrieving firewall", "firewalls.get", data.id)
        if answer is None:
            data.id = ""
            return
        firewall = answer["firewall"]
        pending = [
            {"dropletId": change["droplet_id"], "removing": change["removing"], "status": change["status"]}
            for change in firewall.get("pending_changes") or []
        ]
        data.values |= {
            "status": firewall["status"],
            "createdAt": firewall["created_at"],
            "pendingChanges": pending,
            "name": firewall["name"],
            "dropletIds": sorted(firewall.get("droplet_ids") or []),
            "tags": sorted(firewall.get("tags") or []),
            **{f"{way}Rules": _read(firewall, way) for way in NAMES},
        }

    async def update(self, operation: Operation, data: Data) -> None:
        """Set the whole of it."""
        await operation.call("Error updating firewall", "firewalls.update", data.id, body=_body(data))
        await self.read(operation, data)

    async def delete(self, operation: Operation, data: Data) -> None:
        """Delete it; one that is gone already is an error."""
        await operation.call("Error deleting firewall", "firewalls.delete", data.id)


def _body(data: Data) -> Json:
    """The request, where null is what the official plugin's client sends for nothing."""
    body: Json = {
        "name": data["name"],
        "droplet_ids": data["dropletIds"] or None,
        "tags": data["tags"] or [],
    }
    for way, prefix in NAMES.items():
        rules = [
            given(protocol=rule["protocol"], ports=rule.get("portRange"))
            | {f"{prefix}s": given(**{key: rule.get(f"{prefix}{name}") for name, key in PEERS.items()})}
            for rule in data[f"{way}Rules"] or []
        ]
        body[f"{way}_rules"] = rules or None
    return body


def _read(firewall: Json, way: str) -> list[Json]:
    prefix = NAMES[way]
    rules = []
    for rule in firewall.get(f"{way}_rules") or []:
        peers = rule.get(f"{prefix}s")
        if peers is None:
            raise crash(f"the API's answer has an {way} rule without {prefix}s")
        rules.append(
            given(protocol=rule["protocol"], portRange=_ports(rule))
            | {f"{prefix}{name}": sorted(peers[key]) for name, key in PEERS.items() if peers.get(key)}
        )
    return sorted(rules, key=repr)


def _ports(rule: Json) -> Any:
    """The API says 0 for all ports, and for a protocol that has none."""
    ports = rule.get("ports") or ""
    if ports != "0":
        return ports
    return "" if rule["protocol"] == ICMP else "all"
