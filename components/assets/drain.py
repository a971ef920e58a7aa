"""What a drain does with a node and with each of its pods, from the API's objects. Plain functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from components.assets.manifests import Object
from components.assets.rollout.objects import condition
from components.config.k8s_names import NAME_LABEL
from components.config.upgrade import DrainConfig
from components.tables.components import CHECKPOINTED

__all__ = [
    "CORDONED",
    "Answer",
    "Outcome",
    "Plan",
    "answered",
    "cordon_patch",
    "eviction",
    "names",
    "not_serving",
    "plan",
    "still_there",
    "takes_over",
    "tolerates_cordon",
    "uncordon_patch",
]

CORDONED = "kubepivot.dev/cordoned"
"""On a node that the program has cordoned: so it knows an admin's cordon, which it leaves alone."""
REASON = "upgrade"

MOST_NAMES = 10


# -- the node ------------------------------------------------------------------------------------------------


def cordon_patch(node: Object) -> Object | None:
    """A merge patch that cordons the node; None if it is cordoned, by the program or by an admin."""
    return None if _is_cordoned(node) else _patch(node, REASON, True)


def uncordon_patch(node: Object) -> Object | None:
    """A merge patch that takes back the program's own cordon; None if there is none.

    The annotation goes even when an admin has uncordoned the node: a later cordon would seem the program's.
    """
    return _patch(node, None, None) if _is_annotated(node) else None


def takes_over(node: Object, nodes: Sequence[Object]) -> bool:
    """Whether another node can take the pods: it is Ready, not cordoned, and no taint keeps them away.

    Taints that this node has as well keep nothing away that runs here. Without such a node a drain would only
    take pods away.
    """
    tolerated = _hard_taints(node)
    return any(
        other["metadata"]["name"] != node["metadata"]["name"]
        and condition(other, "Ready") == "True"
        and not _is_cordoned(other)
        and _hard_taints(other) <= tolerated
        for other in nodes
    )


def not_serving(node: str, nodes: Sequence[Object]) -> list[str]:
    """Lines about nodes that are not Ready: on this one no pod ends, and budgets wait for those that moved to
    the others.
    """
    down = [each["metadata"]["name"] for each in nodes if condition(each, "Ready") != "True"]
    others = ", ".join([name for name in down if name != node][:MOST_NAMES])
    lines = []
    if node in down:
        lines.append(f"{node} itself is not Ready: its pods end when it is back, or when its Node is deleted")
    if others:
        lines.append(f"what moved to these nodes does not serve, for they are not Ready: {others}")
    return lines


def _is_cordoned(node: Object) -> bool:
    return bool(node["spec"].get("unschedulable"))


def _is_annotated(node: Object) -> bool:
    return CORDONED in node["metadata"].get("annotations", {})


def _patch(node: Object, reason: str | None, unschedulable: bool | None) -> Object:
    """Only if the node is still what was looked at: an admin may cordon it at the same moment."""
    return {
        "metadata": {
            "resourceVersion": node["metadata"]["resourceVersion"],
            "annotations": {CORDONED: reason},
        },
        "spec": {"unschedulable": unschedulable},
    }


def _hard_taints(node: Object) -> set[tuple[str, str, str]]:
    return {
        (each["key"], each.get("value", ""), each["effect"])
        for each in node["spec"].get("taints", [])
        if each["effect"] != "PreferNoSchedule"
    }


# -- its pods ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done with a node's pods. Those that stay are not in it."""

    evict: Sequence[Object] = ()
    ending: Sequence[Object] = ()
    """Already told to end: to be waited for."""
    refused: Sequence[str] = ()
    """Why the node may not be drained, and what to do."""

    @property
    def left(self) -> list[Object]:
        """The pods that have to go before the node is drained."""
        return [*self.evict, *self.ending]


def plan(pods: Sequence[Object], rules: DrainConfig) -> Plan:
    """What to do with each of these pods, which are all of one node."""
    going = [pod for pod in pods if not _stays(pod)]
    # One that is ending has lost what it has, so it refuses nothing any more.
    evict = [pod for pod in going if not _is_ending(pod)]
    return Plan(
        evict=evict,
        ending=[pod for pod in going if _is_ending(pod)],
        refused=list(_refusals(evict, rules)),
    )


def tolerates_cordon(pod: Object) -> bool:
    """Whether the scheduler puts such a pod on a cordoned node, so that an evicted one may come back."""
    return any(
        each.get("key", "") in ("", "node.kubernetes.io/unschedulable")
        and each.get("effect", "") in ("", "NoSchedule")
        and (each.get("operator") == "Exists" or (each.get("key") and not each.get("value")))
        for each in pod["spec"].get("tolerations", [])
    )


def _stays(pod: Object) -> bool:
    meta = pod["metadata"]
    if "kubernetes.io/config.mirror" in meta.get("annotations", {}):
        return True  # a static pod: only its file ends it
    if _controller(pod).get("kind") == "DaemonSet":
        return True  # its controller places it on cordoned nodes too
    if meta["namespace"] == "kube-system" and meta.get("labels", {}).get(NAME_LABEL) in CHECKPOINTED:
        return True  # they tolerate a cordon and would come straight back
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed") and not _is_ending(pod)


def _controller(pod: Object) -> Object:
    owners: list[Object] = pod["metadata"].get("ownerReferences", [])
    return next((each for each in owners if each.get("controller")), {})


def _is_ending(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _refusals(pods: Sequence[Object], rules: DrainConfig) -> Iterator[str]:
    """Why pods are not evicted: what `kubectl drain` asks two options for, for the same reasons."""
    local = [pod for pod in pods if any("emptyDir" in each for each in pod["spec"].get("volumes", []))]
    if local and not rules.delete_empty_dir:
        yield (
            f"{names(local)}: the data of emptyDir volumes would be lost; if it may be, set "
            "kubepivot:upgrade.drain.deleteEmptyDir to true"
        )
    lone = [pod for pod in pods if not _controller(pod)]
    if lone and not rules.force:
        yield (
            f"{names(lone)}: no controller would make them anew; delete them, or set "
            "kubepivot:upgrade.drain.force to true if they may go for good"
        )


# -- an eviction ---------------------------------------------------------------------------------------------


class Outcome(Enum):
    """What an answer to an eviction means."""

    DONE = "done"
    """The pod is told to end, or is gone."""
    RETRY = "retry"
    BLOCKED = "blocked"
    """By a disruption budget, which may let the pod go later."""
    FAILED = "failed"
    """Asking again changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an answer means, and the server's reason."""

    outcome: Outcome
    reason: str = ""


def eviction(pod: Object) -> Object:
    """What to send. It is for this pod alone: a StatefulSet's next one has the same name."""
    meta = pod["metadata"]
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
        "deleteOptions": {"preconditions": {"uid": meta["uid"]}},
    }


def answered(namespace: str, status: int, body: Object) -> Answer:
    """What the API's answer to an eviction in that namespace means. `body` is empty if it was no JSON."""
    message = body.get("message") or f"HTTP {status}"
    causes = {
        each.get("reason"): each.get("message", "") for each in body.get("details", {}).get("causes", [])
    }
    if 200 <= status < 300 or status == 404:
        return Answer(outcome=Outcome.DONE, reason="told to end a moment ago")
    if status == 429 and "DisruptionBudget" in causes:
        return Answer(outcome=Outcome.BLOCKED, reason=_budget(namespace, causes["DisruptionBudget"]))
    if status >= 500 and "more than one PodDisruptionBudget" in message:
        return Answer(outcome=Outcome.FAILED, reason=f"{message} Leave it one.")
    # 409: the name is another pod's by now, and the next look at the pods tells. A namespace that is being
    # deleted forbids evictions, and deletes its pods itself.
    if status in (409, 429) or status >= 500 or (status == 403 and "NamespaceTerminating" in causes):
        return Answer(outcome=Outcome.RETRY, reason=message)
    return Answer(outcome=Outcome.FAILED, reason=message)


def _budget(namespace: str, message: str) -> str:
    full = re.sub(r"^The disruption budget (\S+)", rf"disruption budget {namespace}/\1", message)
    return f"{full}; run more such pods, or change the budget" if " needs " in full else full


# -- for a user to read --------------------------------------------------------------------------------------


def _pod_name(pod: Object) -> str:
    """Namespace and name."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def names(pods: Sequence[Object]) -> str:
    """The pods' names, in one bounded line."""
    found = sorted(map(_pod_name, pods))
    more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
    return f"{'pod' if len(found) == 1 else 'pods'} {', '.join(found[:MOST_NAMES])}{more}"


def still_there(pod: Object) -> str:
    """Why a pod that was told to end may still be there."""
    meta = pod["metadata"]
    held = f", and finalizers hold it: {', '.join(meta['finalizers'])}" if meta.get("finalizers") else ""
    return f"{names([pod])}: told to end by {meta['deletionTimestamp']}, and still there{held}"
