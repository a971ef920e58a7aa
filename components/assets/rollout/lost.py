"""Nodes that are lost: what is on them will never serve, and is not waited for. Plain functions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from components.assets.manifests import Object
from components.assets.rollout.objects import Counts, Expected, Observed, condition, less

__all__ = ["without_lost"]


def without_lost(expected: Expected, observed: Observed) -> Observed:
    """The cluster as if it did not have the nodes that have left the config and are not Ready.

    Those are workers that died before they were taken out, whose Nodes the removal deletes at the end, and
    nodes that somebody has joined by hand. Their pods that are known are not counted either.
    """
    lost = {
        node["metadata"]["name"]
        for node in observed.nodes
        if node["metadata"]["name"] not in expected.nodes and condition(node, "Ready") != "True"
    }
    if not lost:
        return observed
    return replace(
        observed,
        nodes=[node for node in observed.nodes if node["metadata"]["name"] not in lost],
        workloads=[_without(each, _pods_on(lost, each, observed)) for each in observed.workloads],
        pods=[pod for pod in observed.pods if pod["spec"].get("nodeName") not in lost],
    )


def _pods_on(nodes: Collection[str], workload: Object, observed: Observed) -> list[Object]:
    """The workload's pods there, as far as its counts have them in them."""
    pods = [
        pod for pod in observed.pods_of(workload["metadata"]["name"]) if pod["spec"].get("nodeName") in nodes
    ]
    if workload["kind"] == "DaemonSet":
        # It counts nodes, also one whose pod is to end and can't.
        return list({pod["spec"]["nodeName"]: pod for pod in pods}.values())
    # In place of one that is to end there is another already.
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def _without(workload: Object, pods: Collection[Object]) -> Object:
    """The workload as if it did not have these pods."""
    ready = sum(condition(pod, "Ready") == "True" for pod in pods)
    updated = sum(_is_updated(workload, pod) for pod in pods)
    number = len(pods)
    return less(
        workload, Counts(wanted=number, existing=number, updated=updated, ready=ready, available=ready)
    )


def _is_updated(workload: Object, pod: Object) -> bool:
    """Whether the pod is of the newest template: only of a DaemonSet's it is known."""
    newest = workload["metadata"].get("annotations", {}).get("deprecated.daemonset.template.generation")
    return bool(pod["metadata"]["labels"].get("pod-template-generation", newest) == newest)
