"""Whether everything is what it should be, by nodes, workloads and pods alone. Plain functions."""

from __future__ import annotations

from enum import Enum

from components.assets.rollout.leadership import on_trial
from components.assets.rollout.objects import (
    Expected,
    Observed,
    condition,
    container_statuses,
    is_rolled_out,
)

PATIENCE_SECONDS = 60
FIRST_SECONDS = 120
"""So much longer takes the first roll: the images of everything have to come."""


class Verdict(Enum):
    """What to do about a roll."""

    DONE = "done"
    WAIT = "wait"
    FAILED = "failed"


def verdict(expected: Expected, observed: Observed | None, waited: float) -> Verdict:
    """What to do after so many seconds. Without an answer of the API nothing is known.

    A later roll is given up early when whatever is not done yet backs off: it has had its time.
    """
    if observed and not late_nodes(expected, observed):
        late = late_workloads(expected, observed)
        if not late:
            return Verdict.DONE
        patient = observed.first or waited < PATIENCE_SECONDS
        if not patient and all(_backs_off(observed, name) for name in late):
            return Verdict.FAILED
    longer = FIRST_SECONDS if observed is None or observed.first else 0
    return Verdict.FAILED if waited >= expected.seconds + longer else Verdict.WAIT


def late_nodes(expected: Expected, observed: Observed) -> list[str]:
    """Nodes that are not Ready, or not there."""
    ready = {node["metadata"]["name"] for node in observed.nodes if condition(node, "Ready") == "True"}
    return [name for name in expected.nodes if name not in ready]


def late_workloads(expected: Expected, observed: Observed) -> list[str]:
    """Workloads that are not rolled out.

    The first time Ready is enough: what is there beside them is the temporary control plane, and it waits for
    more. Later a pod has to stay Ready to count as available, and a leader has to lead.
    """
    there = {each["metadata"]["name"]: each for each in observed.workloads}
    trial = on_trial(expected, observed)
    return [
        name
        for name in expected.workloads
        if name not in there or name in trial or not is_rolled_out(there[name], first=observed.first)
    ]


def _backs_off(observed: Observed, name: str) -> bool:
    """One of its containers crashes again and again, or its image cannot be had."""
    return any(
        "BackOff" in status.get("state", {}).get("waiting", {}).get("reason", "")
        for pod in observed.pods_of(name)
        for status in container_statuses(pod)
    )


def to_nudge(expected: Expected, observed: Observed) -> list[str]:
    """Names of pods at which their controller should look again.

    The DaemonSet controller looks at a new pod again after minReadySeconds, but forgets to if it was already
    going to look at an earlier pod before then. Any change of a pod makes it look.
    """
    late = late_workloads(expected, observed)
    waits = [each["metadata"]["name"] for each in observed.workloads if each["spec"].get("minReadySeconds")]
    return [pod["metadata"]["name"] for name in late if name in waits for pod in observed.pods_of(name)]


def progress(expected: Expected, observed: Observed) -> str:
    """What is waited for, in one line."""
    nodes = [f"node {name}" for name in late_nodes(expected, observed)]
    return f"waiting for {', '.join([*nodes, *late_workloads(expected, observed)])}"[:200]
