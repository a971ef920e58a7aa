"""Ports of hosts: who listens where, and who has to get there. A network between pods has more of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from components.tables.components.kube_apiserver import KUBE_APISERVER
from components.tables.components.kube_controller_manager import KUBE_CONTROLLER_MANAGER
from components.tables.components.kube_scheduler import KUBE_SCHEDULER

__all__ = ["API", "NODE_PORTS", "PORTS", "SSH", "Port", "port_range"]


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port, or a range of them, on hosts of one kind."""

    first: int
    last: int | None = None
    """Of a range."""
    key: str = ""
    """The key of the config that may name another one."""
    protocol: Literal["TCP", "UDP", "TCP and UDP"] = "TCP"
    controllers_only: bool = False
    listener: str
    clients: str = ""
    """Who has to reach it from another machine. Nothing: it is on the loopback."""
    purpose: str
    needed: bool = True
    """Whether a host has to have it free. Else who listens there goes on without it, or is no part of the
    cluster.
    """


SSH = Port(
    first=22,
    key="hosts.<name>.port",
    listener="the SSH server",
    clients="where Pulumi runs",
    purpose="SSH",
    needed=False,
)
NODE_PORTS = Port(
    first=30000,
    last=32767,
    key="flags.kube-apiserver.service-node-port-range",
    protocol="TCP and UDP",
    listener="kube-proxy, by rules",
    clients="users of NodePorts",
    purpose="Services of type NodePort",
    needed=False,
)
API = Port(
    first=KUBE_APISERVER.port,
    key="api.port",
    controllers_only=True,
    listener="kube-apiserver",
    clients="all hosts, where Pulumi runs, users",
    purpose="the API",
)

PORTS = (
    SSH,
    Port(first=10248, listener="the kubelet", purpose="its health", needed=False),
    Port(first=10249, listener="kube-proxy", purpose="its metrics", needed=False),
    Port(first=10250, listener="the kubelet", clients="controllers", purpose="logs, exec, metrics"),
    Port(first=10256, listener="kube-proxy", clients="load balancers", purpose="its health"),
    NODE_PORTS,
    API,
    Port(
        first=2379, controllers_only=True, listener="etcd", clients="controllers", purpose="clients of etcd"
    ),
    Port(
        first=2380, controllers_only=True, listener="etcd", clients="controllers", purpose="members of etcd"
    ),
    Port(first=2381, controllers_only=True, listener="etcd", purpose="its health and metrics"),
    *(
        Port(first=each.port, controllers_only=True, listener=each.name, purpose="its health and metrics")
        for each in (KUBE_CONTROLLER_MANAGER, KUBE_SCHEDULER)
    ),
)


def port_range(text: str) -> range:
    """The ports of a range as the flag takes it: first-last, first+more or one; else none."""
    parts = re.fullmatch(r"(\d{1,5})(?:([-+])(\d{1,5}))?", text.strip(), re.ASCII)
    if parts is None:
        return range(0)
    first, rest = int(parts[1]), int(parts[3] or 0)
    return range(first, (rest if parts[2] == "-" else first + rest) + 1)
