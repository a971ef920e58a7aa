"""Renders what makes a snapshot of etcd before an upgrade."""

from __future__ import annotations

import re

from components.archive import File
from components.assets.document import env_file
from components.assets.templates import script
from components.config import ClusterConfig

__all__ = ["about", "former_version", "snapshot_files"]


def about(cfg: ClusterConfig) -> str:
    """What the step's command begins with, and by which the next one knows the version before it."""
    return f"before Kubernetes {cfg.release.kubernetes}, etcd {cfg.release.etcd}"


def former_version(command: str) -> str:
    """The Kubernetes version of such a command."""
    found = re.match("# before Kubernetes ([0-9.]+),", command)
    assert found is not None, command
    return found[1]


def snapshot_files(cfg: ClusterConfig, name: str) -> dict[str, File]:
    """What `snapshot.sh` finds beside it."""
    return {
        "env": env_file(NAME=name, KUBERNETES=cfg.release.kubernetes, ETCD=cfg.release.etcd),
        "lib.sh": File(script("lib")),
    }
