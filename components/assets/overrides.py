"""Lists which config keys have changed a workload, so that a failed rollout can name the key to put back."""

from __future__ import annotations

from components.config import ClusterConfig
from components.config.errors import PROJECT

__all__ = ["overrides"]

# Workloads whose pods have other images than that of their name.
_IMAGES = {
    "flannel": ("flannel", "flannel-cni"),
    "kube-apiserver": ("kube-apiserver", "pod-checkpointer"),
}


def overrides(cfg: ClusterConfig, workload: str) -> list[str]:
    """The keys of the config that are given and that its pods depend on."""
    flags = cfg.flags.model_dump(by_alias=True)
    images = cfg.images.model_dump(by_alias=True, exclude_none=True)
    given = [f"{PROJECT}:flags.{workload}"] if flags.get(workload) else []
    return given + [
        f"{PROJECT}:images.{name}" for name in _IMAGES.get(workload, (workload,)) if name in images
    ]
