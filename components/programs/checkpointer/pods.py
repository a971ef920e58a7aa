"""Pods as the API has them: whose they are, and whether they run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

NAMESPACE = "kube-system"
CHECKPOINT_LABEL = "kubepivot.dev/checkpoint-of"
"""Of static pods, with the name of the owner."""

Object = dict[str, Any]


@dataclass(frozen=True, order=True)
class Owner:
    """The object that a pod is made from. Its pods come and go under other names."""

    namespace: str
    kind: str
    name: str

    @classmethod
    def of(cls, pod: Object) -> Owner | None:
        """The pod's owner if that is one of those that are saved."""
        metadata = pod["metadata"]
        for reference in metadata.get("ownerReferences", []):
            if reference.get("controller"):
                kind, name = reference["kind"], reference["name"]
                suffix = f"-{metadata.get('labels', {}).get('pod-template-hash')}"
                if kind == "ReplicaSet" and name.endswith(suffix):
                    kind, name = "Deployment", name.removesuffix(suffix)
                owner = cls(metadata["namespace"], kind, name)
                return owner if owner in SAVED else None
        return None

    @classmethod
    def parse(cls, directory: str) -> Owner | None:
        """The owner that a directory is named after. Only a kind has capitals."""
        found = re.fullmatch(r"([a-z0-9.-]+)-([A-Z][A-Za-z]*)-([a-z0-9.-]+)", directory)
        return cls(*found.groups()) if found else None

    def __str__(self) -> str:
        """Also the name of its directory."""
        return f"{self.namespace}-{self.kind}-{self.name}"

    @property
    def manifest(self) -> str:
        """File name of its static pod."""
        return f"{self.name}-checkpoint.json"


SELF = Owner(NAMESPACE, "DaemonSet", "pod-checkpointer")
APISERVER = Owner(NAMESPACE, "DaemonSet", "kube-apiserver")
CONTROLLER_MANAGER = Owner(NAMESPACE, "Deployment", "kube-controller-manager")
SCHEDULER = Owner(NAMESPACE, "Deployment", "kube-scheduler")
LEADERS = (CONTROLLER_MANAGER, SCHEDULER)
"""Those that have a Lease of the same name, which one of their instances renews."""
SAVED = frozenset({SELF, APISERVER, *LEADERS})
"""What becomes static pods, and nothing else, whatever a pod says of itself."""


def is_ready(pod: Object, booted: float) -> bool:
    """Whether the pod is Ready, not about to end, and its containers have run in this boot of the host.

    After a reboot the API still has the status from before. It names containers that are gone.
    """
    status = pod.get("status", {})
    conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
    if "deletionTimestamp" in pod["metadata"] or conditions.get("Ready") != "True":
        return False
    starts = [
        container.get("state", {}).get("running", {}).get("startedAt")
        for container in status.get("containerStatuses", [])
    ]
    # Kubernetes writes whole seconds.
    return bool(starts) and all(
        start and datetime.fromisoformat(start).timestamp() >= int(booted) for start in starts
    )


def instance(pod: Object) -> tuple[object, ...]:
    """What changes when a pod is another one, or a container of it starts anew."""
    containers = pod.get("status", {}).get("containerStatuses", [])
    return (pod["metadata"]["uid"], *sorted(str(each.get("containerID")) for each in containers))


def newest(pods: Sequence[Object]) -> Object | None:
    """The pod that was made last."""
    return max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
