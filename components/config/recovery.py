"""Recovery: when, on which controller, and from which snapshot."""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from components.config.base import DERIVED, Section, Whole
from components.config.etcd import DATA
from components.config.host import HostName

__all__ = ["RecoveryConfig"]


def _snapshot(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("use the absolute path of a snapshot on that controller")
    if PurePosixPath(posixpath.normpath("/" + text.lstrip("/"))).is_relative_to(DATA):
        raise ValueError(f"what is in {DATA} is etcd's own and no snapshot; use one, or leave it out")
    return text


Snapshot = Annotated[str, AfterValidator(_snapshot)]


class RecoveryConfig(Section):
    """How a control plane that nothing can start any more is brought back."""

    generation: Whole = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Raise it, and run `pulumi up`, to bring the control plane back. What is not older than "
        "this is done already.",
        examples=[1],
    )
    controller: HostName | None = Field(
        default=None,
        description="The controller on which the temporary control plane runs meanwhile.",
        examples=["controller-1"],
        json_schema_extra={DERIVED: "the first controller by name"},
    )
    snapshot: Snapshot | None = Field(
        default=None,
        description="A snapshot of etcd on that controller, which becomes the cluster's data. Left out: the "
        "data that etcd has. Only with one controller.",
        examples=["/var/lib/kubepivot/backups/prod-20260102T030405Z-123456.db"],
    )
