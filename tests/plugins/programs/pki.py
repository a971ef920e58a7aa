"""The keys and certificates of a cluster, and nothing else."""

from __future__ import annotations

import pulumi

from components.config import ClusterConfig
from components.machine import Machine
from components.pki import Pki

cfg = ClusterConfig.load()
machines = {
    name: Machine(name=name, role=host.role, address=host.address) for name, host in cfg.hosts.items()
}
Pki(cfg.name, cfg, machines, pulumi.ResourceOptions())
