"""A load balancer in front of droplets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pulumi.provider.experimental.provider import CheckFailure

from lab.plugins.common import UNKNOWN
from lab.plugins.digitalocean.api import Json
from lab.plugins.digitalocean.resource import Data, Operation, Resource, given
from lab.plugins.digitalocean.schema import (
    Field,
    Fields,
    Plan,
    between,
    lengths,
    name_field,
    not_empty,
    one_of,
    output,
    sequence,
    tag_name,
)
from lab.plugins.digitalocean.waits import Failed, Wait

ACTIVE = Wait(seconds=600, least_step=15)
SIZES = {"lb-small": 1, "lb-medium": 3, "lb-large": 6}
"""The old names of so many nodes."""

_PORT = Field(type="integer", required=True, check=between(1, 65535))
_UNSERVED = Field(type="string", unserved=True)
_FORWARDING = {
    "entryProtocol": Field(
        type="string", required=True, check=one_of("http", "https", "http2", "http3", "tcp", "udp")
    ),
    "entryPort": _PORT,
    "targetProtocol": Field(
        type="string", required=True, check=one_of("http", "https", "http2", "tcp", "udp")
    ),
    "targetPort": _PORT,
    "tlsPassthrough": Field(type="boolean", default=False),
    "certificateId": _UNSERVED,
    "certificateName": _UNSERVED,
}
_HEALTH_NUMBERS = {
    "checkIntervalSeconds": ("check_interval_seconds", 10, between(3, 300)),
    "responseTimeoutSeconds": ("response_timeout_seconds", 5, between(3, 300)),
    "unhealthyThreshold": ("unhealthy_threshold", 3, between(2, 10)),
    "healthyThreshold": ("healthy_threshold", 5, between(2, 10)),
}
_SWITCHES = {
    "redirectHttpToHttps": "redirect_http_to_https",
    "enableProxyProtocol": "enable_proxy_protocol",
    "enableBackendKeepalive": "enable_backend_keepalive",
}


def _same_size(old: Any, new: Any, values: Mapping[str, Any]) -> bool:
    units = values["sizeUnit"]
    return SIZES.get(new) == units if units else bool(old == new)


class LoadBalancer(Resource):
    """A balancer of a region, for droplets by id or by one tag. Certificates and global ones are not served.

    Network, network stack and cipher policy the API is never asked for again.
    """

    token = "digitalocean:index/loadBalancer:LoadBalancer"
    schema_version = 1
    fields: ClassVar[Fields] = {
        "name": name_field(),
        "region": Field(type="string", replaces=True, stored=str.lower),
        "size": Field(type="string", check=one_of(*SIZES), same=_same_size),
        "sizeUnit": Field(type="integer", computed=True, check=between(1, 200)),
        "algorithm": Field(
            type="string",
            default="round_robin",
            deprecated=True,
            check=one_of("round_robin", "least_connections"),
        ),
        "forwardingRules": Field(type="set", element=Field(type="object", fields=_FORWARDING)),
        "healthcheck": Field(
            type="object",
            computed=True,
            fields={
                "protocol": Field(type="string", required=True, check=one_of("http", "https", "tcp")),
                "port": _PORT,
                "path": Field(type="string", check=not_empty),
                **{
                    name: Field(type="integer", default=default, check=check)
                    for name, (_, default, check) in _HEALTH_NUMBERS.items()
                },
            },
        ),
        "stickySessions": Field(
            type="object",
            computed=True,
            fields={
                "type": Field(type="string", default="none", check=one_of("cookies", "none")),
                "cookieName": Field(type="string", check=lengths(2, 40)),
                "cookieTtlSeconds": Field(type="integer", check=between(1, 2**63 - 1)),
            },
        ),
        "dropletIds": sequence("set", "integer")(computed=True),
        "dropletTag": Field(
            type="string",
            check=tag_name,
            same=lambda old, new, values: (old or "").casefold() == (new or "").casefold(),
        ),
        **{name: Field(type="boolean", default=False) for name in _SWITCHES},
        "disableLetsEncryptDnsRecords": Field(type="boolean", default=False),
        "vpcUuid": Field(type="string", computed=True, replaces=True, check=not_empty),
        "httpIdleTimeoutSeconds": Field(type="integer", computed=True),
        "projectId": Field(type="string", computed=True),
        "firewall": Field(
            type="object",
            computed=True,
            fields={"allows": sequence("list", "string")(), "denies": sequence("list", "string")()},
        ),
        "type": Field(
            type="string",
            computed=True,
            replaces=True,
            check=one_of("REGIONAL", "REGIONAL_NETWORK", "GLOBAL", ignore_case=True),
        ),
        "domains": Field(type="set", computed=True, unserved=True, element=Field(type="object")),
        "glbSettings": Field(type="object", computed=True, unserved=True),
        "targetLoadBalancerIds": sequence("set", "string")(computed=True, unserved=True),
        "network": Field(
            type="string", replaces=True, check=one_of("EXTERNAL", "INTERNAL", ignore_case=True)
        ),
        "networkStack": Field(
            type="string", replaces=True, check=one_of("IPV4", "DUALSTACK", ignore_case=True)
        ),
        "tlsCipherPolicy": Field(type="string", check=one_of("DEFAULT", "STRONG", ignore_case=True)),
        "ip": output("string"),
        "ipv6": output("string"),
        "loadBalancerUrn": output("string"),
        "status": output("string"),
    }

    def check(self, inputs: Mapping[str, Any]) -> Iterator[CheckFailure]:
        """Refuse two ways to say which droplets, and no forwarding where it is spoken of."""
        if inputs.get("dropletIds") is not None and inputs.get("dropletTag") not in (None, UNKNOWN):
            reason = 'Conflicting configuration arguments: "droplet_ids": conflicts with droplet_tag'
            yield CheckFailure("dropletIds", reason)
        if inputs.get("forwardingRules") == []:
            yield CheckFailure("forwardingRules", "Not enough list items: attribute requires 1 item minimum")

    def review(self, plan: Plan) -> None:
        """Refuse a health check or a region that does not fit the rest."""
        health = plan.values["healthcheck"]
        if health not in (None, UNKNOWN):
            protocol = health["protocol"]
            if protocol == "tcp" and health.get("path"):
                raise Failed("health check `path` is not allowed for when protocol is `tcp`")
            if protocol in ("http", "https") and not health.get("path"):
                raise Failed(f"health check `path` is required for when protocol is `{protocol}`")
        _review_sessions(plan.values["stickySessions"])
        kind, region = (
            None if plan.values[name] == UNKNOWN else plan.values[name] for name in ("type", "region")
        )
        if not kind and not region:
            raise Failed("missing 'region' value")
        if kind and kind.upper() == "GLOBAL":
            raise Failed("global load balancers are not in the lab's stand-in: install the official plugin")
        if not region:
            raise Failed(f"'region' must be set and not be empty when 'type' is '{kind}'")

    async def create(self, operation: Operation, data: Data) -> None:
        """Order it and wait until it is active."""
        body = _body(data)
        answer = await operation.call("Error creating Load Balancer", "load_balancers.create", body=body)
        data.id = answer["load_balancer"]["id"]

        async def ask() -> str:
            failure = f"Error issuing read request for Load Balancer '{data.id}'"
            found = await operation.call(failure, "load_balancers.get", data.id)
            return str(found["load_balancer"]["status"])

        failure = f"Error waiting for Load Balancer ({data['name']}) to become active"
        await operation.wait_for(failure, ask, ACTIVE, target="active", pending={"new"})
        await self.read(operation, data)

    async def read(self, operation: Operation, data: Data) -> None:
        """Take from the API what it tells."""
        answer = await operation.find("Error retrieving Loadbalancer", "load_balancers.get", data.id)
        if answer is None:
            data.id = ""
            return
        _take(data, answer["load_balancer"])

    async def update(self, operation: Operation, data: Data) -> None:
        """Set the whole of it. A balancer that is still busy with the last change refuses."""
        failure = "Error updating Load Balancer"
        await operation.call(failure, "load_balancers.update", data.id, body=_body(data))
        await self.read(operation, data)

    async def delete(self, operation: Operation, data: Data) -> None:
        """Delete it, or find it gone."""
        await operation.find("Error deleting Load Balancer", "load_balancers.delete", data.id)


def _review_sessions(sessions: Any) -> None:
    if sessions in (None, UNKNOWN):
        return
    cookies = sessions.get("type") == "cookies"
    for name, value in (
        ("cookie_name", sessions.get("cookieName")),
        ("cookie_ttl_seconds", sessions.get("cookieTtlSeconds")),
    ):
        if cookies and not value:
            raise Failed(f"sticky sessions `{name}` is required for when type is `cookie`")
        if value and not cookies:
            raise Failed(f"sticky sessions `{name}` is not allowed for when type is `none`")


def _body(data: Data) -> Json:
    """The request; null is what the official plugin's client sends for nothing."""
    body = given(
        name=data["name"],
        region=data.given("region"),
        algorithm=data["algorithm"],
        forwarding_rules=[_forwarding(rule) for rule in data["forwardingRules"] or []],
        project_id=data["projectId"],
        http_idle_timeout_seconds=data["httpIdleTimeoutSeconds"],
        vpc_uuid=data["vpcUuid"],
        type=data["type"],
        network=data["network"],
        network_stack=data["networkStack"],
        tls_cipher_policy=data["tlsCipherPolicy"],
        **{key: data[name] for name, key in _SWITCHES.items()},
    )
    body["disable_lets_encrypt_dns_records"] = bool(data["disableLetsEncryptDnsRecords"])
    body |= given(size_unit=data["sizeUnit"]) or given(size=data["size"])
    body |= given(tag=data["dropletTag"]) or given(droplet_ids=data["dropletIds"])
    if health := data["healthcheck"]:
        body["health_check"] = given(
            protocol=health["protocol"],
            port=health["port"],
            path=health.get("path"),
            **{key: health.get(name, default) for name, (key, default, _) in _HEALTH_NUMBERS.items()},
        )
    if sessions := data["stickySessions"]:
        body["sticky_sessions"] = given(
            type=sessions.get("type"),
            cookie_name=sessions.get("cookieName"),
            cookie_ttl_seconds=sessions.get("cookieTtlSeconds"),
        )
    if firewall := data["firewall"]:
        body["firewall"] = given(allow=firewall.get("allows"), deny=firewall.get("denies"))
    return body


def _forwarding(rule: Json) -> Json:
    return given(
        entry_protocol=rule["entryProtocol"],
        entry_port=rule["entryPort"],
        target_protocol=rule["targetProtocol"],
        target_port=rule["targetPort"],
        tls_passthrough=rule.get("tlsPassthrough"),
    )


def _take(data: Data, balancer: Json) -> None:
    data.values |= {
        "name": balancer["name"],
        "loadBalancerUrn": f"do:loadbalancer:{balancer['id']}",
        "ip": balancer.get("ip") or "",
        "status": balancer["status"],
        "algorithm": balancer.get("algorithm") or "",
        **{name: bool(balancer.get(key)) for name, key in _SWITCHES.items()},
        "dropletTag": balancer.get("tag") or "",
        "vpcUuid": balancer.get("vpc_uuid") or "",
        "httpIdleTimeoutSeconds": balancer.get("http_idle_timeout_seconds"),
        "projectId": balancer.get("project_id") or "",
        "type": balancer.get("type") or "",
        "disableLetsEncryptDnsRecords": bool(balancer.get("disable_lets_encrypt_dns_records")),
        "dropletIds": sorted(balancer.get("droplet_ids") or []),
        "stickySessions": _sessions(balancer.get("sticky_sessions")),
        "healthcheck": _health(balancer.get("health_check")),
        "forwardingRules": [_rule(rule) for rule in balancer.get("forwarding_rules") or []],
        "firewall": _firewall(balancer.get("firewall")),
        "domains": [],
        "glbSettings": None,
        "targetLoadBalancerIds": [],
    }
    if balancer.get("ipv6"):
        data.values["ipv6"] = balancer["ipv6"]
    if balancer.get("size_unit"):
        data.values["sizeUnit"] = balancer["size_unit"]
    else:
        data.values["size"] = balancer.get("size") or ""
    if balancer.get("region"):
        data.values["region"] = balancer["region"]["slug"]


def _rule(rule: Json) -> Json:
    if rule.get("certificate_id"):
        raise Failed(
            "certificates of load balancers are not in the lab's stand-in: install the official plugin"
        )
    return {
        "entryProtocol": rule["entry_protocol"],
        "entryPort": rule["entry_port"],
        "targetProtocol": rule["target_protocol"],
        "targetPort": rule["target_port"],
        "tlsPassthrough": bool(rule.get("tls_passthrough")),
    }


def _health(health: Json | None) -> Json | None:
    if health is None:
        return None
    return {
        "protocol": health["protocol"],
        "port": health["port"],
        "path": health.get("path") or "",
        **{name: health.get(key) or 0 for name, (key, _, _) in _HEALTH_NUMBERS.items()},
    }


def _sessions(sessions: Json | None) -> Json | None:
    if sessions is None:
        return None
    return {
        "type": sessions.get("type") or "",
        "cookieName": sessions.get("cookie_name") or "",
        "cookieTtlSeconds": sessions.get("cookie_ttl_seconds") or 0,
    }


def _firewall(firewall: Json | None) -> Json | None:
    if firewall is None:
        return None
    return {"allows": firewall.get("allow") or [], "denies": firewall.get("deny") or []}
