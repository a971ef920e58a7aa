"""A machinery that only remembers, for tests of what stands before it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.e2e.digitalocean.machinery import Balancer, Droplet, Machinery, Rule

__all__ = ["FakeMachinery", "Machine"]


@dataclass(kw_only=True)
class Machine:
    """A droplet, what it was last told, and whether it runs."""

    droplet: Droplet
    running: bool = True
    inbound: tuple[Rule, ...] | None = None
    outbound: tuple[Rule, ...] | None = None
    reserved: frozenset[str] = frozenset()


class FakeMachinery(Machinery):
    """Networks by VPC, machines by droplet, balancers by id.

    While `booting` is clear no machine boots, while `balancing` is no balancer is made or changed.
    """

    def __init__(self) -> None:
        self.networks: dict[str, str] = {}
        self.machines: dict[int, Machine] = {}
        self.balancers: dict[str, Balancer] = {}
        self.booting, self.balancing = threading.Event(), threading.Event()
        self.booting.set()
        self.balancing.set()

    def make_network(self, vpc: str, ip_range: str) -> None:
        self.networks[vpc] = ip_range

    def remove_network(self, vpc: str) -> None:
        del self.networks[vpc]

    def make(self, droplet: Droplet) -> None:
        assert droplet.vpc in self.networks
        assert self.booting.wait(30)
        self.machines[droplet.id] = Machine(droplet=droplet)

    def power(self, droplet: int, action: Literal["on", "off", "cycle", "reboot"]) -> None:
        self.machines[droplet].running = action != "off"

    def is_running(self, droplet: int) -> bool:
        return self.machines[droplet].running

    def remove(self, droplet: int) -> None:
        self.machines.pop(droplet, None)

    def set_firewall(
        self, droplet: int, inbound: Sequence[Rule] | None, outbound: Sequence[Rule] | None
    ) -> None:
        machine = self.machines[droplet]
        machine.inbound = None if inbound is None else tuple(inbound)
        machine.outbound = None if outbound is None else tuple(outbound)

    def set_reserved(self, droplet: int, addresses: Collection[str]) -> None:
        self.machines[droplet].reserved = frozenset(addresses)

    def set_balancer(self, balancer: Balancer) -> None:
        assert self.balancing.wait(30)
        self.balancers[balancer.id] = balancer

    def private_address(self, balancer: str) -> str:
        order = [*self.balancers].index(balancer)
        network = self.networks[self.balancers[balancer].vpc]
        return f"{network.rpartition('.')[0]}.{200 + order}"

    def remove_balancer(self, balancer: str) -> None:
        del self.balancers[balancer]

    def healthy(self, balancer: str) -> set[int]:
        return {
            droplet
            for droplet in self.balancers[balancer].backends
            if droplet in self.machines and self.machines[droplet].running
        }
