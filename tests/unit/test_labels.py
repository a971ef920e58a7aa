"""Labels and taints of the config on living nodes: what is patched, and when."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from typing import Any

import httpx
import pulumi
import pytest

from components.assets.labels import labels_of, labels_patch
from components.config.k8s_names import Taint
from components.hosts.machine import HostSpec
from tests.cases import read
from tests.unit.recorder import Run, program

Object = dict[str, Any]

ROLE = "node-role.kubernetes.io/control-plane"
UNREACHABLE = {
    "key": "node.kubernetes.io/unreachable",
    "effect": "NoExecute",
    "timeAdded": "2026-11-28T12:00:00Z",
}


def host(labels: dict[str, str] | None = None, *taints: str, role: Any = "worker") -> HostSpec:
    return HostSpec(name="a", role=role, labels=labels or {}, taints=tuple(map(Taint.parse, taints)))


def taint(text: str) -> Object:
    found = Taint.parse(text)
    return {"key": found.key, "value": found.value, "effect": found.effect}


def node(labels: dict[str, str] | None = None, *taints: Object) -> Object:
    spec = {"taints": list(taints)} if taints else {}
    return {"metadata": {"name": "a", "resourceVersion": "7", "labels": labels or {}}, "spec": spec}


LABELS: dict[str, Any] = {
    "added": ({}, {"a": "1"}, {}, {"a": "1"}),
    "changed": ({"a": "1"}, {"a": "2"}, {"a": "1"}, {"a": "2"}),
    "removed": ({"a": "1", "b": "1"}, {"b": "1"}, {"a": "1", "b": "1"}, {"a": None}),
    "taken over from an admin": ({}, {"a": "2"}, {"a": "1"}, {"a": "2"}),
    "removed, and by an admin before": ({"a": "1"}, {}, {}, {}),
    "removed, and changed by an admin before": ({"a": "1"}, {}, {"a": "2"}, {}),
    "an admin's": ({}, {}, {"a": "1"}, {}),
    "there already": ({}, {"a": "1"}, {"a": "1"}, {}),
}


@pytest.mark.parametrize(("before", "given", "there", "patched"), LABELS.values(), ids=LABELS)
def test_labels(before: Any, given: Any, there: Any, patched: Any) -> None:
    patch = labels_patch(node(there), host(given), labels_of(host(before)))
    assert patch == ({"metadata": {"resourceVersion": "7", "labels": patched}} if patched else None)


TAINTS: dict[str, Any] = {
    "added": ([], ["a=1:NoSchedule"], [UNREACHABLE], [UNREACHABLE, taint("a=1:NoSchedule")]),
    "changed": (["a=1:NoSchedule"], ["a=2:NoSchedule"], [taint("a=1:NoSchedule")], [taint("a=2:NoSchedule")]),
    "removed": (["a=1:NoSchedule"], [], [taint("a=1:NoSchedule"), UNREACHABLE], [UNREACHABLE]),
    "with another effect": (
        ["a=1:NoSchedule"],
        ["a=1:NoExecute"],
        [taint("a=1:NoSchedule")],
        [taint("a=1:NoExecute")],
    ),
    "without a value": ([], ["a:NoSchedule"], [{"key": "a", "effect": "NoSchedule"}], None),
    "removed, and changed by an admin before": (["a=1:NoSchedule"], [], [taint("a=2:NoSchedule")], None),
    "an admin's": (
        ["a=1:NoSchedule"],
        ["a=1:NoSchedule"],
        [taint("b:NoExecute"), taint("a=1:NoSchedule")],
        None,
    ),
}


@pytest.mark.parametrize(("before", "given", "there", "patched"), TAINTS.values(), ids=TAINTS)
def test_taints(before: Any, given: Any, there: Any, patched: Any) -> None:
    patch = labels_patch(node(None, *there), host(None, *given), labels_of(host(None, *before)))
    expected = {"metadata": {"resourceVersion": "7", "labels": {}}, "spec": {"taints": patched}}
    assert patch == (None if patched is None else expected)


def test_a_controllers_own_taint_is_the_admins_unless_the_config_names_it() -> None:
    """Who takes it away has one node for everything."""
    controller, named = (host(None, *taints, role="controller") for taints in ([], [f"{ROLE}:NoSchedule"]))
    nothing = labels_of(controller)
    assert labels_patch(node(), controller, nothing) is None
    assert labels_patch(node(None, taint(f"{ROLE}:NoSchedule")), controller, labels_of(named)) is None


# -- the stage -----------------------------------------------------------------------------------------------

NAME = "labels of worker-1"


@cache
def labelled() -> Run:
    raw = read("lab")
    raw["hosts"]["worker-1"] |= {"labels": {"a": "b"}, "taints": ["c=d:NoSchedule"]}
    return program(raw)


class Api:
    """A made-up API with one Node, or none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, there: Object | None) -> None:
        self.node = there
        self.asked: list[str] = []
        self.answers: list[httpx.Response] = []
        """In place of the next ones."""
        self.now = 0.0
        monkeypatch.setattr("components.api.client", self._client)
        monkeypatch.setattr("components.api.monotonic", lambda: self.now)
        monkeypatch.setattr("components.api.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _client(self, *_: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="https://api", transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v1/nodes/worker-1"
        self.asked.append(request.method)
        if self.answers:
            return self.answers.pop(0)
        if self.node is None:
            return httpx.Response(404, json={"message": 'nodes "worker-1" not found'})
        if request.method == "PATCH":
            assert request.headers["Content-Type"] == "application/merge-patch+json"
            patch = json.loads(request.content)
            self.node = {**self.node, "spec": {**self.node["spec"], **patch.get("spec", {})}}
            self.node["metadata"]["labels"] |= patch["metadata"]["labels"]
        return httpx.Response(200, json=self.node)

    def follow(self, before: Object | None, name: str = NAME) -> None:
        hook: Any = labelled().hooks[name]
        old = None if before is None else {"input": before}
        asyncio.run(hook(pulumi.ResourceHookArgs(urn="", id="", name="", type="", old_inputs=old)))


def test_labels_and_taints_are_recorded_after_the_hosts_step_and_shown_by_a_preview() -> None:
    run = labelled()
    record = run.only("lab-worker-1-labels")
    assert record.inputs == {"input": {"labels": {"a": "b"}, "taints": ["c=d:NoSchedule"]}}
    assert {run.only("lab-worker-1-node").urn, run.only("lab-bootstrap").urn} <= record.dependencies
    assert record.before_create == record.before_update == (NAME,)
    options = run.hooks[NAME].opts
    assert not (options and options.on_dry_run)


def test_the_node_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(monkeypatch, node({"a": "0", "z": "1"}, UNREACHABLE))
    api.answers = [httpx.Response(503), httpx.Response(200, json=api.node), httpx.Response(409, json={})]
    api.follow({"labels": {"z": "1"}, "taints": []})
    assert api.node is not None
    assert api.node["metadata"]["labels"] == {"a": "b", "z": None}
    assert api.node["spec"]["taints"] == [UNREACHABLE, taint("c=d:NoSchedule")]
    assert api.asked == ["GET", "GET", "PATCH", "GET", "PATCH"]
    assert api.now == 2


def test_what_is_right_is_not_written_and_a_host_without_any_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = Api(monkeypatch, node({"a": "b"}, taint("c=d:NoSchedule")))
    api.follow(None)
    assert api.asked == ["GET"]
    api.follow(None, "labels of controller-1")
    assert api.asked == ["GET"]


@pytest.mark.parametrize("before", [None, {"labels": {"z": "1"}, "taints": []}])
def test_a_node_that_is_not_there_registers_with_them(
    monkeypatch: pytest.MonkeyPatch, before: Object | None
) -> None:
    api = Api(monkeypatch, None)
    api.follow(before)
    assert (api.asked, api.now) == (["GET"], 0)


@pytest.mark.parametrize(
    ("answer", "why", "seconds"),
    [(503, "the API does not answer: HTTPStatusError", 60), (403, "the API refuses it: no webhook", 0)],
)
def test_a_node_that_can_t_be_changed_is_told(
    monkeypatch: pytest.MonkeyPatch, answer: int, why: str, seconds: float
) -> None:
    api = Api(monkeypatch, node())
    api.answers = [httpx.Response(answer, json={"message": "no webhook"}) for _ in range(100)]
    with pytest.raises(pulumi.RunError, match=rf"^node worker-1 may lack .*, for {why}.*'pulumi up' again$"):
        api.follow(None)
    assert api.now == seconds
