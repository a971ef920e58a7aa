"""Config of etcd."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from components.config import sizes
from components.config.base import Section

__all__ = ["DATA", "DEFAULT_QUOTA", "EtcdConfig"]

DATA = "/var/lib/etcd"
"""Its directory on a controller."""
DEFAULT_QUOTA = "2Gi"
"""etcd's own."""


def _quota(text: str) -> str:
    # Beyond the latter etcd itself warns: a start, a defragmentation, a snapshot take too long.
    return sizes.between(text, "64Mi", "8Gi")


Quota = Annotated[str, AfterValidator(_quota)]


class EtcdConfig(Section):
    """The store of the cluster's objects, on every controller in /var/lib/etcd."""

    quota: Quota = Field(
        default=DEFAULT_QUOTA,
        description="How large its database may become, 64Mi to 8Gi; then nothing can be written until "
        "somebody makes space. The preflight wants a disk that has it.",
        examples=["4Gi"],
    )
