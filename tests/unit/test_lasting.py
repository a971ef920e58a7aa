"""A living cluster keeps the values that it was made with, and the state alone tells which they were."""

from __future__ import annotations

import asyncio
from typing import Any

import pulumi
import pytest

from tests.cases import Raw, read
from tests.unit.recorder import program

HOOK = "values-of-a-living-cluster"
CASES = {"lab": "lab-bootstrap", "baremetal": "metal-bootstrap"}


def refusal(case: str, changed: Raw) -> str | None:
    """What is said to a config when the cluster was made with the case's."""
    old = program(read(case)).only(CASES[case]).plain
    hook = program(read(case) | changed).hooks[HOOK]

    async def run() -> None:
        inputs = {**old, "stdin": pulumi.Output.secret(old["stdin"])}
        said: Any = hook(pulumi.ResourceHookArgs(urn="", id="", name="", type="", old_inputs=inputs))
        await said

    try:
        asyncio.run(run())
    except pulumi.RunError as error:
        return str(error)
    return None


@pytest.mark.parametrize("case", CASES)
def test_the_step_that_starts_the_cluster_is_held_to_it_in_a_preview_too(case: str) -> None:
    run = program(read(case), preview=True)
    assert [each.name for each in run.resources if each.before_update] == [CASES[case]]
    assert run.only(CASES[case]).before_update == (HOOK,)
    options = run.hooks[HOOK].opts
    assert options is not None
    assert options.on_dry_run


@pytest.mark.parametrize(
    ("case", "changed", "value", "living"),
    [
        ("lab", {"network": {"pods": "10.64.0.0/16"}}, 'network.pods = "10.64.0.0/16"', "10.2.0.0/16"),
        ("lab", {"network": {"services": "10.3.0.0/20"}}, 'network.services = "10.3.0.0/20"', "10.3.0.0/16"),
        ("lab", {"network": {"domain": "a.b"}}, 'network.domain = "a.b"', "cluster.local"),
        ("lab", {"api": {"port": 8443}}, "api.port = 8443", "6443"),
        ("lab", {"api": {"host": "a.b"}}, 'api.host = "a.b"', "172.30.0.11"),
        ("baremetal", {"network": {}}, 'network.pods = "10.2.0.0/16"', "10.64.0.0/16"),
        ("baremetal", {"api": {"host": "b.c"}}, 'api.host = "b.c"', "api.example.com"),
    ],
)
def test_another_value_is_refused_and_the_old_one_told(
    case: str, changed: Raw, value: str, living: str
) -> None:
    error = refusal(case, changed)
    assert error is not None
    assert f"kubepivot:{value}: the cluster lives with {living} " in error
    assert "put that back" in error


def test_all_of_them_are_told_at_once() -> None:
    error = refusal("lab", {"network": {"pods": "10.64.0.0/16"}, "api": {"host": "a.b", "port": 8443}})
    assert error is not None
    assert error.count("the cluster lives with") == 3
    assert "\n" not in error


@pytest.mark.parametrize("case", CASES)
def test_other_changes_are_let_through(case: str) -> None:
    assert refusal(case, {}) is None
    assert refusal(case, {"flags": {"kube-apiserver": {"event-ttl": "3h"}}}) is None
