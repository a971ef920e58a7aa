"""Renders what swaps a host's containerd and kubelet."""

from __future__ import annotations

from components.archive import File
from components.assets.document import env_file
from components.assets.templates import script
from components.config import ClusterConfig

__all__ = ["FIRST", "UPGRADE_SECONDS", "kubelet_version", "last_change", "upgrade_files"]

UPGRADE_SECONDS = 600

FIRST = "none"
"""The last change of a host that has had no other than its first."""


def kubelet_version(cfg: ClusterConfig) -> str:
    """As a Node's status has it."""
    return f"v{cfg.release.kubernetes}"


def last_change(said: str, *, of: str = "change") -> str:
    """The name of a host's last change, waiting or swapped in, from what its `node` step said."""
    found = (line.removeprefix(f"{of}=") for line in said.splitlines() if line.startswith(f"{of}="))
    return next(found, FIRST)


def upgrade_files(cfg: ClusterConfig) -> dict[str, File]:
    """What `upgrade.sh` finds beside it."""
    return {
        "env": env_file(KUBELET_VERSION=kubelet_version(cfg)),
        "lib.sh": File(script("lib")),
        "stage": File(script("stage")),
    }
