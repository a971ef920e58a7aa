"""A living cluster keeps the values that it was made with, and the state alone tells which they were."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pulumi
import pytest

from components.archive import pack
from components.assets.bootstrap import bootstrap_files
from components.config import ClusterConfig, parse
from components.hosts.machine import configured_machines
from components.lasting import changed
from components.living_cluster import lasting, made_with
from tests.cases import Case, Raw, load
from tests.unit.recorder import ran


def brought(cfg: ClusterConfig, case: Case) -> str:
    """What the step that starts a cluster brings."""
    files = bootstrap_files(cfg, case.machines[cfg.bootstrap_controller], case.machines, case.texts)
    return base64.b64encode(pack(files)).decode()


def told(name: str, change: Raw) -> list[str]:
    """What is said of a changed config when the cluster was made with the case's."""
    case = load(name)
    cfg = parse(case.raw | change, stack=name)
    wanted = lasting(cfg, configured_machines(cfg).api_host)
    told = changed(wanted, lasting(case.cfg, case.machines.api_host))
    # A state of before has no record, and what started the cluster says as much of all that stands in it.
    known = changed(wanted, made_with(brought(case.cfg, case)))
    assert [each for each in told if each.key.rpartition(":")[2] != "name"] == known
    return list(map(str, told))


@pytest.mark.parametrize(
    ("case", "change", "value", "living"),
    [
        ("lab", {"network": {"pods": "10.64.0.0/16"}}, 'network.pods = "10.64.0.0/16"', "10.2.0.0/16"),
        ("lab", {"network": {"services": "10.3.0.0/20"}}, 'network.services = "10.3.0.0/20"', "10.3.0.0/16"),
        ("lab", {"network": {"domain": "a.b"}}, 'network.domain = "a.b"', "cluster.local"),
        ("lab", {"api": {"port": 8443}}, 'api.port = "8443"', "6443"),
        ("lab", {"api": {"host": "a.b"}}, 'api.host = "a.b"', "172.30.0.11"),
        ("baremetal", {"api": {"host": "b.c", "port": 8443}}, 'api.host = "b.c"', "api.example.com"),
        ("lab", {"name": "prod"}, 'name = "prod"', "lab"),
    ],
)
def test_another_value_is_refused_and_the_old_one_told(
    case: str, change: Raw, value: str, living: str
) -> None:
    (problem,) = told(case, change)
    assert problem == (
        f"kubepivot:{value}: the cluster lives with {living} and would not outlast the change: "
        "put that back, or destroy the cluster first"
    )


def test_all_of_them_are_told_at_once() -> None:
    assert len(told("baremetal", {"network": {}, "api": {"host": "b.c"}})) == 5


@pytest.mark.parametrize("case", ["lab", "baremetal"])
def test_other_changes_are_let_through(case: str) -> None:
    assert told(case, {}) == []
    assert told(case, {"flags": {"kube-apiserver": {"event-ttl": "3h"}}}) == []


def test_the_step_that_starts_a_cluster_is_held_to_it_in_a_preview_too() -> None:
    run, case = ran("lab"), load("lab")
    (name,) = run.only("lab-bootstrap").before_update
    assert [each.name for each in run.resources if name in each.before_update] == ["lab-bootstrap"]
    hook = run.hooks[name]
    assert hook.opts is not None
    assert hook.opts.on_dry_run

    async def update(archive: str) -> None:
        inputs = {"stdin": pulumi.Output.secret(archive)}
        called: Any = hook(pulumi.ResourceHookArgs(urn="", id="", name="", type="", old_inputs=inputs))
        await called

    asyncio.run(update(run.only("lab-bootstrap").plain["stdin"]))
    other = parse(case.raw | {"api": {"port": 8443}}, stack="lab")
    with pytest.raises(pulumi.RunError, match=r'api\.port = "6443": the cluster lives with 8443'):
        asyncio.run(update(brought(other, case)))


def test_controllers_neither_come_nor_go_nor_change_places() -> None:
    case = load("lab")
    hosts = case.raw["hosts"]
    worker = {"role": "worker", "address": "172.30.0.31"}
    second = {"role": "controller", "address": "172.30.0.12"}
    assert told("lab", {"hosts": hosts | {"worker-9": worker}}) == []
    (more,) = told("lab", {"hosts": hosts | {"controller-2": second}, "api": {"host": "172.30.0.11"}})
    assert more.startswith(
        'kubepivot:hosts = "controllers controller-1, controller-2": the cluster lives with controllers '
        "controller-1 "
    )
    swapped = {
        name: host | {"role": "worker" if host["role"] == "controller" else "controller"}
        for name, host in hosts.items()
        if name in ("controller-1", "worker-1")
    }
    assert any("hosts = " in each for each in told("lab", {"hosts": swapped}))


def test_the_record_meets_another_name_and_another_first_controller() -> None:
    """Its URN is the same whatever the config; made when the cluster has begun, it holds previews too."""
    lab, metal = ran("lab"), ran("baremetal")
    assert lab.only("lasting").urn.rpartition("::")[2] == metal.only("lasting").urn.rpartition("::")[2]
    assert any(urn.endswith("lab-bootstrap") for urn in lab.only("lasting").dependencies)
    (name,) = lab.only("lasting").before_update
    hook: Any = lab.hooks[name]
    assert hook.opts is not None
    assert hook.opts.on_dry_run

    async def update(recorded: dict[str, str]) -> None:
        await hook(pulumi.ResourceHookArgs(urn="", id="", name="", type="", old_inputs={"input": recorded}))

    recorded = lab.only("lasting").plain["input"]
    asyncio.run(update(recorded))
    with pytest.raises(pulumi.RunError, match='name = "lab": the cluster lives with former'):
        asyncio.run(update(recorded | {"name": "former"}))
