"""Renders the network check: pods on every node that ask a Service on another node."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from components.archive import File
from components.assets import templates
from components.assets.manifests import Object
from components.config import ClusterConfig

__all__ = ["network_digest", "network_files"]

# What carries the traffic of pods and Services, by the beginning of its objects' names.
_CARRIERS = ("flannel", "kube-proxy")


def network_digest(cfg: ClusterConfig, objects: Iterable[Object]) -> str:
    """A digest of nodes and the network's workloads: a new one asks for a new check. Empty with one node."""
    if len(cfg.hosts) == 1:
        return ""
    nodes = {name: host.address for name, host in cfg.hosts.items()}
    carriers = [found for found in objects if found["metadata"]["name"].startswith(_CARRIERS)]
    return hashlib.sha256(json.dumps([nodes, carriers], sort_keys=True).encode()).hexdigest()[:16]


def network_files(cfg: ClusterConfig) -> dict[str, File]:
    """The objects of the check. They are not the program's: a hand-over makes them and takes them away."""
    values = {"image": cfg.workload_images["flannel-cni"]}
    daemons = templates.substitute(templates.read("files/network-check.yaml"), values)
    return {
        "network-check.yaml": File(daemons),
        "network-check-service.yaml": File(templates.read("files/network-check-service.yaml")),
    }
