"""Config of etcd's snapshots: interval, how many are kept, where copies go."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from components.config import durations, sizes
from components.config.base import Section, Whole
from components.config.s3 import S3Config

__all__ = ["BackupConfig"]


def _interval(text: str) -> str:
    return durations.at_least(text, "5m")


def _most(text: str) -> str:
    return sizes.between(text, "1Gi", "10Ti")


Interval = Annotated[str, AfterValidator(_interval)]
Most = Annotated[str, AfterValidator(_most)]


class BackupConfig(Section):
    """Snapshots of etcd, made and kept on every controller, in /var/lib/kubepivot/backups."""

    interval: Interval = Field(
        default="6h",
        description="The time from one snapshot to the next, at least 5m: days, hours, minutes and seconds.",
        examples=["1h30m"],
    )
    keep: Whole = Field(
        default=28,
        ge=1,
        le=1000,
        description="How many snapshots each controller keeps, and as many copies.",
        examples=[56],
    )
    max_size: Most = Field(
        default="10Gi",
        description="How much the snapshots of a controller may take together, 1Gi to 10Ti: the oldest go, "
        "whatever `keep` says, but never the newest. Copies have no such limit.",
        examples=["50Gi"],
    )
    generation: Whole = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Raise it, and run `pulumi up`, to make a snapshot now.",
        examples=[1],
    )
    s3: S3Config | None = None
