"""What is asked of firewalls and load balancers, which keep it: a request replaces the whole."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from tests.e2e.digitalocean.calls import Body, Json, Many

MOST_RULES = 50
MOST_DROPLETS = 10
MOST_TAGS = 5
MOST_ADDRESSES = 1000
OWN_PORTS = range(50053, 50056)  # the balancer's own: CCM's README


def _network(text: str) -> str:
    ipaddress.ip_network(text, strict=False)  # ValueError, which pydantic turns into an error of the field
    return text


def _ports(text: str) -> str:
    if text in ("0", "all"):
        return text
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not found or not 1 <= int(found[1]) <= int(found[2] or found[1]) <= 65535:
        raise ValueError("must be a port, a range such as 8000-9000, or all")
    return text


def _allowed(text: str) -> str:
    kind, _, value = text.partition(":")
    if kind == "ip":
        ipaddress.ip_address(value)
    elif kind == "cidr":
        ipaddress.ip_network(value)
    else:
        raise ValueError("must begin with ip: or cidr:")
    return text


Port = Annotated[int, Field(ge=1, le=65535)]
Network = Annotated[str, AfterValidator(_network)]


class Target(Body):
    """Who may be at the other end of a firewall's rule."""

    addresses: Many[Network] = Field(default=(), max_length=MOST_ADDRESSES)
    tags: Many[str] = Field(default=(), max_length=MOST_TAGS)
    droplet_ids: Many[int] = Field(default=(), max_length=MOST_DROPLETS)
    load_balancer_uids: Many[str] = ()
    kubernetes_ids: Annotated[Many[str], Field(max_length=0)] = ()  # there is none

    @model_validator(mode="after")
    def _is_somebody(self) -> Self:
        if not self.model_dump(exclude_defaults=True):
            raise ValueError("names nobody")
        return self


class _Rule(Body):
    protocol: Literal["tcp", "udp", "icmp"]
    ports: Annotated[str, AfterValidator(_ports)] | None = None
    action: Literal["allow"] | None = None

    @model_validator(mode="after")
    def _has_ports(self) -> Self:
        if self.protocol == "icmp":
            if self.ports not in (None, "0"):
                raise ValueError("ports: icmp has none")
        elif self.ports is None:
            raise ValueError("You must specify a positive value for ports.")
        return self

    def range(self) -> tuple[int, int] | None:
        """First and last port. None: all."""
        if self.ports in (None, "0", "all"):
            return None
        first, _, last = str(self.ports).partition("-")
        return int(first), int(last or first)

    def shown(self) -> Json:
        """As the API gives it back: "0" for all ports and for icmp; only who is named is there."""
        ports = self.ports if self.ports not in (None, "all") else "0"
        return {**self.model_dump(exclude_defaults=True), "ports": ports}


class InboundRule(_Rule):
    """Who may come in."""

    sources: Target


class OutboundRule(_Rule):
    """Who may be reached."""

    destinations: Target


class FirewallRules(Body):
    """Rules of a firewall."""

    inbound_rules: Many[InboundRule] = ()
    outbound_rules: Many[OutboundRule] = ()

    @model_validator(mode="after")
    def _are_some(self) -> Self:
        rules = [*self.inbound_rules, *self.outbound_rules]
        if not 1 <= len(rules) <= MOST_RULES:
            raise ValueError(f"inbound_rules and outbound_rules: must be 1 to {MOST_RULES} together")
        if any(rule in rules[:place] for place, rule in enumerate(rules)):
            raise ValueError("inbound_rules or outbound_rules: duplicate rule")
        return self


class FirewallRequest(FirewallRules):
    """A firewall."""

    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9.-]+$", max_length=255)
    droplet_ids: Many[int] = Field(default=(), max_length=MOST_DROPLETS)
    tags: Many[str] = Field(default=(), max_length=MOST_TAGS)


class ForwardingRule(Body):
    """A port of a balancer."""

    entry_protocol: Literal["http", "https", "http2", "tcp"]
    entry_port: Port
    target_protocol: Literal["http", "https", "http2", "tcp"]
    target_port: Port
    certificate_id: Annotated[str, Field(max_length=0)] = ""  # there is none
    tls_passthrough: bool = False

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.entry_port in OWN_PORTS:
            raise ValueError(f"entry_port: {self.entry_port} is reserved for internal use")
        if self.entry_protocol in ("https", "http2") and not self.tls_passthrough:
            raise ValueError("certificate_id: a certificate or tls_passthrough is needed")
        return self


class HealthCheck(Body):
    """How a balancer knows who is alive."""

    protocol: Literal["http", "https", "tcp"] = "http"
    port: Port = 80
    path: str = ""
    check_interval_seconds: int = Field(default=10, ge=3, le=300)
    response_timeout_seconds: int = Field(default=5, ge=3, le=300)
    unhealthy_threshold: int = Field(default=5, ge=2, le=10)
    healthy_threshold: int = Field(default=3, ge=2, le=10)

    @model_validator(mode="after")
    def _has_path(self) -> Self:
        if self.path and (self.protocol == "tcp" or not self.path.startswith("/")):
            raise ValueError("path: must begin with a slash, and tcp has none")
        return self

    def shown(self) -> Json:
        return {**self.model_dump(), "path": "" if self.protocol == "tcp" else self.path or "/"}


class StickySessions(Body):
    """Not offered here, but for their absence."""

    type: Literal["none"] = "none"


class BalancerFirewall(Body):
    """Who may connect to a balancer. Not offered here: `deny`."""

    allow: Many[Annotated[str, AfterValidator(_allowed)]] = ()
    deny: Annotated[Many[str], Field(max_length=0)] = ()


class BalancerRequest(Body):
    """A load balancer. Not offered here: other types and networks, certificates, UDP."""

    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9.-]*$", max_length=255)
    region: str = ""
    algorithm: Literal["round_robin", "least_connections"] = "round_robin"
    size: Literal["", "lb-small"] = ""
    size_unit: int = Field(default=1, ge=1, le=200)
    type: Literal["REGIONAL"] = "REGIONAL"
    network: Literal["EXTERNAL"] = "EXTERNAL"
    network_stack: Literal["IPV4"] = "IPV4"
    tls_cipher_policy: Literal["DEFAULT", "STRONG"] = "DEFAULT"
    forwarding_rules: list[ForwardingRule] = Field(min_length=1)
    health_check: HealthCheck = HealthCheck()
    sticky_sessions: StickySessions = StickySessions()
    droplet_ids: Many[int] = Field(default=(), max_length=MOST_DROPLETS)
    tag: str = ""
    redirect_http_to_https: Literal[False] = False
    enable_proxy_protocol: Literal[False] = False
    enable_backend_keepalive: bool = False
    disable_lets_encrypt_dns_records: bool = False
    vpc_uuid: str = ""
    project_id: str = ""
    http_idle_timeout_seconds: int = Field(default=60, ge=30, le=600)
    firewall: BalancerFirewall = BalancerFirewall()

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.droplet_ids and self.tag:
            raise ValueError("droplet_ids and tag: only one of them can be given")
        ports = [rule.entry_port for rule in self.forwarding_rules]
        if len(set(ports)) < len(ports):
            raise ValueError("forwarding_rules: an entry_port is there twice")
        return self


Ruled = TypeVar("Ruled", bound=FirewallRules)


def without(asked: Ruled, who: Literal["tags", "droplet_ids", "load_balancer_uids"], which: object) -> Ruled:
    """A firewall whose rules name one less, because it is gone."""

    def leave_out(target: Target) -> Target:
        rest = tuple(each for each in getattr(target, who) if each != which)
        return target.model_copy(update={who: rest})

    inbound = tuple(
        rule.model_copy(update={"sources": leave_out(rule.sources)}) for rule in asked.inbound_rules
    )
    outbound = tuple(
        rule.model_copy(update={"destinations": leave_out(rule.destinations)})
        for rule in asked.outbound_rules
    )
    return asked.model_copy(update={"inbound_rules": inbound, "outbound_rules": outbound})
