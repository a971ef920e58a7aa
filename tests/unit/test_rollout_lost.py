"""What is on nodes that are lost is not waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from components.assets.rollout import late_workloads, without_lost
from tests.unit.rollout_objects import (
    LATE,
    NODES,
    Object,
    cluster,
    node,
    pod,
    told,
    wanted,
)


def on(node: str, name: str, *, generation: str = "", **more: Any) -> Object:
    """A workload's pod on that node."""
    found = pod(name, node=node, **more)
    found["metadata"]["labels"] |= {"pod-template-generation": generation} if generation else {}
    return found


def beside(name: str, counts: str, pods: Sequence[Object], *nodes: Object) -> list[str]:
    """What is late in a cluster with these nodes as well, whose workloads have their second template."""
    seen = cluster({name: counts}, pods=pods, nodes=[*NODES, *nodes])
    for each in seen.workloads:
        each["metadata"]["annotations"] = {"deprecated.daemonset.template.generation": "2"}
    return late_workloads(wanted(), without_lost(wanted(), seen))


FORMER = node("former", "Unknown")


@pytest.mark.parametrize(
    ("name", "counts", "pod"),
    [
        ("flannel", "2|2|3||3|2|2", on("former", "flannel", generation="2")),
        ("flannel", "2|2|3||2|2|2", on("former", "flannel", generation="1")),
        ("flannel", "2|2|3||2|2|2", on("former", "flannel", generation="1", ending=True)),
        ("flannel", "2|2|3||3|3|3", on("former", "flannel", generation="2", ready=True)),
        ("coredns", "2|2|2|2|2|1|1", on("former", "coredns")),
    ],
    ids=["new", "of the template before", "one that can't end", "still Ready", "a Deployment's"],
)
def test_what_is_on_a_node_that_is_lost_is_not_waited_for(name: str, counts: str, pod: Object) -> None:
    assert beside(name, counts, [pod], FORMER) == []


@pytest.mark.parametrize(
    ("name", "counts", "pod", "other"),
    [
        ("flannel", "2|2|3||2|2|2", on("former", "flannel", generation="2"), FORMER),
        ("flannel", "2|2|3||3|1|1", on("former", "flannel", generation="2"), FORMER),
        ("flannel", "2|2|3||3|2|2", on("former", "flannel", generation="2", ready=True), FORMER),
        ("coredns", "2|2|2|2|2|1|1", on("former", "coredns", ending=True), FORMER),
        ("flannel", "2|2|3||3|2|2", on("by-hand", "flannel", generation="2"), node("by-hand")),
        ("flannel", "2|2|2||2|1|1", on("worker-1", "flannel", generation="2"), FORMER),
    ],
    ids=[
        "not all new elsewhere",
        "not all Ready elsewhere",
        "fewer than wanted elsewhere",
        "another one comes",
        "a node that is Ready",
        "a node of the config",
    ],
)
def test_what_is_elsewhere_is_waited_for(name: str, counts: str, pod: Object, other: Object) -> None:
    assert beside(name, counts, [pod], other) == [name]


def test_a_node_that_is_lost_is_no_reason() -> None:
    seen = cluster({"flannel": LATE}, pods=[on("former", "flannel")], nodes=[*NODES, FORMER])
    assert "former" not in str(told(without_lost(wanted(), seen)))
