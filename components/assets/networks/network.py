"""What the program has to know of a network between pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from components.tables.components import ComponentName, Image, Workload
from components.tables.ports import Port

__all__ = ["Network"]


@dataclass(frozen=True, kw_only=True)
class Network:
    """How pods of different nodes reach each other. Preflight and reset look for what any of them leaves."""

    directory: Path
    """Its folder."""
    workload: Workload
    """What runs on every node. Names of its objects' files begin with its name."""
    busybox: Image
    """One of its images, which so every node has, with BusyBox in it: the network check runs on that."""
    flags: Mapping[ComponentName, Mapping[str, str]] = field(default_factory=dict)
    """What it needs of the control plane. `${name}` is filled in as for the components' own flags."""
    ports: tuple[Port, ...] = ()
    directories: tuple[str, ...] = ()
    """What it makes on a host, beside what CNI plugins have in common."""
    links: tuple[str, ...] = ()
    """Links on a host that outlive its pods."""
    tables: tuple[str, ...] = ()
    """Its tables of nftables, as `family name`: extended regular expressions."""
    chains: tuple[str, ...] = ()
    """What the names of its chains in iptables' tables begin with."""

    def manifests(self) -> dict[str, str]:
        """Templates of its objects by file name."""
        return {path.name: path.read_text() for path in sorted((self.directory / "manifests").iterdir())}

    def keep_node(self) -> str:
        """Shell functions `pods_range`, which prints the range that this node's pods have addresses of, and
        `renew_range`, which has the network ask for the new Node's.
        """
        return (self.directory / "keep-node.sh").read_text()
