"""Renders what takes a worker out of the cluster."""

from __future__ import annotations

from collections.abc import Mapping

from components.archive import File
from components.assets.credentials import client_kubeconfig
from components.assets.document import env_file
from components.assets.templates import script
from components.config import ClusterConfig
from components.programs.reuseport import INCUMBENT

__all__ = ["removal_files", "removal_seconds"]


def removal_seconds(cfg: ClusterConfig) -> int:
    """How long a removal may take: longer than the deadlines in its script."""
    return cfg.upgrade.drain.seconds + 180


def removal_files(cfg: ClusterConfig, worker: str, texts: Mapping[str, str]) -> dict[str, File]:
    """What `remove.sh` finds beside it, on a controller."""
    drain = cfg.upgrade.drain
    flags = {"--delete-emptydir-data": drain.delete_empty_dir, "--force": drain.force}
    return {
        "env": env_file(
            DRAIN_FLAGS=" ".join(flag for flag, given in flags.items() if given),
            DRAIN_SECONDS=str(drain.seconds),
            WORKER=worker,
        ),
        "kubeconfig": File(client_kubeconfig(cfg, INCUMBENT, texts, "super-admin"), mode=0o600),
        "lib.sh": File(script("lib")),
    }
