"""The order of an upgrade, and what is done before a host's turn."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import httpx
import pulumi
import pytest

from components.config.releases import LATEST
from components.ssh import DONE
from tests.cases import read
from tests.sweeps import swept
from tests.unit.recorder import ANSWERS, REMOTE, Run, program, ran

FIRST, LEADERS = "kube-apiserver", ("kube-controller-manager", "kube-scheduler")
AFTER_FIRST = ("rollout of kube-apiserver",)
LAST = ("rollout of kube-apiserver, kube-controller-manager, kube-scheduler",)


@cache
def changed(workers: int, change: str = "a-change") -> Run:
    """A run with so many workers, in which every host says that it has staged something."""

    def remote(name: str, inputs: Any) -> dict[str, Any]:
        if name.endswith("-node"):
            return {"stdout": f"change={change}\n{DONE}", "stderr": ""}
        return ANSWERS[REMOTE](name, inputs)

    return program(with_workers(workers), answers={REMOTE: remote})


def with_workers(count: int, **more: Any) -> dict[str, Any]:
    raw = read("lab")
    workers = {
        f"worker-{number}": {"role": "worker", "address": f"172.30.0.{20 + number}"}
        for number in range(1, count + 1)
    }
    controller = {"controller-1": raw["hosts"]["controller-1"]}
    return raw | {"hosts": controller | workers} | more


def test_workloads_are_made_together_and_changed_tier_by_tier() -> None:
    run = ran("lab")
    first = run.only(f"lab-{FIRST}")
    leaders = [run.only(f"lab-{name}") for name in LEADERS]
    others = [
        run.only(f"lab-{name}")
        for name in ("coredns-deployment", "flannel", "kube-proxy", "pod-checkpointer")
    ]
    assert first.before_update == ()
    assert {each.before_update for each in leaders} == {AFTER_FIRST}
    assert {each.before_update for each in others} == {LAST}
    assert not any(each.before_create for each in (first, *leaders, *others))
    assert all(first.urn in each.dependencies for each in leaders)
    for each in others:
        assert {first.urn, *(leader.urn for leader in leaders)} <= each.dependencies
    gates = {name: hook for name, hook in run.hooks.items() if name.startswith(("rollout", "drain"))}
    assert gates and not any(each.opts for each in gates.values())


@pytest.mark.parametrize(
    ("at_once", "after"),
    swept(
        [
            (2, {"worker-1": "", "worker-2": "controller-1", "worker-3": "worker-1"}),
            (1, {"worker-1": "controller-1", "worker-2": "worker-1", "worker-3": "worker-2"}),
            (9, {"worker-1": "", "worker-2": "", "worker-3": ""}),
        ]
    ),
)
def test_hosts_take_turns_after_the_control_plane(at_once: int, after: dict[str, str]) -> None:
    run = program(with_workers(3, upgrade={"maxUnavailable": at_once}))
    steps = {name: run.only(f"lab-{name}-upgrade") for name in ("controller-1", *after)}
    handover = run.only("lab-handover").urn
    urns = {step.urn: name for name, step in steps.items()}
    for name, step in steps.items():
        assert handover in step.dependencies
        turns = [urns[urn] for urn in step.dependencies if urn in urns]
        assert turns == ([after[name]] if after.get(name) else []), name


def test_a_new_host_has_nothing_to_swap_in() -> None:
    step = ran("lab").only("lab-worker-1-upgrade")
    assert "create" not in step.inputs
    assert step.inputs["update"].startswith(f"# kubelet {LATEST}, containerd ")
    assert step.files["change"] == b"none"


def test_what_is_staged_when_the_step_is_made_is_swapped_in() -> None:
    """A run that was killed before the step was made may be followed by one with another version."""
    step = changed(2).only("lab-worker-1-upgrade")
    assert step.inputs["create"] == step.inputs["update"]


# -- the drain -----------------------------------------------------------------------------------------------


def node(name: str, version: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": "1"},
        "spec": spec,
        "status": {
            "nodeInfo": {"kubeletVersion": version},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


class Seen:
    """What the hook did: which nodes it drained, and what it said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]]) -> None:
        self.cordoned: list[str] = []
        self.drained: list[str] = []
        self.said: list[str] = []
        self.problems: list[str] = []
        self.cordon_problems: list[str] = []

        async def cordon(_: Any, name: str) -> list[str]:
            await asyncio.sleep(0)
            (found,) = [each for each in nodes if each["metadata"]["name"] == name]
            found["spec"]["unschedulable"] = True
            self.cordoned.append(name)
            return self.cordon_problems

        async def drain(_: Any, name: str, rules: Any, __: Any) -> list[str]:
            assert name in self.cordoned
            assert (rules.seconds, rules.delete_empty_dir, rules.force) == (300, False, False)
            self.drained.append(name)
            return self.problems

        def client(*_: str) -> httpx.AsyncClient:
            answer = httpx.MockTransport(lambda _: httpx.Response(200, json={"items": nodes}))
            return httpx.AsyncClient(base_url="https://api", transport=answer)

        monkeypatch.setattr("components.api.client", client)
        monkeypatch.setattr("components.upgrade.cordon", cordon)
        monkeypatch.setattr("components.upgrade.drain", drain)
        monkeypatch.setattr("pulumi.log.info", lambda text, **_: self.said.append(text))

    def run(self, change: str = "a-change") -> None:
        """What happens before worker-1's turn."""
        run = changed(2, change)
        assert run.only("lab-worker-1-upgrade").before_update == ("drain of worker-1",)
        hook: Any = run.hooks["drain of worker-1"]
        asyncio.run(hook(pulumi.ResourceHookArgs(urn="", id="", name="", type="")))


OLD, NEW = "v1.36.3", f"v{LATEST}"


@pytest.mark.parametrize(
    ("nodes", "change", "drained"),
    [
        ([node("worker-1", OLD), node("worker-2", OLD)], "a-change", ["worker-1"]),
        ([node("worker-1", NEW), node("worker-2", OLD)], "a-change", []),
        ([node("worker-1", OLD), node("worker-2", OLD)], "none", []),
        ([node("worker-2", OLD)], "a-change", []),
    ],
    ids=["another version", "only restarted", "nothing staged", "no node"],
)
def test_a_host_is_drained_when_its_kubelet_becomes_another_version(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]], change: str, drained: list[str]
) -> None:
    seen = Seen(monkeypatch, nodes)
    seen.run(change)
    assert seen.drained == drained


def test_pods_that_no_other_node_can_take_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, [node("worker-1", OLD), node("worker-2", OLD, unschedulable=True)])
    seen.run()
    assert seen.drained == []
    assert any("worker-1 is not drained" in each for each in seen.said)


def test_two_hosts_at_once_do_not_rely_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither would be there to take the other's pods."""
    taints = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
    controller = node("controller-1", NEW, taints=taints)
    seen = Seen(monkeypatch, [controller, node("worker-1", OLD), node("worker-2", OLD)])
    run = changed(2)

    async def both() -> None:
        args = pulumi.ResourceHookArgs(urn="", id="", name="", type="")
        hooks: list[Any] = [run.hooks[f"drain of worker-{number}"] for number in (1, 2)]
        await asyncio.gather(*(hook(args) for hook in hooks))

    asyncio.run(both())
    assert seen.drained == ["worker-1"]
    assert any("worker-2 is not drained" in each for each in seen.said)


def test_a_node_that_cannot_be_cordoned_is_not_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, [node("worker-1", OLD), node("worker-2", OLD)])
    seen.cordon_problems = ["node worker-1 can't be cordoned"]
    with pytest.raises(pulumi.RunError, match=r"^node worker-1 can't be cordoned\n"):
        seen.run()
    assert seen.drained == []


HOW_FAR = f"with kubelet {NEW}: controller-1; not yet: worker-1 ({OLD}), worker-2 (no node)"


def test_a_drain_that_fails_tells_how_far_it_is_and_both_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, [node("controller-1", NEW), node("worker-1", OLD)])
    seen.problems = ["node worker-1 can't be drained"]
    with pytest.raises(pulumi.RunError) as error:
        seen.run()
    first, second, *ways = str(error.value).splitlines()
    assert (first, second) == ("node worker-1 can't be drained", HOW_FAR)
    assert "run 'pulumi up' again" in ways[0] and "put the former values back" in ways[0]


def test_a_host_that_fails_tells_how_far_it_is_and_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Seen(monkeypatch, [node("controller-1", NEW), node("worker-1", OLD)])
    said: list[str] = []
    monkeypatch.setattr("pulumi.log.error", said.append)
    run = changed(2)
    assert run.only("lab-worker-1-upgrade").on_error == ("failure of worker-1",)
    hook: Any = run.error_hooks["failure of worker-1"]
    args = pulumi.ErrorHookArgs(
        urn="", id="", name="", type="", failed_operation="update", errors=["it failed"]
    )
    assert asyncio.run(hook(args)) is False
    assert said == [HOW_FAR]
