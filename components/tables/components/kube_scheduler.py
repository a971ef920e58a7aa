"""kube-scheduler: its flags, files, image and port."""

from __future__ import annotations

from components.tables.components.images import kubernetes_image
from components.tables.components.row import Component, Flag
from components.tables.components.shared_flags import LEADER_FLAGS

__all__ = ["KUBE_SCHEDULER"]

KUBE_SCHEDULER = Component(
    name="kube-scheduler",
    images=(kubernetes_image("kube-scheduler"),),
    port=10259,
    cpu="10m",
    memory="32Mi",
    priority="system-cluster-critical",
    grace_seconds=30,
    flag_example={"kube-api-qps": "100"},
    flags=(
        *LEADER_FLAGS,
        Flag("config", reserved="a file of settings would take the place of the flags"),
    ),
    secrets={"kubeconfig": "scheduler.kubeconfig"},
)
