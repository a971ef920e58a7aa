"""What stands behind the API: the machines, networks, firewalls and balancers that its answers speak of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Balancer", "Check", "Droplet", "Forwarding", "Machinery", "Rule"]


@dataclass(frozen=True, kw_only=True)
class Droplet:
    """A machine as it was ordered. Region, VPC and user data never change."""

    id: int
    name: str
    region: str
    public: str
    private: str
    vpc: str
    authorized_keys: tuple[str, ...]
    user_data: str
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a firewall lets through; tags and balancers are addresses by now."""

    protocol: Literal["tcp", "udp", "icmp"]
    ports: tuple[int, int] | None
    """First and last. None: all."""
    addresses: tuple[str, ...]
    """Addresses and CIDRs: of sources for an inbound rule, of destinations for an outbound one."""


@dataclass(frozen=True, kw_only=True)
class Forwarding:
    """A port of a balancer, and that of the droplets behind it."""

    port: int
    target: int


@dataclass(frozen=True, kw_only=True)
class Check:
    """How a balancer knows who is alive. Times are in seconds."""

    protocol: Literal["tcp", "http", "https"]
    port: int
    path: str
    interval: int
    timeout: int
    healthy: int
    unhealthy: int


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """A load balancer, which has an address in public and one in its VPC."""

    id: str
    public: str
    vpc: str
    forwarding: tuple[Forwarding, ...]
    check: Check
    backends: Mapping[int, str]
    """Private addresses of droplets by id."""
    allowed: tuple[str, ...]
    """CIDRs that may connect. Empty: all."""


class Machinery(Protocol):
    """Makes it so. Every call returns when what it asks for is done, and may be made twice."""

    def make_network(self, vpc: str, ip_range: str) -> None:
        """Makes the private network of a VPC, whose last quarter is for balancers, not for droplets."""

    def remove_network(self, vpc: str) -> None:
        """Removes it; no machine is in it any more."""

    def make(self, droplet: Droplet) -> None:
        """Boots a machine with both addresses, keys as cloud-init places them, and its metadata service."""

    def power(self, droplet: int, action: Literal["on", "off", "cycle", "reboot"]) -> None:
        """Does to a machine what a power button does, or asks it to reboot."""

    def is_running(self, droplet: int) -> bool:
        """Whether it is on; it may have been shut down from within."""

    def remove(self, droplet: int) -> None:
        """Removes a machine and its disk."""

    def set_firewall(
        self, droplet: int, inbound: Sequence[Rule] | None, outbound: Sequence[Rule] | None
    ) -> None:
        """Lets through what a rule allows and what belongs to it. None: no firewall applies, all passes."""

    def set_reserved(self, droplet: int, addresses: Collection[str]) -> None:
        """The reserved addresses that lead to a machine: those, and no others any more."""

    def set_balancer(self, balancer: Balancer) -> None:
        """Runs a balancer as described. A change of its backends cuts no connection to those that stay."""

    def private_address(self, balancer: str) -> str:
        """The address in its VPC from which a balancer connects to droplets."""

    def remove_balancer(self, balancer: str) -> None:
        """Ends it."""

    def healthy(self, balancer: str) -> set[int]:
        """The droplets that it sends connections to just now."""
