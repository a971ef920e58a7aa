"""The keys and certificates of a cluster, and nothing else."""

from __future__ import annotations

import pulumi

from components.config import ClusterConfig
from components.hosts.machine import configured_machines
from components.pki import Pki

cfg = ClusterConfig.load()
machines = configured_machines(cfg)
Pki(cfg.name, cfg, machines, machines.api_host, pulumi.ResourceOptions())
