"""Lists which config keys have changed a workload, so that a failed rollout can name the key to put back."""

from __future__ import annotations

from components.config import ClusterConfig
from components.config.errors import PROJECT
from components.tables.components import WORKLOADS

__all__ = ["overrides"]


def overrides(cfg: ClusterConfig, workload: str) -> list[str]:
    """The keys of the config that are given and that its pods depend on."""
    (row,) = (each for each in (*WORKLOADS, cfg.pod_network.workload) if each.name == workload)
    flags = cfg.flags.model_dump(by_alias=True)
    images = cfg.images.model_dump(by_alias=True, exclude_none=True)
    given = [f"{PROJECT}:flags.{workload}"] if flags.get(workload) else []
    return given + [
        f"{PROJECT}:images.{image.key}" for image in (*row.images, *row.borrowed) if image.key in images
    ]
