"""Is a cluster rolled out: from made-up objects, as the API has them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from components.assets.controlplane import COMPONENTS, bootstrap_pod
from components.assets.rollout import (
    BOOTSTRAP,
    Observed,
    Verdict,
    expected,
    late_workloads,
    progress,
    roll_seconds,
    to_nudge,
    verdict,
)
from components.config.k8s_names import NAME_LABEL
from tests.cases import load
from tests.unit.rollout_objects import (
    LATE,
    NODES,
    WORKLOADS,
    Object,
    cluster,
    failing,
    node,
    told,
    wanted,
    workload,
)


@pytest.mark.parametrize("case", ["lab", "baremetal"])
def test_every_node_and_every_workload_is_waited_for(case: str) -> None:
    cfg = load(case).cfg
    asked = expected(cfg, load(case).machines)
    assert tuple(asked.workloads) == WORKLOADS
    assert list(asked.nodes) == sorted(cfg.hosts)
    assert asked.seconds == roll_seconds(cfg) == 120 + 60 * len(cfg.controllers) + 15 * len(cfg.hosts)


def test_a_cluster_as_it_should_be_is_done() -> None:
    assert verdict(wanted(), cluster(), 0) is Verdict.DONE


NOT_ROLLED_OUT = {
    "not observed": "3|2|2|2|2|2|2",
    "new": "3||||||",
    "not all new": "2|2|2|2|1|2|2",
    "not available": "2|2|2|2|2|2|1",
    "none available": "2|2|2|2|2|2|",
}


@pytest.mark.parametrize("counts", NOT_ROLLED_OUT.values(), ids=NOT_ROLLED_OUT)
@pytest.mark.parametrize("name", ["coredns", "kube-scheduler", "flannel", "kube-apiserver"])
def test_a_workload_that_is_not_rolled_out_is_waited_for_until_the_deadline(name: str, counts: str) -> None:
    asked, seen = wanted(), cluster({name: counts})
    assert late_workloads(asked, seen) == [name]
    assert verdict(asked, seen, asked.seconds - 1) is Verdict.WAIT
    assert verdict(asked, seen, asked.seconds) is Verdict.FAILED


def test_an_old_pod_that_is_left_is_waited_for() -> None:
    assert late_workloads(wanted(), cluster({"coredns": "2|2|2|3|2|3|3"})) == ["coredns"]


def test_a_daemon_set_has_no_count_of_old_pods() -> None:
    assert verdict(wanted(), cluster({"flannel": "2|2|2||2|2|2"}), 0) is Verdict.DONE


@pytest.mark.parametrize("nodes", [NODES[:1], (NODES[0], node("worker-1", "Unknown"))])
def test_a_node_is_waited_for(nodes: Sequence[Object]) -> None:
    asked, seen = wanted(), cluster(nodes=nodes)
    assert verdict(asked, seen, 0) is Verdict.WAIT
    assert verdict(asked, seen, asked.seconds) is Verdict.FAILED


def test_a_node_that_nobody_asked_for_is_not() -> None:
    assert verdict(wanted(), cluster(nodes=[*NODES, node("former", "Unknown")]), 0) is Verdict.DONE


def test_a_workload_that_is_gone_is_late() -> None:
    seen = Observed(nodes=NODES, workloads=[workload(name) for name in WORKLOADS[1:]], pods=[])
    assert verdict(wanted(), seen, 0) is Verdict.WAIT
    assert told(seen)[0] == "--- flannel is not rolled out; somebody has deleted it"


def test_an_api_that_does_not_answer_is_waited_for_as_if_it_were_the_first_time() -> None:
    asked = wanted()
    assert verdict(asked, None, asked.seconds + 119) is Verdict.WAIT
    assert verdict(asked, None, asked.seconds + 120) is Verdict.FAILED


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_first_time_ready_is_enough_and_takes_longer(name: str) -> None:
    """What is there beside them is the temporary control plane."""
    asked = wanted()
    counts = {name: "1|1|1|1|1|1|"}
    assert verdict(asked, cluster(counts, first=True), 0) is Verdict.DONE
    assert verdict(asked, cluster(counts), 0) is Verdict.WAIT
    not_ready = cluster({name: "1|1|1|1|1||"}, first=True)
    assert verdict(asked, not_ready, asked.seconds + 119) is Verdict.WAIT
    assert verdict(asked, not_ready, asked.seconds + 120) is Verdict.FAILED


def test_what_backs_off_is_given_up_early_but_not_at_once() -> None:
    for reason in ("CrashLoopBackOff", "ImagePullBackOff"):
        seen = failing("kube-scheduler", "coredns", reason=reason)
        assert verdict(wanted(), seen, 59) is Verdict.WAIT
        assert verdict(wanted(), seen, 60) is Verdict.FAILED


def test_the_first_time_nothing_is_given_up_early() -> None:
    """It crashes until what it needs is there."""
    seen = failing("kube-scheduler")
    both = cluster({"kube-scheduler": "1|1|1|1|1||"}, pods=seen.pods, first=True)
    assert verdict(wanted(), both, 100) is Verdict.WAIT


def test_what_may_still_come_is_waited_for_beside_what_backs_off() -> None:
    crashes, comes = failing("kube-scheduler"), failing("kube-proxy", reason="ContainerCreating")
    seen = cluster({"kube-scheduler": LATE, "kube-proxy": LATE}, pods=[*crashes.pods, *comes.pods])
    assert verdict(wanted(), seen, 100) is Verdict.WAIT


def test_a_node_that_may_still_come_is_waited_for_beside_what_backs_off() -> None:
    seen = failing("kube-scheduler", nodes=NODES[:1])
    assert verdict(wanted(), seen, 100) is Verdict.WAIT


def test_controllers_are_nudged_at_pods_that_have_to_stay_ready() -> None:
    assert to_nudge(wanted(), cluster()) == []
    seen = failing("kube-apiserver", "kube-scheduler", "coredns", "flannel")
    assert to_nudge(wanted(), seen) == [
        *("kube-apiserver-new", "kube-apiserver-old", "kube-scheduler-new", "kube-scheduler-old"),
    ]


def test_progress_names_what_is_waited_for() -> None:
    seen = failing("kube-apiserver", nodes=NODES[:1])
    assert progress(wanted(), seen) == "waiting for node worker-1, kube-apiserver"
    assert len(progress(wanted(), failing(*WORKLOADS))) <= 200


def test_the_temporary_control_plane_is_known_by_its_labels() -> None:
    case = load("lab")
    pods = [bootstrap_pod(component, case.cfg, case.machines) for component in COMPONENTS]
    assert [each["metadata"]["labels"][NAME_LABEL] for each in pods] == list(BOOTSTRAP)
