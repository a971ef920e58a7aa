"""The drain as the program goes about it: what it asks the API for, when it ends, and what a user reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from components.assets.drain import CORDONED
from components.config.upgrade import DrainConfig
from components.drain import MOST_AT_ONCE, UNCORDON_SECONDS, cordon, drain, uncordon
from tests.unit.clock import Clock
from tests.unit.test_drain import (
    BLOCKED,
    BOTH,
    BUDGET,
    ENDS,
    EVERYTHING,
    FORBIDDEN,
    LOCAL,
    LONE,
    RULES,
    THROTTLED,
    TWO_BUDGETS,
    UNCORDON,
    Object,
    node,
    pod,
    status,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("components.drain", "components.api"):
        monkeypatch.setattr(f"{module}.monotonic", lambda: clock.now)
        monkeypatch.setattr(f"{module}.sleep", clock.sleep)
    return clock


class Api:
    """A made-up API with one node and its pods. Evicted pods end after `grace` seconds."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.node = node()
        self.others: list[Object] = []
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
            case "GET", ["nodes"]:
                return httpx.Response(200, json={"items": [self.node, *self.others]})
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
        ending = found | {"metadata": found["metadata"] | {"deletionTimestamp": ENDS}}
        self.pods[self.pods.index(found)] = ending
        self.ends[uid] = self.clock.now + self.grace.get(name, 2)
        return httpx.Response(201, json={"kind": "Status", "status": "Success"})

    @property
    def cordon(self) -> str:
        """Whose cordon the node has."""
        if not self.node["spec"].get("unschedulable"):
            return "nobody's" if CORDONED not in self.node["metadata"]["annotations"] else "half taken back"
        return "ours" if CORDONED in self.node["metadata"]["annotations"] else "an admin's"


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


def run(api: Api, rules: DrainConfig = RULES, told: list[str] | None = None) -> list[str]:
    """What the user reads: nothing if the node is drained."""

    async def go() -> list[str]:
        transport = httpx.MockTransport(api.answer)
        async with httpx.AsyncClient(base_url="https://api", transport=transport) as http:
            tell = (told if told is not None else []).append
            return await cordon(http, "worker-1") or await drain(http, "worker-1", rules, tell)

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


def test_a_node_that_has_died_itself_is_named(api: Api, clock: Clock) -> None:
    api.node = node(ready="Unknown")
    api.pods = [pod("web-1")]
    api.grace["web-1"] = 1e6
    assert run(api)[-1] == (
        "worker-1 itself is not Ready: its pods end when it is back, or when its Node is deleted"
    )


def test_other_nodes_that_are_not_ready_are_named_with_what_is_blocked(api: Api, clock: Clock) -> None:
    """The pods that moved there are what the budget waits for: more of them would not help."""
    api.pods = [pod("web-1")]
    api.answers = {"web-1": blocked()}
    api.others = [node("worker-2", ready="Unknown"), node("worker-3")]
    assert run(api) == [
        "node worker-1 is not drained after 60 s",
        f"pod default/web-1: {BUDGET}",
        "what moved to these nodes does not serve, for they are not Ready: worker-2",
    ]


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
    assert run(api, DrainConfig.model_validate({"deleteEmptyDir": True, "force": True})) == []
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
    heading, trouble, late, nodes, cordon = run(api)
    assert heading == "node worker-1 is not drained after 60 s"
    assert trouble.startswith("the API does not answer: HTTPStatusError Server error '503")
    assert late == f"pod default/web-1: {BUDGET}"
    assert nodes.startswith("of the other nodes nothing is known: HTTPStatusError Server error '503")
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
    if path == "/nodes/worker-1":
        assert found[0] == "node worker-1 can't be cordoned, for the API refuses it: no rights"
    else:
        assert found[:2] == ["node worker-1 can't be drained", "the API refuses it: no rights"]
    refused = "node worker-1 may stay cordoned, for the API refuses it: no rights"
    assert [line.partition(";")[0] for line in found if "may stay" in line] == (
        [refused] if "nodes" in path else []
    )
    assert (clock.now, api.cordon) == (1000, "nobody's")


def test_a_node_that_does_not_exist_has_no_cordon(api: Api) -> None:
    api.before = lambda _: blocked(404, status(404, 'nodes "worker-1" not found'))
    assert run(api) == ["node worker-1 can't be drained", 'the API refuses it: nodes "worker-1" not found']


def test_our_cordon_is_taken_back_and_an_api_that_restarts_is_waited_for(api: Api, clock: Clock) -> None:
    api.node = node(cordoned=True, ours=True)
    api.before = lambda _: httpx.Response(503) if clock.now < 1010 else None
    assert run_uncordon(api) == []
    assert (clock.now, api.cordon, api.patches) == (1010, "nobody's", [UNCORDON])
