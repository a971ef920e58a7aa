"""A made-up cluster, as the API has it, for the tests of the rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.assets.rollout import Expected, Observed, expected, explain
from components.config import parse
from components.hosts.machine import configured_machines
from tests.cases import load

DAEMON_SETS = tuple(
    sorted([load("lab").cfg.pod_network.workload.name, "kube-apiserver", "kube-proxy", "pod-checkpointer"])
)
DEPLOYMENTS = ("coredns", "kube-controller-manager", "kube-scheduler")
WORKLOADS = (*DAEMON_SETS, *DEPLOYMENTS)
STAY_READY = ("kube-apiserver", "pod-checkpointer", "kube-controller-manager", "kube-scheduler")
SETTLED = "2|2|2|2|2|2|2"
"""Generation, the observed one, wanted, existing, new, Ready and available pods."""
NOON, LATER = "2026-11-21T12:00:00Z", "2026-11-21T12:00:05Z"

Object = dict[str, Any]


def workload(name: str, counts: str = SETTLED) -> Object:
    """A workload with those counts; what is empty the API leaves out."""
    generation, observed, wanted, *pods = (int(each) if each else None for each in counts.split("|"))
    daemons = name in DAEMON_SETS
    names = ("", "updatedNumberScheduled", "numberReady", "numberAvailable")
    if not daemons:
        names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    status = {"observedGeneration": observed, **dict(zip(names, pods, strict=True))}
    spec: Object = {"minReadySeconds": 10} if name in STAY_READY else {}
    if daemons:
        status["desiredNumberScheduled"] = wanted
    else:
        spec["replicas"] = wanted
    return {
        "kind": "DaemonSet" if daemons else "Deployment",
        "metadata": {"name": name, "generation": generation},
        "spec": spec,
        "status": {key: value for key, value in status.items() if key and value is not None},
    }


def container(name: str, *, ready: bool = False, reason: str = "", message: str = "") -> Object:
    state = {"waiting": {"reason": reason, "message": message}} if reason else {"running": {}}
    return {"name": name, "ready": ready, "restartCount": 4, "state": state}


def pod(
    workload: str,
    suffix: str = "new",
    *,
    ready: bool = False,
    containers: Sequence[Object] = (),
    initial: Sequence[Object] = (),
    created: str = NOON,
    node: str = "worker-1",
    ending: bool = False,
    **status: Any,
) -> Object:
    name = f"{workload}-{suffix}"
    labels = {"app.kubernetes.io/name": workload}
    conditions = [{"type": "Ready", "status": str(ready)}, *status.pop("conditions", [])]
    ends = {"deletionTimestamp": LATER} if ending else {}
    return {
        "metadata": {"name": name, "creationTimestamp": created, "labels": labels, **ends},
        "spec": {"nodeName": node},
        "status": {
            "phase": "Pending",
            "conditions": conditions,
            "initContainerStatuses": list(initial),
            "containerStatuses": list(containers),
            **status,
        },
    }


def event(kind: str, name: str, message: str, *, reason: str = "Failed", **fields: Any) -> Object:
    times = fields or {"lastTimestamp": LATER}
    about = {"kind": kind, "name": name}
    return {"metadata": {}, "involvedObject": about, "reason": reason, "message": message, **times}


def node(name: str, ready: str = "True", message: str = "") -> Object:
    conditions = [{"type": "Ready", "status": ready, "message": message}]
    return {"metadata": {"name": name}, "status": {"conditions": conditions}}


NODES = (node("controller-1"), node("worker-1"))


def cluster(
    counts: Mapping[str, str] | None = None,
    *,
    pods: Sequence[Object] = (),
    events: Sequence[Object] = (),
    nodes: Sequence[Object] = NODES,
    first: bool = False,
) -> Observed:
    """A cluster as it should be but for that."""
    temporary = [pod("bootstrap-apiserver", "controller-1", ready=True)] if first else []
    workloads = [workload(name, (counts or {}).get(name, SETTLED)) for name in WORKLOADS]
    return Observed(nodes=nodes, workloads=workloads, pods=[*temporary, *pods], events=events)


def wanted(**config: Any) -> Expected:
    cfg = parse(load("lab").raw | config, stack="lab")
    return expected(cfg, configured_machines(cfg))


LATE = "3|3|2|2|1|2|2"
"""A new pod does not become Ready, and the old ones stay."""


def failing(*names: str, reason: str = "CrashLoopBackOff", message: str = "", **rest: Any) -> Observed:
    pods = [
        each
        for name in names
        for each in (
            pod(name, "old", ready=True, containers=[container(name, ready=True)]),
            pod(name, containers=[container(name, reason=reason, message=message)], created=LATER),
        )
    ]
    return cluster(dict.fromkeys(names, LATE), pods=pods, **rest)


def told(seen: Observed, logs: Mapping[tuple[str, str], str] | None = None, **config: Any) -> list[str]:
    return explain(wanted(**config), seen, logs or {})
