"""Brings up the cluster that the stack's config describes, or writes its assets."""

from __future__ import annotations

import pulumi

from components.cluster import Cluster
from components.config import ClusterConfig
from components.rendering import write_assets

cfg = ClusterConfig.load()
for warning in cfg.warnings:
    pulumi.log.warn(warning)

if cfg.mode == "render":
    write_assets(cfg)
else:
    cluster = Cluster(cfg)
    pulumi.export("api_endpoint", cluster.api_endpoint)
    pulumi.export("kubeconfig", cluster.kubeconfig)
    pulumi.export("ca_certificate", cluster.ca_certificate)
    pulumi.export("kubernetes_version", cluster.kubernetes_version)
    pulumi.export("nodes", cluster.nodes)
    pulumi.export("backups", cluster.backups)
