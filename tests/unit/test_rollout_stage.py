"""The rollout as the program waits for it: what it asks the API for, when it ends, and what a user reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pulumi
import pytest

from components.assets.rollout import expected, roll_seconds
from components.programs.checkpointer.pods import CHECKPOINT_LABEL
from components.rollout import await_rollout
from components.tables.components import LEADERS
from tests.cases import load
from tests.unit.clock import Clock
from tests.unit.recorder import pki_texts, ran
from tests.unit.rollout_objects import LATE, NODES, WORKLOADS, Object, container, event, node, pod, workload

CFG = load("lab").cfg
SECONDS = roll_seconds(CFG)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("components.rollout.monotonic", lambda: clock.now)
    monkeypatch.setattr("components.rollout.time", lambda: clock.now)
    monkeypatch.setattr("components.rollout.sleep", clock.sleep)
    # A fifth of the looks tells the same.
    monkeypatch.setattr("components.rollout.LOOK_SECONDS", 2.5)
    return clock


class Api:
    """A made-up API. A test changes what is there, or what happens at a request."""

    def __init__(self) -> None:
        self.counts: dict[str, str] = {}
        self.nodes = list(NODES)
        self.pods: list[Object] = []
        self.events: list[Object] = []
        self.copies: list[str] = []
        self.holder = "controller-1_new"
        self.logs: dict[tuple[str, str, str], str] = {}
        self.asked: list[httpx.Request] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if (answer := self.before(request)) is not None:
            return answer
        query = request.url.params
        match request.method, request.url.path.split("/")[3:]:
            case "GET", ["nodes"]:
                return self._list(self.nodes)
            case "GET", ["v1", "namespaces", "kube-system", ("daemonsets" | "deployments") as kind]:
                found = [workload(name, self.counts.get(name, "2|2|2|2|2|2|2")) for name in WORKLOADS]
                return self._list([each for each in found if f"{each.pop('kind').lower()}s" == kind])
            case "GET", ["namespaces", "kube-system", "pods"]:
                if query["labelSelector"] == CHECKPOINT_LABEL:
                    return self._list([{"metadata": {"labels": {CHECKPOINT_LABEL: n}}} for n in self.copies])
                asked = query["labelSelector"].partition(" in (")[2].rstrip(")").split(",")
                names = [each["metadata"]["labels"]["app.kubernetes.io/name"] for each in self.pods]
                return self._list(
                    [each for each, name in zip(self.pods, names, strict=True) if name in asked]
                )
            case "GET", ["v1", "namespaces", "kube-system", "leases"]:
                spec = {"holderIdentity": self.holder, "renewTime": f"at {len(self.asked)}"}
                return self._list([{"metadata": {"name": name}, "spec": spec} for name in LEADERS])
            case "GET", ["namespaces", "kube-system", "events"]:
                assert query["fieldSelector"] == "type=Warning"
                return self._list(self.events)
            case "GET", ["namespaces", "kube-system", "pods", name, "log"]:
                assert query["tailLines"] == "8"
                log = self.logs.get((name, query["container"], query["previous"]))
                return httpx.Response(400 if log is None else 200, text=log)
            case "PATCH", ["namespaces", "kube-system", "pods", _]:
                assert request.headers["Content-Type"] == "application/merge-patch+json"
                return httpx.Response(200, json={})
        raise AssertionError(f"not imitated: {request.method} {request.url}")

    @staticmethod
    def _list(items: list[Object]) -> httpx.Response:
        return httpx.Response(200, json={"items": items})

    def paths(self, end: str, method: str = "GET") -> list[str]:
        urls = [each.url for each in self.asked if each.method == method]
        return [f"{url.path}?{url.query.decode()}" for url in urls if url.path.endswith(end)]


@pytest.fixture
def api(clock: Clock) -> Api:
    return Api()


def wait(api: Api, told: list[str] | None = None) -> str:
    """What the user reads: nothing if all is well."""

    async def run() -> list[str]:
        transport = httpx.MockTransport(api.answer)
        async with httpx.AsyncClient(base_url="https://api", transport=transport) as http:
            return await await_rollout(
                http, expected(CFG, load("lab").machines), (told if told is not None else []).append
            )

    return "\n".join(asyncio.run(run()))


def breaks(api: Api, name: str, reason: str) -> None:
    """A workload's new pod does not become Ready."""
    api.counts[name] = LATE
    api.pods.append(pod(name, containers=[container(name, reason=reason)]))


def test_a_cluster_as_it_should_be_passes_at_once(api: Api, clock: Clock) -> None:
    told: list[str] = []
    assert wait(api, told) == ""
    assert (clock.now, told) == (1000, [])
    assert not api.paths("events") and not api.paths("log")


def test_what_is_late_is_waited_for_and_told_when_it_changes(api: Api, clock: Clock) -> None:
    api.counts |= {"flannel": LATE, "coredns": LATE}

    def later(_: httpx.Request) -> None:
        if clock.now >= 1010:
            api.counts.pop("flannel", None)
        if clock.now >= 1020:
            api.counts.clear()

    api.before = later
    told: list[str] = []
    assert wait(api, told) == ""
    assert clock.now == 1020
    assert told == ["waiting for flannel, coredns", "waiting for coredns"]


def test_a_leader_that_has_rolled_is_waited_for_until_it_leads(api: Api, clock: Clock) -> None:
    """Nobody has the lease when the last old pod has ended, and then the new one."""
    api.counts = {"kube-scheduler": LATE}
    api.holder = ""

    def later(_: httpx.Request) -> None:
        if clock.now >= 1010:
            api.counts.clear()
        if clock.now >= 1015:
            api.holder = "controller-1_new"

    api.before = later
    told: list[str] = []
    assert wait(api, told) == ""
    assert clock.now == 1025
    assert told == ["waiting for kube-scheduler"]


def test_a_copy_that_leads_is_not_the_leader_that_has_rolled(api: Api, clock: Clock) -> None:
    api.counts = {"kube-scheduler": LATE}

    def later(_: httpx.Request) -> None:
        if clock.now >= 1010:
            api.counts.clear()
        api.copies = ["kube-scheduler"] if clock.now < 1060 else []

    api.before = later
    assert wait(api) == ""
    assert clock.now == 1067.5


def test_a_leader_that_never_leads_fails_the_roll(api: Api, clock: Clock) -> None:
    api.counts = {"kube-scheduler": LATE}

    def later(_: httpx.Request) -> None:
        if clock.now >= 1010:
            api.counts.clear()
        api.holder = f"controller-1_{len(api.asked)}"  # another one at each look

    api.before = later
    lines = wait(api).splitlines()
    assert clock.now >= 1000 + SECONDS
    assert lines[1] == "--- kube-scheduler is not rolled out; 2 of 2 pods serve"
    assert lines[2].startswith("  none of its pods leads: controller-1_")


def test_a_node_that_has_left_and_is_dead_holds_nothing_up(api: Api, clock: Clock) -> None:
    """A second look finds out which pods are on it."""
    api.nodes.append(node("former", "Unknown"))
    api.counts = {"flannel": "2|2|3||3|2|2", "kube-proxy": "2|2|3||3|2|2", "coredns": LATE}
    api.pods = [pod(name, node="former") for name in ("flannel", "kube-proxy")]

    def later(_: httpx.Request) -> None:
        if clock.now >= 1010:
            api.counts.pop("coredns", None)

    api.before = later
    told: list[str] = []
    assert wait(api, told) == ""
    assert clock.now == 1010
    assert told == ["waiting for flannel, kube-proxy, coredns", "waiting for coredns"]


def test_what_stays_late_is_told_at_the_deadline(api: Api, clock: Clock) -> None:
    breaks(api, "coredns", "ContainerCreating")
    error = wait(api).splitlines()
    assert error[0] == f"after {SECONDS} s not everything is rolled out"
    assert error[1:3] == [
        "--- coredns is not rolled out; 2 of 2 pods serve",
        "  pod coredns-new, container coredns: ContainerCreating, restarted 4 times.",
    ]
    assert SECONDS <= clock.now - 1000 < SECONDS + 10


def test_what_backs_off_is_told_after_a_minute(api: Api, clock: Clock) -> None:
    breaks(api, "coredns", "CrashLoopBackOff")
    assert "CrashLoopBackOff" in wait(api)
    assert 60 <= clock.now - 1000 < 70


def test_a_cause_that_takes_a_moment_is_waited_for(api: Api, clock: Clock) -> None:
    api.counts["coredns"] = "3|3|2|2|0|2|2"

    def later(_: httpx.Request) -> None:
        if clock.now >= 1000 + SECONDS + 3:
            api.events = [event("ReplicaSet", "coredns-7d9", "a quota", reason="FailedCreate")]

    api.before = later
    assert "    | a quota\n" in wait(api)


@pytest.mark.parametrize(
    ("before", "now", "quote"),
    [
        (None, "Error: unknown flag", "Error: unknown flag"),
        ("no certificate in that file", "Version: v1.36.3", "no certificate in that file"),
        ("unable to retrieve container logs for containerd://97a1", "Error: no", "Error: no"),
        (None, "unable to retrieve container logs for containerd://97a1", ""),
        (None, None, ""),
    ],
    ids=["first", "has just begun again", "goes with its container", "goes, alone", "has none"],
)
def test_the_last_lines_of_a_container(api: Api, before: str | None, now: str | None, quote: str) -> None:
    """One that has just begun has not said yet why it crashes."""
    breaks(api, "kube-scheduler", "CrashLoopBackOff")
    for previous, text in (("true", before), ("false", now)):
        if text is not None:
            api.logs["kube-scheduler-new", "kube-scheduler", previous] = text
    quotes = [line for line in wait(api).splitlines() if line.startswith("    | ")]
    assert quotes == ([f"    | {quote}"] if quote else [])


def test_controllers_are_nudged_while_they_are_waited_for(api: Api, clock: Clock) -> None:
    breaks(api, "kube-apiserver", "ContainerCreating")
    breaks(api, "coredns", "ContainerCreating")
    wait(api)
    nudged = api.paths("", "PATCH")
    assert set(nudged) == {"/api/v1/namespaces/kube-system/pods/kube-apiserver-new?"}
    assert SECONDS / 3 < len(nudged) <= SECONDS / 2


@pytest.mark.parametrize("status", [403, 404])
def test_a_pod_that_may_not_be_nudged_is_waited_for(api: Api, clock: Clock, status: int) -> None:
    breaks(api, "kube-apiserver", "ContainerCreating")

    def refuse(request: httpx.Request) -> httpx.Response | None:
        if clock.now >= 1020:
            api.counts.clear()
        return httpx.Response(status) if request.method == "PATCH" else None

    api.before = refuse
    assert wait(api) == ""


@pytest.mark.parametrize("answer", ["refused", "forbidden", "a page"])
def test_an_api_that_is_away_is_waited_for_and_told(api: Api, clock: Clock, answer: str) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        if answer == "refused":
            raise httpx.ConnectError("connection refused", request=request)
        return httpx.Response(403) if answer == "forbidden" else httpx.Response(200, text="<html>")

    api.before = away
    told: list[str] = []
    heading, trouble = wait(api, told).splitlines()
    assert heading == f"after {SECONDS + 120} s not everything is rolled out"
    assert trouble.startswith("the API does not answer: ")
    assert told == [trouble]


def test_an_api_that_comes_back_passes(api: Api, clock: Clock) -> None:
    api.before = lambda _: httpx.Response(503) if clock.now < 1030 else None
    assert wait(api) == ""
    assert clock.now == 1030


def test_an_api_that_goes_at_the_end_leaves_what_was_known(api: Api, clock: Clock) -> None:
    breaks(api, "coredns", "ContainerCreating")
    api.before = lambda _: httpx.Response(503) if clock.now > 1100 else None
    error = wait(api)
    assert "the API does not answer" in error
    assert "pod coredns-new, container coredns: ContainerCreating" in error


# -- where it is asked for -----------------------------------------------------------------------------------


def test_the_hand_over_is_made_and_changed_after_it_and_no_preview_asks() -> None:
    run = ran("lab")
    (step,) = [each for each in run.resources if each.name == "lab-handover"]
    assert step.before_create == step.before_update == ("rollout",)
    options = run.hooks["rollout"].opts
    assert options is None or not options.on_dry_run


def test_the_hook_asks_as_super_admin_at_the_endpoint_and_fails_with_what_it_learnt(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []

    def made_up(*arguments: str) -> httpx.AsyncClient:
        asked.append((arguments[0], arguments[1], arguments[2]))
        return httpx.AsyncClient(base_url="https://api", transport=httpx.MockTransport(api.answer))

    monkeypatch.setattr("components.api.client", made_up)
    monkeypatch.setattr("components.rollout._tell", lambda _: None)
    hook: Any = ran("lab").hooks["rollout"]
    arguments = pulumi.ResourceHookArgs(urn="", id="", name="", type="")
    asyncio.run(hook(arguments))
    texts = pki_texts("lab")
    pair = texts["super-admin.crt"] + texts["super-admin.key"]
    assert asked == [(CFG.api_endpoint(load("lab").machines.api_host), texts["ca.crt"], pair)]
    breaks(api, "coredns", "CrashLoopBackOff")
    with pytest.raises(pulumi.RunError, match="--- coredns is not rolled out; 2 of 2 pods serve"):
        asyncio.run(hook(arguments))


@pytest.mark.parametrize(
    ("late", "error"),
    [("kube-apiserver", "--- kube-apiserver is not rolled out"), ("coredns", None), ("kube-scheduler", None)],
)
def test_a_later_tier_waits_for_those_before_it_alone(
    api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch, late: str, error: str | None
) -> None:
    breaks(api, late, "CrashLoopBackOff")
    if error is None:
        changes(api, monkeypatch, "kube-controller-manager")
    else:
        with pytest.raises(pulumi.RunError, match=error):
            changes(api, monkeypatch, "kube-controller-manager")


def test_a_workload_that_does_not_serve_is_changed_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a scheduler the kube-apiserver that is waited for would never be there."""
    breaks(api, "kube-apiserver", "CrashLoopBackOff")
    api.counts["kube-scheduler"] = "2|2|1|0|0|0|0"
    changes(api, monkeypatch, "kube-scheduler")


def changes(api: Api, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What happens before one of the second tier is changed."""

    def made_up(*_: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="https://api", transport=httpx.MockTransport(api.answer))

    monkeypatch.setattr("components.api.client", made_up)
    monkeypatch.setattr("components.rollout._tell", lambda _: None)
    hook: Any = ran("lab").hooks["rollout of kube-apiserver"]
    new = {"metadata": {"name": name}}
    asyncio.run(hook(pulumi.ResourceHookArgs(urn="", id="", name="", type="", new_inputs=new)))


def test_a_step_of_an_earlier_program_is_changed_and_not_replaced() -> None:
    """Its name was another."""
    assert {each.name: each.aliases for each in ran("lab").resources if each.aliases} == {"lab-handover": 1}
