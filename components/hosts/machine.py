"""A machine as plain functions see it: name, role, address, labels and taints, but no login."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from components.config.k8s_names import Taint

__all__ = ["Machine"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A host's properties that rendered files depend on. It has no login."""

    name: str
    role: Literal["controller", "worker"]
    address: str
    """IPv4 address that the other hosts reach it at; also the node's InternalIP."""
    nested: bool = False
    """True for a container on a shared machine: its disk and its swap say nothing about the node."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()

    @property
    def is_controller(self) -> bool:
        """Whether etcd and the control plane may run here."""
        return self.role == "controller"
