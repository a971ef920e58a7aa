"""What was cut short is taken back: its intent is another one, whichever way the values go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from components.assets.manifests import WORKLOAD_KINDS
from components.selfhosted import INTENT
from tests.cases import Case, Raw, read
from tests.unit.recorder import REMOTE, Registered, Run, program

STASH = "pulumi:index:Stash"


def _workloads(run: Run) -> list[Registered]:
    return [each for each in run.of("kubernetes:") if each.type.rpartition(":")[2] in WORKLOAD_KINDS]


def _nodes(run: Run) -> list[Registered]:
    return [each for each in run.of(REMOTE) if each.name.endswith("-node")]


def test_an_intent_is_recorded_before_its_resource_changes_and_after_what_may_refuse_the_change(
    up: Run, case: Case
) -> None:
    version = up.only("kubernetes-version").urn
    assert _nodes(up) and _workloads(up)
    for each in (*_nodes(up), *_workloads(up)):
        intent = up.only(f"{each.name}-intent")
        assert intent.urn in each.dependencies, each.name
        assert version in intent.dependencies, each.name
        assert intent.replaced_by == ("input",)
    for step in _nodes(up):
        assert step.files["token"].decode() == f"{step.name}-intent-id"
    for workload in _workloads(up):
        assert workload.inputs["metadata"]["annotations"][INTENT] == f"{workload.name}-intent-id"
        template = workload.inputs["spec"]["template"]
        assert INTENT not in template["metadata"].get("annotations", {}), "its pods would roll"
    assert {each.name for each in up.of(STASH) if each.name.endswith("-intent")} == {
        f"{each.name}-intent" for each in (*_nodes(up), *_workloads(up))
    }


def engine() -> Callable[[Raw], Run]:
    """Runs the program again and again. As with Pulumi's, an intent of another content has another id."""
    ids: dict[str, tuple[Any, str]] = {}
    numbers = count()

    def stash(name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if name not in ids or ids[name][0] != inputs["input"]:
            ids[name] = (inputs["input"], f"{name}-{next(numbers)}")
        return {"id": ids[name][1]}

    return lambda raw: program(raw, answers={STASH: stash})


def _other(run: Run, than: Run) -> set[str]:
    """Names of resources, without records, that a run wants to be other than an earlier one did."""
    before = than.by_urn
    return {
        each.name.removeprefix("lab-")
        for each in run.resources
        if each.type != STASH and each.plain != before[each.urn]
    }


ROLLED = {"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"}
HOSTS = ("controller-1", "worker-1")


def test_a_version_that_is_put_back_changes_all_that_may_have_got_the_other_one() -> None:
    """Killed at any moment, the state has some resources as they were before and some as they were to be."""
    older, newer = (read("lab") | {"kubernetesVersion": version} for version in ("1.36.1", "1.36.3"))
    run = engine()
    before, killed, back = run(older), run(newer), run(older)
    everything = _other(killed, before)
    nodes = {f"{host}-node" for host in HOSTS}
    assert everything >= {*ROLLED, *nodes, "handover", *(f"{host}-download" for host in HOSTS)}
    assert _other(back, before) == {*ROLLED, *nodes, "handover"}
    assert _other(back, killed) == everything
    assert _other(run(older), back) == set()


def test_a_flag_that_is_put_back_changes_one_workload() -> None:
    run, changed = engine(), read("lab") | {"flags": {"kube-scheduler": {"v": "3"}}}
    before, killed, back = run(read("lab")), run(changed), run(read("lab"))
    assert _other(killed, before) == _other(back, before) | {"bootstrap"}
    assert _other(back, before) == {"kube-scheduler", "handover"}
