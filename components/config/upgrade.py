"""Config of upgrades: how many hosts at once, and how a node is drained before its kubelet is changed."""

from __future__ import annotations

from pydantic import Field

from components.config.base import Section, Truth, Whole

__all__ = ["DrainConfig", "UpgradeConfig"]


class DrainConfig(Section):
    """How the pods of a node are evicted before its kubelet is changed, or when a worker leaves."""

    seconds: Whole = Field(
        default=300,
        ge=1,
        le=86_400,
        description="How long a node's pods may take to be let go by their disruption budgets and to end. "
        "Then the node gets pods again, and the upgrade fails.",
        examples=[900],
    )
    delete_empty_dir: Truth = Field(
        default=False,
        description="Whether pods with volumes of type emptyDir are evicted too, whose data is then lost. "
        "Without it such a pod stops the upgrade.",
        examples=[True],
    )
    force: Truth = Field(
        default=False,
        description="Whether pods that no controller makes anew are evicted too: they are gone for good. "
        "Without it such a pod stops the upgrade.",
        examples=[True],
    )


class UpgradeConfig(Section):
    """How hosts are upgraded."""

    max_unavailable: Whole = Field(
        default=1,
        ge=1,
        le=1000,
        description="How many hosts are upgraded at once.",
        examples=[3],
    )
    drain: DrainConfig = DrainConfig()
