"""The drain: what it does with each pod, with the node and with each answer."""

from __future__ import annotations

from typing import Any

import pytest

from components.assets.drain import (
    CORDONED,
    Answer,
    Outcome,
    answered,
    cordon_patch,
    eviction,
    names,
    plan,
    still_there,
    takes_over,
    tolerates_cordon,
    uncordon_patch,
)
from components.config.upgrade import DrainConfig

Object = dict[str, Any]

RULES = DrainConfig.model_validate({"seconds": 60})
OWNED = {"controller": True, "apiVersion": "apps/v1", "uid": "5d0c"}
MIRROR = {"kubernetes.io/config.mirror": "f9d2"}
EVERYTHING = [{"operator": "Exists"}]
ENDS = "2026-11-21T12:00:30Z"
CONTROL_PLANE_TAINT = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


def pod(
    name: str,
    *,
    namespace: str = "default",
    owner: str = "ReplicaSet",
    app: str = "",
    phase: str = "Running",
    volumes: tuple[str, ...] = ("projected",),
    tolerations: list[Object] | None = None,
    **metadata: Any,
) -> Object:
    """A pod as the API lists it. Volumes are called by their kind."""
    meta: Object = {"name": name, "namespace": namespace, "uid": f"uid-{name}", **metadata}
    if app:
        meta["labels"] = {"app.kubernetes.io/name": app}
    if owner:
        meta["ownerReferences"] = [{**OWNED, "kind": owner, "name": name.rpartition("-")[0]}]
    spec: Object = {
        "nodeName": "worker-1",
        "containers": [{"name": "app", "image": "registry.example.com/app:1"}],
        "volumes": [{"name": kind, kind: {}} for kind in volumes],
        "tolerations": tolerations
        or [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
    }
    return {"metadata": meta, "spec": spec, "status": {"phase": phase}}


def node(
    name: str = "worker-1", *, ready: str = "True", cordoned: bool = False, ours: bool = False, **spec: Any
) -> Object:
    return {
        "metadata": {
            "name": name,
            "resourceVersion": "1",
            "annotations": {"flannel.alpha.coreos.com/public-ip": "172.30.0.21"}
            | ({CORDONED: "upgrade"} if ours else {}),
        },
        "spec": {"podCIDR": "10.2.1.0/24", **({"unschedulable": True} if cordoned else {}), **spec},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


# -- its pods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("each", "fate"),
    [
        (pod("web-7d9f-x2x"), "evicted"),
        (pod("db-0", owner="StatefulSet"), "evicted"),
        (pod("import-k8x", owner="Job"), "evicted"),
        (pod("coredns-6c9-abc", namespace="kube-system", app="coredns"), "evicted"),
        (pod("starting-1", phase="Pending"), "evicted"),
        (pod("kube-scheduler-1", app="kube-scheduler"), "evicted"),
        (pod("agent-1", tolerations=EVERYTHING), "evicted"),
        (pod("etcd-controller-1", namespace="kube-system", owner="Node", annotations=MIRROR), "stays"),
        (pod("flannel-x9z", namespace="kube-system", owner="DaemonSet", app="flannel"), "stays"),
        (pod("logs-x9z", owner="DaemonSet", volumes=("emptyDir",)), "stays"),
        (pod("logs-x9z", owner="DaemonSet", deletionTimestamp=ENDS), "stays"),
        *(
            (pod(f"{name}-1", namespace="kube-system", app=name, volumes=("emptyDir",)), "stays")
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "pod-checkpointer")
        ),
        (pod("import-k8x", owner="Job", phase="Succeeded", volumes=("emptyDir",)), "stays"),
        (pod("once", owner="", phase="Failed"), "stays"),
        (pod("web-7d9f-x2x", deletionTimestamp=ENDS), "waited for"),
        (pod("once", owner="", volumes=("emptyDir",), deletionTimestamp=ENDS), "waited for"),
        (pod("web-7d9f-x2x", phase="Succeeded", deletionTimestamp=ENDS), "waited for"),
        (pod("cache-1", volumes=("projected", "emptyDir")), "refuses"),
        (pod("once", owner=""), "refuses"),
        (pod("once", owner="", ownerReferences=[{"kind": "Backup", "name": "b", "uid": "1"}]), "refuses"),
    ],
    ids=lambda each: each if isinstance(each, str) else each["metadata"]["name"],
)
def test_what_is_done_with_a_pod(each: Object, fate: str) -> None:
    found = plan([each], RULES)
    assert bool(found.refused) == (fate == "refuses")
    assert list(found.evict) == ([each] if fate in ("evicted", "refuses") else [])
    assert list(found.ending) == ([each] if fate == "waited for" else [])
    assert found.left == ([] if fate == "stays" else [each])


BOTH = [pod("cache-2", volumes=("emptyDir",)), pod("cache-1", volumes=("emptyDir",)), pod("once", owner="")]
LOCAL = (
    "pods default/cache-1, default/cache-2: the data of emptyDir volumes would be lost; if it may be, set "
    "kubepivot:upgrade.drain.deleteEmptyDir to true"
)
LONE = (
    "pod default/once: no controller would make them anew; delete them, or set kubepivot:upgrade.drain.force "
    "to true if they may go for good"
)


@pytest.mark.parametrize(
    ("delete_empty_dir", "force", "refused"),
    [(False, False, [LOCAL, LONE]), (True, False, [LONE]), (False, True, [LOCAL]), (True, True, [])],
)
def test_what_refuses_is_named_with_its_mend_and_may_be_allowed(
    delete_empty_dir: bool, force: bool, refused: list[str]
) -> None:
    rules = DrainConfig.model_validate({"deleteEmptyDir": delete_empty_dir, "force": force})
    assert plan(BOTH, rules).refused == refused


@pytest.mark.parametrize(
    ("toleration", "tolerates"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}, True),
        ({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, True),
        ({"key": "node.kubernetes.io/unschedulable", "operator": "Equal", "value": "yes"}, False),
        ({"key": "node.kubernetes.io/not-ready", "operator": "Exists"}, False),
    ],
)
def test_which_pods_come_back_to_a_cordoned_node(toleration: Object, tolerates: bool) -> None:
    assert tolerates_cordon(pod("web-1", tolerations=[toleration])) == tolerates


def test_names_are_bounded() -> None:
    many = [pod(f"web-{number:02}") for number in range(12)]
    assert names(many[:1]) == "pod default/web-00"
    assert names(many).startswith("pods default/web-00, default/web-01, ")
    assert names(many).endswith(", default/web-09 and 2 more")


def test_what_does_not_end_is_told_with_what_holds_it() -> None:
    line = "pod default/web-1: told to end by 2026-11-21T12:00:30Z, and still there"
    assert still_there(pod("web-1", deletionTimestamp=ENDS)) == line
    held = pod("web-1", deletionTimestamp=ENDS, finalizers=["example.com/a", "example.com/b"])
    assert still_there(held) == f"{line}, and finalizers hold it: example.com/a, example.com/b"


# -- the node ------------------------------------------------------------------------------------------------

CORDON = {
    "metadata": {"resourceVersion": "1", "annotations": {CORDONED: "upgrade"}},
    "spec": {"unschedulable": True},
}
UNCORDON = {
    "metadata": {"resourceVersion": "1", "annotations": {CORDONED: None}},
    "spec": {"unschedulable": None},
}


@pytest.mark.parametrize(
    ("cordoned", "annotated", "cordon", "uncordon"),
    [
        (False, False, CORDON, None),
        (True, True, None, UNCORDON),
        (True, False, None, None),
        (False, True, CORDON, UNCORDON),
    ],
    ids=["free", "ours", "an admin's", "ours, and uncordoned by an admin"],
)
def test_a_cordon_is_taken_back_by_whoever_made_it(
    cordoned: bool, annotated: bool, cordon: Object | None, uncordon: Object | None
) -> None:
    it = node(cordoned=cordoned, ours=annotated)
    assert (cordon_patch(it), uncordon_patch(it)) == (cordon, uncordon)


def test_a_node_without_annotations_can_be_cordoned() -> None:
    it = node()
    del it["metadata"]["annotations"]
    assert (cordon_patch(it), uncordon_patch(it)) == (CORDON, None)


SOFT = {"key": "example.com/slow", "effect": "PreferNoSchedule"}
OWN_TAINT = {"key": "example.com/gpu", "value": "true", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("drained", "others", "takes"),
    [
        (node(), [], False),
        (node(), [node("worker-2")], True),
        (node(), [node("worker-2", ready="Unknown")], False),
        (node(), [node("worker-2", cordoned=True)], False),
        (node(), [node("worker-2", cordoned=True), node("worker-3")], True),
        (node(), [node("controller-1", taints=[CONTROL_PLANE_TAINT])], False),
        (node(), [node("worker-2", taints=[SOFT])], True),
        (node(taints=[CONTROL_PLANE_TAINT]), [node("worker-2")], True),
        (node(taints=[CONTROL_PLANE_TAINT]), [node("controller-2", taints=[CONTROL_PLANE_TAINT])], True),
        (node(taints=[OWN_TAINT]), [node("worker-2", taints=[{**OWN_TAINT, "value": "no"}])], False),
    ],
    ids=[
        "alone",
        "a worker",
        "one that is not Ready",
        "a cordoned one",
        "one of two",
        "a tainted controller",
        "a soft taint",
        "a controller's by a worker",
        "a controller's by a controller",
        "another value of a taint",
    ],
)
def test_whether_another_node_takes_the_pods(drained: Object, others: list[Object], takes: bool) -> None:
    assert takes_over(drained, [drained, *others]) == takes


# -- an eviction ---------------------------------------------------------------------------------------------


def status(code: int, message: str, **causes: str) -> Object:
    """A Status as kube-apiserver 1.36 answers it, with the texts of its causes by their names."""
    found = [{"reason": name, "message": text} for name, text in causes.items()]
    details = {"details": {"causes": found}} if found else {}
    return {"kind": "Status", "status": "Failure", "message": message, "code": code, **details}


OVER_BUDGET = "Cannot evict pod as it would violate the pod's disruption budget."
NEEDS = "The disruption budget web needs 2 healthy pods and has 2 currently"
BUDGET = (
    "disruption budget default/web needs 2 healthy pods and has 2 currently; run more such pods, or change "
    "the budget"
)
BLOCKED = status(429, OVER_BUDGET, DisruptionBudget=NEEDS)
PROCESSED = "The disruption budget web is still being processed by the server."
TWO_BUDGETS = (
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
)
THROTTLED = "Too many requests, please try again later."
GOING = (
    'pods "web-1" is forbidden: unable to create new content in namespace x because it is being terminated'
)
FORBIDDEN = 'pods "web-1" is forbidden: denied by policy'


@pytest.mark.parametrize(
    ("code", "body", "outcome", "reason"),
    [
        (201, {"kind": "Status", "status": "Success", "code": 201}, "DONE", "told to end a moment ago"),
        (404, status(404, 'pods "web-1" not found'), "DONE", "told to end a moment ago"),
        (429, BLOCKED, "BLOCKED", BUDGET),
        (
            429,
            status(429, OVER_BUDGET, DisruptionBudget=PROCESSED),
            "BLOCKED",
            "disruption budget default/web is still being processed by the server.",
        ),
        (429, status(429, THROTTLED), "RETRY", THROTTLED),
        (409, status(409, "the UID in the precondition"), "RETRY", "the UID in the precondition"),
        (403, status(403, GOING, NamespaceTerminating="going"), "RETRY", GOING),
        (500, status(500, TWO_BUDGETS), "FAILED", f"{TWO_BUDGETS} Leave it one."),
        (500, status(500, "etcdserver: leader changed"), "RETRY", "etcdserver: leader changed"),
        (502, {}, "RETRY", "HTTP 502"),
        (
            504,
            status(504, "couldn't update PodDisruptionBudget"),
            "RETRY",
            "couldn't update PodDisruptionBudget",
        ),
        (403, status(403, FORBIDDEN), "FAILED", FORBIDDEN),
        (400, {}, "FAILED", "HTTP 400"),
    ],
)
def test_what_an_answer_means(code: int, body: Object, outcome: str, reason: str) -> None:
    assert answered("default", code, body) == Answer(outcome=Outcome[outcome], reason=reason)


def test_an_eviction_is_for_one_pod_and_not_for_the_next_one_of_its_name() -> None:
    assert eviction(pod("db-0", owner="StatefulSet")) == {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "db-0", "namespace": "default"},
        "deleteOptions": {"preconditions": {"uid": "uid-db-0"}},
    }
