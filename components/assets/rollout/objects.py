"""What the config asks for, and what the API has: nodes, workloads, pods and events, as JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from components.assets.controlplane import COMPONENTS, bootstrap_name
from components.assets.manifests import WORKLOAD_KINDS, Object, manifests
from components.assets.overrides import overrides
from components.config import ClusterConfig
from components.config.k8s_names import NAME_LABEL
from components.hosts.machine import Machines
from components.tables.components import LEADERS

BOOTSTRAP = tuple(map(bootstrap_name, COMPONENTS))
"""Names, by that label, of the temporary control plane's pods."""


class Lease(NamedTuple):
    """Who leads."""

    holder: str = ""
    renewed: str = ""
    """When that one did so last."""


class Trial(NamedTuple):
    """Of a leader that has been rolled: its lease at the first look at which that one had it, and when."""

    lease: Lease
    since: float


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the config asks for."""

    nodes: Sequence[str]
    workloads: Sequence[str]
    """Names of what has pods, the DaemonSets first."""
    leaders: Sequence[str]
    """Those of them that have to lead once they are rolled out."""
    overrides: Mapping[str, Sequence[str]]
    """The keys of the config that are given, by workload."""
    seconds: int
    """How long a roll may take."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Objects of `kube-system`, and the nodes."""

    nodes: Sequence[Object]
    workloads: Sequence[Object]
    pods: Sequence[Object]
    """At least those of the temporary control plane and of each workload that is late."""
    events: Sequence[Object] = ()
    """Warnings; asked for only to explain."""
    leases: Mapping[str, Lease] = field(default_factory=dict)
    """Of the leaders on trial."""
    copies: Collection[str] = ()
    """Those of them of which a checkpoint runs."""
    on_trial: Mapping[str, Trial | None] = field(default_factory=dict)
    """See `leadership`: as of the look before."""
    at: float = 0
    """Seconds by a clock that only goes forward."""

    @property
    def first(self) -> bool:
        """Whether the temporary control plane still runs beside the real one."""
        return bool(self.pods_of(BOOTSTRAP[0]))

    def pods_of(self, name: str) -> list[Object]:
        """A workload's pods, the newest first."""
        found = [pod for pod in self.pods if pod["metadata"].get("labels", {}).get(NAME_LABEL) == name]
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)


def roll_seconds(cfg: ClusterConfig) -> int:
    """How long a roll of all workloads may take. Controllers' pods roll one after another, kube-proxy and
    flannel a tenth of the nodes at a time.
    """
    return 120 + 60 * len(cfg.controllers) + 15 * min(10, len(cfg.hosts))


def expected(cfg: ClusterConfig, machines: Machines) -> Expected:
    """What the cluster of that config should be."""
    rendered = manifests(cfg, machines, lambda name: name).values()
    objects = [each for each in rendered if each["kind"] in WORKLOAD_KINDS]
    objects.sort(key=lambda each: (each["kind"], each["metadata"]["name"]))
    names = [each["metadata"]["name"] for each in objects]
    return Expected(
        nodes=sorted(cfg.hosts),
        workloads=names,
        leaders=LEADERS,
        overrides={name: overrides(cfg, name) for name in names},
        seconds=roll_seconds(cfg),
    )


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of a workload's pods."""

    wanted: int
    updated: int
    ready: int
    available: int
    existing: int
    """0 for a DaemonSet, which does not count those of the revision before."""


def counts(workload: Object) -> Counts:
    """The counts, whose names differ with the kind of workload."""
    status = workload.get("status", {})
    if workload["kind"] == "DaemonSet":
        return Counts(
            wanted=status.get("desiredNumberScheduled", 0),
            updated=status.get("updatedNumberScheduled", 0),
            ready=status.get("numberReady", 0),
            available=status.get("numberAvailable", 0),
            existing=0,
        )
    return Counts(
        wanted=workload["spec"].get("replicas", 1),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        existing=status.get("replicas", 0),
    )


def is_rolled_out(workload: Object, *, first: bool) -> bool:
    """Whether all of its pods are new and Ready and, but for the first time, have stayed so."""
    pods = counts(workload)
    return (
        workload.get("status", {}).get("observedGeneration", 0) >= workload["metadata"]["generation"]
        and pods.updated >= pods.wanted
        and pods.existing <= pods.updated
        and (pods.ready if first else pods.available) >= pods.wanted
    )


def less(workload: Object, by: Counts) -> Object:
    """The workload with counts that are smaller by these."""
    now = counts(workload)
    wanted, updated = now.wanted - by.wanted, now.updated - by.updated
    ready, available = now.ready - by.ready, now.available - by.available
    if workload["kind"] == "DaemonSet":
        status = {
            "desiredNumberScheduled": wanted,
            "updatedNumberScheduled": updated,
            "numberReady": ready,
            "numberAvailable": available,
        }
        return workload | {"status": workload.get("status", {}) | status}
    status = {
        "replicas": now.existing - by.existing,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": available,
    }
    return workload | {
        "spec": workload["spec"] | {"replicas": wanted},
        "status": workload.get("status", {}) | status,
    }


def container_statuses(pod: Object) -> list[Object]:
    """What is known of a pod's containers, the initial ones first."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def condition(thing: Object, kind: str, field: str = "status") -> str:
    """A field of a node's or a pod's condition, empty if there is none."""
    for each in thing.get("status", {}).get("conditions", []):
        if each["type"] == kind:
            return str(each.get(field, ""))
    return ""
