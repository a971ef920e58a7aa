"""A machine as plain functions see it: name, role, address, labels and taints, but no login."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from components.config import ClusterConfig
from components.config.k8s_names import Taint

__all__ = ["HostSpec", "Machine", "Machines", "configured_machines"]


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    """A host's properties that are known before it exists."""

    name: str
    role: Literal["controller", "worker"]
    nested: bool = False
    """True for a container on a shared machine: its disk and its swap say nothing about the node."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()

    @property
    def is_controller(self) -> bool:
        """Whether etcd and the control plane may run here."""
        return self.role == "controller"

    def at(self, address: str) -> Machine:
        """The machine that the host is at that address."""
        return Machine(
            name=self.name,
            role=self.role,
            nested=self.nested,
            labels=self.labels,
            taints=self.taints,
            address=address,
        )


@dataclass(frozen=True, kw_only=True)
class Machine(HostSpec):
    """A node-to-be, without the way to log in to it."""

    address: str
    """IPv4 address that the other hosts reach it at; also the node's InternalIP."""


@dataclass(frozen=True, kw_only=True)
class Machines(Mapping[str, Machine]):
    """All machines of a cluster by name, and where its API is."""

    by_name: Mapping[str, Machine]
    api_host: str
    """Address or DNS name of the API: a load balancer's, or the only controller's address."""

    def __getitem__(self, name: str) -> Machine:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)


def configured_machines(cfg: ClusterConfig) -> Machines:
    """The machines as the config alone describes them, without a platform. It has to have every address."""
    machines = {
        name: Machine(
            name=name, role=host.role, labels=host.labels, taints=host.taints, address=cfg.addresses[name]
        )
        for name, host in cfg.hosts.items()
    }
    return Machines(by_name=machines, api_host=cfg.api.host or machines[cfg.bootstrap_controller].address)
