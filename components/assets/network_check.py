"""Renders the network check: pods on every node that ask a Service on another node."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from components.archive import File
from components.assets import templates
from components.assets.manifests import Object
from components.config import ClusterConfig
from components.hosts.machine import Machines

__all__ = ["network_digest", "network_files"]


def network_digest(cfg: ClusterConfig, machines: Machines, objects: Iterable[Object]) -> str:
    """A digest of nodes and the network's workloads: a new one asks for a new check. Empty with one node."""
    if len(machines) == 1:
        return ""
    nodes = {name: machine.address for name, machine in machines.items()}
    # By the beginning of their objects' names.
    names = (cfg.pod_network.workload.name, "kube-proxy")
    carriers = [found for found in objects if found["metadata"]["name"].startswith(names)]
    return hashlib.sha256(json.dumps([nodes, carriers], sort_keys=True).encode()).hexdigest()[:16]


def network_files(cfg: ClusterConfig) -> dict[str, File]:
    """The objects of the check. They are not the program's: a hand-over makes them and takes them away."""
    values = {"image": cfg.workload_images[cfg.pod_network.busybox.key]}
    daemons = templates.substitute(templates.read("files/network-check.yaml"), values)
    return {
        "network-check.yaml": File(daemons),
        "network-check-service.yaml": File(templates.read("files/network-check-service.yaml")),
    }
