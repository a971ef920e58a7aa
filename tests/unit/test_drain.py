"""The drain: what it does with each pod and each answer, and how it goes on until the node is drained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from components.assets.drain import (
    CORDONED,
    Answer,
    Outcome,
    Rules,
    answered,
    cordon_patch,
    eviction,
    is_ours,
    names,
    plan,
    still_there,
    takes_over,
    tolerates_cordon,
    uncordon_patch,
)
from components.drain import MOST_AT_ONCE, UNCORDON_SECONDS, drain, uncordon

Object = dict[str, Any]

RULES = Rules(seconds=60, delete_empty_dir=False, force=False)
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
    rules = Rules(seconds=1, delete_empty_dir=delete_empty_dir, force=force)
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
    ("cordoned", "annotated", "ours", "cordon", "uncordon"),
    [
        (False, False, False, CORDON, None),
        (True, True, True, None, UNCORDON),
        (True, False, False, None, None),
        (False, True, False, CORDON, UNCORDON),
    ],
    ids=["free", "ours", "an admin's", "ours, and uncordoned by an admin"],
)
def test_a_cordon_is_taken_back_by_whoever_made_it(
    cordoned: bool, annotated: bool, ours: bool, cordon: Object | None, uncordon: Object | None
) -> None:
    it = node(cordoned=cordoned, ours=annotated)
    assert (is_ours(it), cordon_patch(it), uncordon_patch(it)) == (ours, cordon, uncordon)


def test_a_node_without_annotations_can_be_cordoned() -> None:
    it = node()
    del it["metadata"]["annotations"]
    assert (is_ours(it), cordon_patch(it), uncordon_patch(it)) == (False, CORDON, None)


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


# -- against an API ------------------------------------------------------------------------------------------


class Clock:
    """Time goes by only while somebody sleeps."""

    now = 1000.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("components.drain.monotonic", lambda: clock.now)
    monkeypatch.setattr("components.drain.sleep", clock.sleep)
    return clock


class Api:
    """A made-up API with one node and its pods. Evicted pods end after `grace` seconds."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.node = node()
        self.pods: list[Object] = []
        self.grace: dict[str, float] = {}
        self.answers: dict[str, httpx.Response] = {}
        """To evictions, by the pod's name. Without one the pod is let go."""
        self.evicted: list[tuple[float, str]] = []
        self.ends: dict[str, float] = {}
        self.patches: list[Object] = []
        self.at_once = self.most_at_once = 0
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if (answer := self.before(request)) is not None:
            return answer
        self.pods = [
            each for each in self.pods if self.clock.now < self.ends.get(each["metadata"]["uid"], 1e9)
        ]
        match request.method, request.url.path.split("/")[3:]:
            case "GET", ["nodes", "worker-1"]:
                return httpx.Response(200, json=self.node)
            case "PATCH", ["nodes", "worker-1"]:
                return self._patch(request)
            case "GET", ["pods"]:
                assert request.url.params["fieldSelector"] == "spec.nodeName=worker-1"
                return httpx.Response(200, json={"items": self.pods})
            case "POST", ["namespaces", "default", "pods", name, "eviction"]:
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                await asyncio.sleep(0)
                self.at_once -= 1
                return self._evict(name, json(request))
        raise AssertionError(f"not imitated: {request.method} {request.url}")

    def _patch(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["Content-Type"] == "application/merge-patch+json"
        patch = json(request)
        meta = self.node["metadata"]
        if patch["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            return httpx.Response(409, json=status(409, "the object has been modified"))
        self.patches.append(patch)
        meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
        merge(meta["annotations"], patch["metadata"]["annotations"])
        merge(self.node["spec"], patch["spec"])
        return httpx.Response(200, json=self.node)

    def _evict(self, name: str, body: Object) -> httpx.Response:
        self.evicted.append((self.clock.now - 1000, name))
        if name in self.answers:
            return self.answers[name]
        uid = body["deleteOptions"]["preconditions"]["uid"]
        (found,) = [each for each in self.pods if each["metadata"]["uid"] == uid]
        found["metadata"]["deletionTimestamp"] = ENDS
        self.ends[uid] = self.clock.now + self.grace.get(name, 2)
        return httpx.Response(201, json={"kind": "Status", "status": "Success"})

    @property
    def cordon(self) -> str:
        """Whose cordon the node has."""
        if not self.node["spec"].get("unschedulable"):
            return "nobody's" if CORDONED not in self.node["metadata"]["annotations"] else "half taken back"
        return "ours" if is_ours(self.node) else "an admin's"


def merge(into: Object, changes: Object) -> None:
    """As a merge patch does: null takes a key away."""
    into |= changes
    for key in [key for key, value in changes.items() if value is None]:
        del into[key]


def json(request: httpx.Request) -> Object:
    body: Object = httpx.Response(200, content=request.content).json()
    return body


@pytest.fixture
def api(clock: Clock) -> Api:
    return Api(clock)


def run(api: Api, rules: Rules = RULES, told: list[str] | None = None) -> list[str]:
    """What the user reads: nothing if the node is drained."""

    async def go() -> list[str]:
        transport = httpx.MockTransport(api.answer)
        async with httpx.AsyncClient(base_url="https://api", transport=transport) as http:
            return await drain(http, "worker-1", rules, (told if told is not None else []).append)

    return asyncio.run(go())


def run_uncordon(api: Api) -> list[str]:
    async def go() -> list[str]:
        transport = httpx.MockTransport(api.answer)
        async with httpx.AsyncClient(base_url="https://api", transport=transport) as http:
            return await uncordon(http, "worker-1")

    return asyncio.run(go())


def blocked(code: int = 429, body: Object = BLOCKED) -> httpx.Response:
    return httpx.Response(code, json=body)


def test_a_node_is_cordoned_and_its_pods_are_waited_for_and_told(api: Api, clock: Clock) -> None:
    stays = pod("flannel-x9z", owner="DaemonSet")
    api.pods = [pod("web-1"), pod("web-2"), stays]
    api.grace = {"web-1": 5, "web-2": 10}
    told: list[str] = []
    assert run(api, told=told) == []
    assert told == [
        "draining worker-1: waiting for pods default/web-1, default/web-2",
        "draining worker-1: waiting for pod default/web-2",
    ]
    assert clock.now == 1010
    assert api.evicted == [(0, "web-1"), (0, "web-2")]
    assert (api.pods, api.cordon) == ([stays], "ours")


def test_a_node_without_pods_is_drained_at_once(api: Api, clock: Clock) -> None:
    told: list[str] = []
    assert run(api, told=told) == []
    assert (told, clock.now, api.cordon) == ([], 1000, "ours")


def test_the_cordon_comes_before_the_look_at_the_pods(api: Api) -> None:
    """A pod that the scheduler was about to put there is seen."""

    def looks(request: httpx.Request) -> None:
        if request.url.path.endswith(("/pods", "/eviction")):
            assert api.cordon == "ours"

    api.before = looks
    api.pods = [pod("web-1")]
    assert run(api) == []


def test_what_a_budget_blocks_is_named_at_the_deadline_and_the_node_gets_pods_again(
    api: Api, clock: Clock
) -> None:
    api.pods = [pod("web-1"), pod("other-1"), pod("web-2")]
    api.answers = {"web-1": blocked(), "web-2": blocked()}
    assert run(api) == [
        "node worker-1 is not drained after 60 s",
        f"pods default/web-1, default/web-2: {BUDGET}",
    ]
    assert [when for when, name in api.evicted if name == "web-1"] == list(range(0, 60, 5))
    assert [name for _, name in api.evicted].count("other-1") == 1
    assert (clock.now, api.cordon) == (1060, "nobody's")


def test_what_was_blocked_and_is_let_go_is_drained(api: Api, clock: Clock) -> None:
    api.pods = [pod("web-1"), pod("web-2")]
    api.answers = {"web-1": blocked(), "web-2": blocked(429, status(429, THROTTLED))}

    def later(_: httpx.Request) -> None:
        if clock.now >= 1008:
            api.answers.clear()

    api.before = later
    assert run(api) == []
    assert [when for when, name in api.evicted if name == "web-1"] == [0, 5, 10]
    assert (clock.now, api.cordon) == (1012, "ours")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (blocked(500, status(500, TWO_BUDGETS)), f"{TWO_BUDGETS} Leave it one."),
        (blocked(403, status(403, FORBIDDEN)), FORBIDDEN),
    ],
    ids=["two budgets", "a policy"],
)
def test_what_no_time_helps_is_told_at_once(api: Api, clock: Clock, answer: httpx.Response, why: str) -> None:
    api.pods = [pod("web-1"), pod("other-1")]
    api.answers = {"web-1": answer, "other-1": blocked()}
    assert run(api) == ["node worker-1 can't be drained", f"pod default/web-1: {why}"]
    assert (clock.now, api.cordon) == (1000, "nobody's")


def test_what_refuses_the_drain_keeps_all_pods_there(api: Api, clock: Clock) -> None:
    api.pods = [pod("web-1"), *BOTH]
    assert run(api) == ["node worker-1 can't be drained", LOCAL, LONE]
    assert (api.evicted, clock.now, api.cordon) == ([], 1000, "nobody's")
    assert run(api, Rules(seconds=60, delete_empty_dir=True, force=True)) == []
    assert sorted(name for _, name in api.evicted) == ["cache-1", "cache-2", "once", "web-1"]


@pytest.mark.parametrize("outcome", ["drained", "blocked"])
def test_an_admins_cordon_stays(api: Api, outcome: str) -> None:
    api.node = node(cordoned=True)
    api.pods = [pod("web-1")]
    if outcome == "blocked":
        api.answers["web-1"] = blocked()
    assert bool(run(api)) == (outcome == "blocked")
    assert run_uncordon(api) == []
    assert (api.cordon, api.patches) == ("an admin's", [])


@pytest.mark.parametrize("outcome", ["drained", "blocked"])
def test_what_a_killed_run_has_left_is_taken_up_again(api: Api, outcome: str) -> None:
    api.node = node(cordoned=True, ours=True)
    gone = pod("web-1", deletionTimestamp=ENDS)
    api.pods = [gone, pod("web-2")]
    api.ends[gone["metadata"]["uid"]] = 1003
    if outcome == "blocked":
        api.answers["web-2"] = blocked()
    assert bool(run(api)) == (outcome == "blocked")
    assert {name for _, name in api.evicted} == {"web-2"}
    assert api.cordon == ("ours" if outcome == "drained" else "nobody's")


@pytest.mark.parametrize("away", ["refused", "503", "a page"])
def test_an_api_that_restarts_is_waited_for_and_told(api: Api, clock: Clock, away: str) -> None:
    api.pods = [pod("web-1"), pod("web-2")]
    api.grace = {"web-1": 4, "web-2": 40}

    def restarts(request: httpx.Request) -> httpx.Response | None:
        if not 1005 <= clock.now < 1015:
            return None
        if away == "refused":
            raise httpx.ConnectError("connection refused", request=request)
        return httpx.Response(503) if away == "503" else httpx.Response(200, text="<html>")

    api.before = restarts
    told: list[str] = []
    assert run(api, told=told) == []
    assert len(told) == 4
    assert told[2].startswith("draining worker-1: asking the API again: ")
    assert told[3] == told[1] == "draining worker-1: waiting for pod default/web-2"
    assert clock.now == 1040


def test_an_eviction_that_the_api_does_not_answer_is_asked_again(api: Api, clock: Clock) -> None:
    api.pods = [pod("web-1")]

    def breaks(request: httpx.Request) -> None:
        if request.method == "POST" and clock.now < 1004:
            raise httpx.ReadTimeout("", request=request)

    api.before = breaks
    assert run(api) == []
    assert api.evicted == [(5, "web-1")]


def test_an_api_that_is_gone_leaves_the_cordon_and_says_so(api: Api, clock: Clock) -> None:
    api.pods = [pod("web-1")]
    api.answers["web-1"] = blocked()
    api.before = lambda _: httpx.Response(503) if clock.now > 1010 else None
    heading, trouble, late, cordon = run(api)
    assert heading == "node worker-1 is not drained after 60 s"
    assert trouble.startswith("the API does not answer: HTTPStatusError Server error '503")
    assert late == f"pod default/web-1: {BUDGET}"
    assert cordon.startswith("node worker-1 may stay cordoned, for the API does not answer: HTTPStatusError")
    assert cordon.endswith("'kubectl uncordon worker-1' lets pods on it again")
    assert (clock.now, api.cordon) == (1060 + UNCORDON_SECONDS, "ours")


def test_a_pod_that_never_ends_is_named(api: Api, clock: Clock) -> None:
    api.pods = [pod("web-1"), pod("web-2")]
    api.grace["web-2"] = 1e6
    assert run(api) == [
        "node worker-1 is not drained after 60 s",
        f"pod default/web-2: told to end by {ENDS}, and still there",
    ]
    assert (clock.now, api.cordon) == (1060, "nobody's")


@pytest.mark.parametrize(
    ("slow", "why"), [("/api/v1/pods", "not asked to end yet"), ("/eviction", "told to end a moment ago")]
)
def test_a_pod_that_time_does_not_suffice_for_is_named(api: Api, clock: Clock, slow: str, why: str) -> None:
    api.pods = [pod("web-1")]

    def takes_long(request: httpx.Request) -> None:
        if request.url.path.endswith(slow):
            clock.now += RULES.seconds

    api.before = takes_long
    assert run(api) == ["node worker-1 is not drained after 60 s", f"pod default/web-1: {why}"]
    assert (clock.now, api.cordon) == (1060, "nobody's")


def test_the_next_pod_of_a_stateful_set_is_another_one(api: Api, clock: Clock) -> None:
    """It has come elsewhere before the API was asked: the name is another pod's."""
    api.pods = [pod("db-0", owner="StatefulSet")]
    api.answers["db-0"] = blocked(409, status(409, "the UID in the precondition"))

    def later(_: httpx.Request) -> None:
        if clock.now >= 1001:
            api.pods = []

    api.before = later
    assert run(api) == []
    assert clock.now == 1001


def test_a_pod_that_came_with_the_cordon_is_evicted_too_but_none_that_comes_back(
    api: Api, clock: Clock
) -> None:
    api.pods = [pod("agent-1", tolerations=EVERYTHING)]
    later = [pod("agent-2", tolerations=EVERYTHING), pod("web-1")]

    def come(_: httpx.Request) -> None:
        if clock.now >= 1001 and later:
            api.pods += later
            later.clear()

    api.before = come
    assert run(api) == []
    assert api.evicted == [(0, "agent-1"), (1, "web-1")]
    assert [each["metadata"]["name"] for each in api.pods] == ["agent-2"]


def test_pods_are_asked_side_by_side_but_not_all_at_once(api: Api) -> None:
    api.pods = [pod(f"web-{number}") for number in range(30)]
    assert run(api) == []
    assert api.most_at_once == MOST_AT_ONCE
    assert len(api.evicted) == 30


def test_what_is_told_is_bounded(api: Api) -> None:
    api.pods = [pod(f"web-{number}") for number in range(30)]
    api.answers = {f"web-{number}": blocked(429, status(429, f"reason {number}")) for number in range(30)}
    assert len(run(api)) == 11


def test_a_node_that_changes_at_the_same_moment_is_looked_at_again(api: Api, clock: Clock) -> None:
    """An admin cordons it between the look and the change: it is the admin's."""

    def cordons(request: httpx.Request) -> None:
        if request.method == "PATCH":
            api.node["spec"]["unschedulable"] = True
            api.node["metadata"]["resourceVersion"] = "7"

    api.before = cordons
    assert run(api) == []
    assert api.cordon == "an admin's"


@pytest.mark.parametrize("path", ["/nodes/worker-1", "/pods"])
def test_what_the_api_refuses_is_told_at_once(api: Api, clock: Clock, path: str) -> None:
    def refuses(request: httpx.Request) -> httpx.Response | None:
        return blocked(403, status(403, "no rights")) if request.url.path.endswith(path) else None

    api.before = refuses
    found = run(api)
    assert found[:2] == ["node worker-1 can't be drained", "the API refuses it: no rights"]
    refused = "node worker-1 may stay cordoned, for the API refuses to uncordon it: no rights"
    assert [line.partition(";")[0] for line in found[2:]] == ([refused] if "nodes" in path else [])
    assert (clock.now, api.cordon) == (1000, "nobody's")


def test_a_node_that_does_not_exist_has_no_cordon(api: Api) -> None:
    api.before = lambda _: blocked(404, status(404, 'nodes "worker-1" not found'))
    assert run(api) == ["node worker-1 can't be drained", 'the API refuses it: nodes "worker-1" not found']


def test_our_cordon_is_taken_back_and_an_api_that_restarts_is_waited_for(api: Api, clock: Clock) -> None:
    api.node = node(cordoned=True, ours=True)
    api.before = lambda _: httpx.Response(503) if clock.now < 1010 else None
    assert run_uncordon(api) == []
    assert (clock.now, api.cordon, api.patches) == (1010, "nobody's", [UNCORDON])
