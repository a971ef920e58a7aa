"""Is a cluster rolled out, and if not, why: from made-up objects, as the API has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from components.assets.controlplane import COMPONENTS, bootstrap_pod
from components.assets.rollout import (
    BOOTSTRAP,
    NAME_LABEL,
    Expected,
    Observed,
    Verdict,
    expected,
    explain,
    late_workloads,
    progress,
    quoted,
    roll_seconds,
    to_nudge,
    unexplained,
    verdict,
    without_lost,
)
from components.config import parse
from components.hosts.machine import configured_machines
from tests.cases import load

DAEMON_SETS = ("flannel", "kube-apiserver", "kube-proxy", "pod-checkpointer")
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


# -- the verdict ---------------------------------------------------------------------------------------------


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


# -- the explanation -----------------------------------------------------------------------------------------


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
    asked = Expected(nodes=names, workloads=WORKLOADS, overrides={}, seconds=1)
    seen = cluster(dict.fromkeys(WORKLOADS, LATE), pods=pods, events=events)
    assert len(quoted(asked, seen)) == 2 * len(WORKLOADS)
    lines = explain(asked, seen, dict.fromkeys(quoted(asked, seen), line * 100))
    assert len(lines) < 25 * len(WORKLOADS)
    assert max(map(len, lines)) < 500
