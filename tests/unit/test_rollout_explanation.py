"""Why a cluster is not rolled out, as a user reads it."""

from __future__ import annotations

from typing import Any

import pytest

from components.assets.rollout import Expected, explain, quoted, unexplained
from tests.unit.rollout_objects import (
    LATE,
    NOON,
    WORKLOADS,
    cluster,
    container,
    event,
    failing,
    node,
    pod,
    told,
    wanted,
)


def test_all_that_has_failed_is_told_at_once_with_the_way_back() -> None:
    loop = "back-off 5s restarting failed container"
    pull = 'Back-off pulling image "registry.example.com/coredns:none"'
    crashed, pulled = failing("kube-apiserver", message=loop), failing("coredns", message=pull)
    seen = cluster(
        {"kube-apiserver": LATE, "coredns": LATE},
        pods=[*crashed.pods, *pulled.pods],
        events=[
            event("Pod", "coredns-new", "Error: ImagePullBackOff"),
            event("Pod", "kube-apiserver-new", "Back-off restarting failed container"),
        ],
    )
    lines = told(
        seen,
        {("kube-apiserver-new", "kube-apiserver"): "Error: unknown flag: --no\n"},
        flags={"kube-apiserver": {"no": "1"}},
        images={"kube-apiserver": "registry.example.com/a:b", "coredns": "c:d"},
    )
    assert lines == [
        "--- kube-apiserver is not rolled out; 2 of 2 pods serve",
        f"  pod kube-apiserver-new, container kube-apiserver: CrashLoopBackOff, restarted 4 times. {loop}",
        "    | Error: unknown flag: --no",
        "  If you changed it, put back kubepivot:flags.kube-apiserver or kubepivot:images.kube-apiserver.",
        "--- coredns is not rolled out; 2 of 2 pods serve",
        f"  pod coredns-new, container coredns: CrashLoopBackOff, restarted 4 times. {pull}",
        "  If you changed it, put back kubepivot:images.coredns.",
        "What is Ready goes on serving. When the cause is gone, run 'pulumi up' again.",
    ]


def test_a_value_that_nobody_gave_is_not_to_be_put_back() -> None:
    assert not any("put back" in line for line in told(failing(*WORKLOADS)))


@pytest.mark.parametrize(
    ("workloads", "config", "key"),
    [
        (["kube-scheduler"], {"flags": {"kube-scheduler": {"v": "2"}}}, "flags.kube-scheduler"),
        (
            ["kube-apiserver", "pod-checkpointer"],
            {"images": {"pod-checkpointer": "python:3.12"}},
            "images.pod-checkpointer",
        ),
        (["flannel"], {"images": {"flannel-cni": "cni:1"}}, "images.flannel-cni"),
        (["kube-proxy"], {"images": {"kube-proxy": "proxy:1"}}, "images.kube-proxy"),
    ],
)
def test_a_value_that_was_given_is_to_be_put_back(
    workloads: list[str], config: dict[str, Any], key: str
) -> None:
    lines = [line for line in told(failing(*WORKLOADS), **config) if line.startswith(("---", "  If"))]
    hint = f"  If you changed it, put back kubepivot:{key}."
    assert [lines[number - 1].split()[1] for number, line in enumerate(lines) if line == hint] == workloads


FORBIDS = {
    "quota": 'Error creating: pods "x" is forbidden: exceeded quota: tight, requested: pods=1',
    "webhook": 'Error creating: Internal error occurred: failed calling webhook "a.example.com": refused',
    "LimitRange": 'Error creating: pods "x" is forbidden: maximum cpu usage per Container is 1m',
    "PodSecurity": 'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest"',
}


@pytest.mark.parametrize("cause", FORBIDS)
@pytest.mark.parametrize(
    ("name", "kind", "owner"),
    [
        ("kube-apiserver", "DaemonSet", "kube-apiserver"),
        ("coredns", "ReplicaSet", "coredns-7d9f8c"),
        ("coredns", "Job", "coredns"),
    ],
)
def test_what_forbids_new_pods_is_told(name: str, kind: str, owner: str, cause: str) -> None:
    events = [
        event(kind, owner, "an older one", reason="FailedCreate", lastTimestamp=NOON),
        event(kind, owner, FORBIDS[cause], reason="FailedCreate"),
        event("ReplicaSet", f"{name}-a-b", "another's", reason="FailedCreate"),
        event("DaemonSet", f"{name}-2", "another's", reason="FailedCreate"),
        event(kind, owner, "not of pods", reason="FailedUpdate"),
    ]
    seen = cluster({name: "3|3|2|2|0|2|2"}, pods=[pod(name, "old", ready=True)], events=events)
    assert told(seen)[:-1] == [
        f"--- {name} is not rolled out; 2 of 2 pods serve",
        f"    | {FORBIDS[cause]}",
    ]


def test_what_forbids_one_pod_is_told_beside_another_that_crashes() -> None:
    seen = failing("coredns", events=[event("ReplicaSet", "coredns-7d9", "quota", reason="FailedCreate")])
    assert told(seen)[1:3] == [
        "  pod coredns-new, container coredns: CrashLoopBackOff, restarted 4 times.",
        "    | quota",
    ]


def test_what_forbade_pods_once_is_not_told_of_one_that_crashes() -> None:
    old = event("ReplicaSet", "coredns-7d9f8c", "quota", reason="FailedCreate", lastTimestamp=NOON)
    seen = failing("coredns", events=[old])
    lines = told(seen, {("coredns-new", "coredns"): "bad Corefile"})
    assert "    | bad Corefile" in lines
    assert "quota" not in "".join(lines)


@pytest.mark.parametrize(
    "times",
    [
        {"lastTimestamp": None, "eventTime": "2026-11-21T12:00:06.123456Z"},
        {"series": {"lastObservedTime": "2026-11-21T12:00:06.123456Z"}, "lastTimestamp": NOON},
        {"metadata": {"creationTimestamp": "2026-11-21T12:00:06Z"}},
    ],
)
def test_the_last_event_of_a_pod_is_told_whatever_way_it_says_its_time(times: dict[str, Any]) -> None:
    events = [event("Pod", "flannel-new", "no volume", **times), event("Pod", "flannel-new", "older")]
    assert "    | no volume" in told(failing("flannel", events=events))


def test_a_pod_that_no_node_takes_is_told() -> None:
    why = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    seen = cluster({"coredns": LATE}, pods=[pod("coredns", conditions=[why])])
    assert told(seen)[1] == "  pod coredns-new: Pending. 0/2 nodes are available"


def test_an_init_container_is_told_and_not_what_waits_for_it() -> None:
    initial = container("install-cni", reason="CrashLoopBackOff", message="back-off")
    waits = container("flannel", reason="PodInitializing")
    new = pod("flannel", initial=[container("done", ready=True), initial], containers=[waits])
    seen = cluster(
        {"flannel": LATE},
        pods=[new],
        events=[
            event("Pod", "flannel-new", "Back-off restarting", lastTimestamp=NOON),
            event("Pod", "flannel-new", "the node is full"),
        ],
    )
    assert quoted(wanted(), seen) == [("flannel-new", "install-cni")]
    assert told(seen, {("flannel-new", "install-cni"): "cp: no space left"})[1:-1] == [
        "  pod flannel-new, container install-cni: CrashLoopBackOff, restarted 4 times. back-off",
        "    | cp: no space left",
        "    | the node is full",
    ]


def test_one_that_crashes_may_be_ready_for_a_moment() -> None:
    seen = cluster({"coredns": LATE}, pods=[pod("coredns", ready=True)])
    assert unexplained(wanted(), seen) == ["coredns"]
    assert unexplained(wanted(), failing("coredns")) == []
    forbids = [event("ReplicaSet", "coredns-7d9", "quota", reason="FailedCreate")]
    assert unexplained(wanted(), cluster({"coredns": LATE}, events=forbids)) == []


def test_nodes_are_told() -> None:
    nodes = [node("controller-1", "False", "container runtime\nis down")]
    assert told(cluster(nodes=nodes))[:2] == [
        "node controller-1 is not Ready: container runtime is down",
        "node worker-1 is not registered: look at 'journalctl -u kubelet' there",
    ]


def test_the_first_time_the_temporary_control_plane_is_told_too() -> None:
    loop = pod(
        "bootstrap-scheduler", "x", containers=[container("kube-scheduler", reason="CrashLoopBackOff")]
    )
    seen = cluster({"coredns": "1|1|1|1|1||"}, pods=[loop], first=True)
    lines = told(seen)
    assert quoted(wanted(), seen) == [("bootstrap-scheduler-x", "kube-scheduler")]
    assert (
        "  pod bootstrap-scheduler-x, container kube-scheduler: CrashLoopBackOff, restarted 4 times." in lines
    )
    assert lines[-1].startswith("The temporary control plane stays.")


def test_the_explanation_is_bounded() -> None:
    message, line = "m" * 5000, "x" * 5000 + "\n"
    pods = [
        pod(name, str(number), containers=[container(name, reason="CrashLoopBackOff", message=message)])
        for name in WORKLOADS
        for number in range(20)
    ]
    events = [
        *(event("Pod", each["metadata"]["name"], message) for each in pods),
        *(event("DaemonSet", name, message, reason="FailedCreate") for name in WORKLOADS),
    ]
    names = [f"node-{number}" for number in range(200)]
    asked = Expected(nodes=names, workloads=WORKLOADS, leaders=(), overrides={}, seconds=1)
    seen = cluster(dict.fromkeys(WORKLOADS, LATE), pods=pods, events=events)
    assert len(quoted(asked, seen)) == 2 * len(WORKLOADS)
    lines = explain(asked, seen, dict.fromkeys(quoted(asked, seen), line * 100))
    assert len(lines) < 25 * len(WORKLOADS)
    assert max(map(len, lines)) < 500
