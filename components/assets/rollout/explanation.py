"""Why it is not rolled out, for a user to read: in a bounded number of bounded lines. Plain functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from components.assets.manifests import Object
from components.assets.rollout.objects import (
    BOOTSTRAP,
    Expected,
    Lease,
    Observed,
    condition,
    container_statuses,
    counts,
)
from components.assets.rollout.verdict import late_nodes, late_workloads

LOG_LINES = 8
PODS_EACH, MOST_NODES = 2, 10
LINE, QUOTE = 400, 300

Logs = Mapping[tuple[str, str], str]
"""The last lines of containers, by the names of pod and container."""


def explain(expected: Expected, observed: Observed, logs: Logs) -> list[str]:
    """Why it is not rolled out, in a bounded number of bounded lines."""
    lines = list(_explain_nodes(expected, observed))
    there = {each["metadata"]["name"]: counts(each) for each in observed.workloads}
    for name in late_workloads(expected, observed):
        if name in there:
            lines.append(
                f"--- {name} is not rolled out; {there[name].ready} of {there[name].wanted} pods serve"
            )
        else:
            lines.append(f"--- {name} is not rolled out; somebody has deleted it")
        lines += _explain_pods(observed, name, logs)
        lines += _explain_lease(observed, name)
        if keys := expected.overrides.get(name):
            lines.append(f"  If you changed it, put back {' or '.join(keys)}.")
    if observed.first:
        for name in BOOTSTRAP:
            lines += _explain_pods(observed, name, logs)
        lines.append("The temporary control plane stays. When the cause is gone, run 'pulumi up' again.")
    else:
        lines.append("What is Ready goes on serving. When the cause is gone, run 'pulumi up' again.")
    return lines


def quoted(expected: Expected, observed: Observed) -> list[tuple[str, str]]:
    """Names of pod and container whose last lines the explanation quotes."""
    return [
        (pod["metadata"]["name"], status["name"])
        for name in [*late_workloads(expected, observed), *BOOTSTRAP]
        for pod in _stuck(observed, name)
        for status in _stuck_containers(pod)
    ]


def unexplained(expected: Expected, observed: Observed) -> list[str]:
    """Late workloads of which nothing is known yet: a pod that crashes may be Ready for a moment."""
    return [
        name
        for name in late_workloads(expected, observed)
        if not _stuck(observed, name) and not _forbidden(observed, name)
    ]


def _explain_nodes(expected: Expected, observed: Observed) -> Iterator[str]:
    there = {node["metadata"]["name"]: node for node in observed.nodes}
    late = late_nodes(expected, observed)
    for name in late[:MOST_NODES]:
        if name in there:
            yield _cut(f"node {name} is not Ready: {condition(there[name], 'Ready', 'message')}", LINE)
        else:
            yield f"node {name} is not registered: look at 'journalctl -u kubelet' there"
    if len(late) > MOST_NODES:
        yield f"and {len(late) - MOST_NODES} more nodes"


def _explain_pods(observed: Observed, name: str, logs: Logs) -> Iterator[str]:
    for pod in _stuck(observed, name):
        meta, containers = pod["metadata"], list(_stuck_containers(pod))
        for status in containers:
            reason, message = _state(status)
            about = f"pod {meta['name']}, container {status['name']}: {reason or 'not Ready'}"
            yield _cut(f"  {about}, restarted {status['restartCount']} times. {message}", LINE)
            yield from _quote(logs.get((meta["name"], status["name"]), "").splitlines()[-LOG_LINES:])
        if not containers:
            phase, message = pod["status"].get("phase", ""), condition(pod, "PodScheduled", "message")
            yield _cut(f"  pod {meta['name']}: {phase}. {message}", LINE)
        said = [event for event in observed.events if _is_about(event, "Pod", meta["name"])]
        last = max(said, key=_time, default={}).get("message", "")
        if "backoff" not in last.lower().replace("-", ""):
            yield from _quote([last])
    yield from _quote([_forbidden(observed, name)])


def _explain_lease(observed: Observed, name: str) -> Iterator[str]:
    trial, (holder, renewed) = observed.on_trial.get(name), observed.leases.get(name, Lease())
    if trial and not _stuck(observed, name):
        by = f"{holder} has had its lease for a moment only" if holder else "nobody has its lease"
        if holder and renewed == trial.lease.renewed:
            by = f"{holder} has not renewed its lease since {renewed}"
        yield _cut(f"  none of its pods leads: {by}", LINE)


def _stuck(observed: Observed, name: str) -> list[Object]:
    """The newest of its pods that are not Ready."""
    return [pod for pod in observed.pods_of(name) if condition(pod, "Ready") != "True"][:PODS_EACH]


def _stuck_containers(pod: Object) -> Iterator[Object]:
    for status in container_statuses(pod):
        if not status["ready"] and _state(status)[0] != "PodInitializing":
            yield status


def _forbidden(observed: Observed, name: str) -> str:
    """Why no other pod of it is made: a quota, a webhook or a policy says so to the pods' owner.

    What is older than the newest pod forbids nothing any more.
    """
    pods = observed.pods_of(name)
    since = _parsed(pods[0]["metadata"]["creationTimestamp"]) if pods else datetime.min.replace(tzinfo=UTC)
    said = [
        event
        for event in observed.events
        if event.get("reason") == "FailedCreate" and _is_about_owner(event, name) and _time(event) >= since
    ]
    return str(max(said, key=_time, default={}).get("message", ""))


def _is_about_owner(event: Object, name: str) -> bool:
    if any(_is_about(event, kind, name) for kind in ("DaemonSet", "Job")):
        return True
    # A Deployment's pods are owned by a ReplicaSet, whose name has a digest at its end.
    owner = event["involvedObject"].get("name", "").rpartition("-")[0]
    return bool(event["involvedObject"].get("kind") == "ReplicaSet" and owner == name)


def _is_about(event: Object, kind: str, name: str) -> bool:
    about = event["involvedObject"]
    return bool(about.get("kind") == kind and about.get("name") == name)


def _state(status: Object) -> tuple[str, str]:
    """Why a container does not run, and what is said of it."""
    state = status.get("state", {})
    stopped = state.get("waiting") or state.get("terminated") or {}
    return stopped.get("reason", ""), stopped.get("message", "")


def _time(event: Object) -> datetime:
    """When it was last seen. Components that use the newer API fill in other fields."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return _parsed(next(filter(None, times), event["metadata"].get("creationTimestamp")))


def _parsed(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp)


def _quote(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if line:
            yield f"    | {_cut(line, QUOTE)}"


def _cut(text: str, width: int) -> str:
    # A message may have lines of its own.
    return text[: len(text) - len(text.lstrip())] + " ".join(text.split())[:width]
