"""What the program asks for when a recovery is asked for."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pulumi
import pytest
import yaml

from components.assets.bootstrap import bootstrap_files
from components.assets.handover import HANDOVER_SECONDS, handover_files
from components.assets.manifests import OWNER
from components.assets.recovery import recovery_files
from components.assets.templates import script
from components.config import parse
from components.selfhosted import INTENT
from tests.cases import Raw, load, read
from tests.sweeps import swept
from tests.unit.recorder import REMOTE, Run, pki_texts, program, ran, revealed


def recovered() -> Run:
    """The lab's recovery."""
    return program(recovering("lab"))


def recovering(name: str, **recovery: Any) -> Raw:
    return read(name) | {"recovery": {"generation": 1, **recovery}}


@pytest.mark.parametrize("name", swept(["lab", "baremetal"]))
def test_a_recovery_adds_a_step_and_changes_nothing_else(name: str) -> None:
    before, after = ran(name).by_urn, program(recovering(name)).by_urn
    record, step = sorted(after.keys() - before.keys(), reverse=True)
    assert (record.rpartition("-")[2], step.rpartition("-")[2]) == ("recovery", "recover")
    assert {urn: after[urn] for urn in before} == before


def test_generation_0_asks_for_none() -> None:
    case = load("lab")
    assert parse(case.raw | {"recovery": {"generation": 0}}, stack=case.name) == case.cfg


@pytest.mark.parametrize("preview", swept([False, True]))
@pytest.mark.parametrize(("chosen", "controller"), swept([({"controller": "gamma"}, "gamma"), ({}, "alpha")]))
def test_the_step_runs_on_the_chosen_controller(
    chosen: dict[str, str], controller: str, preview: bool
) -> None:
    run, case = program(recovering("baremetal", **chosen), preview=preview), load("baremetal")
    step = run.only("metal-recover")
    assert revealed(step.inputs["connection"])["host"] == case.cfg.hosts[controller].address
    # The cluster's own steps stay where they are: another host would replace them and all objects.
    for other in ("bootstrap", "handover"):
        connection = revealed(run.only(f"metal-{other}").inputs["connection"])
        assert connection["host"] == case.cfg.hosts["alpha"].address


def test_the_step_comes_after_the_nodes_and_before_everything_that_needs_an_api() -> None:
    run = recovered()
    step = run.only("lab-recover")
    assert {run.only(f"lab-{host}-node").urn for host in load("lab").cfg.hosts} <= step.dependencies
    for each in [run.only("lab-bootstrap"), run.only("lab-handover"), *run.of("kubernetes:")]:
        assert step.urn in run.before(each), each.name


def test_the_user_reads_what_a_recovery_does_and_of_no_other_step() -> None:
    shown = {step.name: step.inputs["logging"] for step in recovered().of(REMOTE)}
    assert {name for name, logging in shown.items() if logging != "none"} == {"lab-recover"}
    assert shown["lab-recover"] == "stderr"


def test_a_raised_generation_runs_the_step_again_and_no_other() -> None:
    state = recovered()
    preview = program(read("lab") | {"recovery": {"generation": 2}}, preview=True, state=state)
    before, after = state.by_urn, preview.by_urn
    assert {urn.rpartition("::")[2] for urn in after if after[urn] != before.get(urn)} == {
        "lab-recover",
        "lab-recovery",
    }


@pytest.mark.parametrize("preview", swept([True, False]))
def test_a_generation_is_carried_out_on_one_controller(preview: bool) -> None:
    """On another one it would be carried out again, in a cluster that has lived on since."""
    run = program(recovering("baremetal"), preview=preview)
    record = run.only("metal-recovery")
    assert record.urn in run.only("metal-recover").dependencies
    assert record.inputs["input"] == {"generation": 1, "controller": "alpha"}
    assert record.before_update == ("recovery",)
    hook: Any = run.hooks["recovery"]
    assert hook.opts.on_dry_run

    def update(**former: Any) -> None:
        old = {"input": former}
        asyncio.run(hook(pulumi.ResourceHookArgs(urn="", id="", name="", type="", old_inputs=old)))

    update(generation=0, controller="gamma")
    with pytest.raises(pulumi.RunError, match="generation 2 was carried out on gamma"):
        update(generation=2, controller="gamma")
    with pytest.raises(pulumi.RunError) as raised:
        update(generation=1, controller="gamma")
    assert str(raised.value).startswith(
        'kubepivot:recovery.controller = "alpha": generation 1 was carried out on gamma: put that there, or '
        "raise kubepivot:recovery.generation"
    )


def test_it_outlasts_the_deadlines_of_its_scripts() -> None:
    run = recovered()
    seconds = {
        name: int(*re.findall(r"timeout (\d+) sh", run.only(f"lab-{name}").inputs["create"]))
        for name in ("recover", "handover")
    }
    own = "".join(script(name) for name in ("recover", "bootstrap"))
    assert seconds["recover"] > seconds["handover"] + sum(map(int, re.findall(r"wait_for (\d+)", own)))
    assert seconds["handover"] == HANDOVER_SECONDS


def test_it_brings_the_steps_as_they_are_and_every_object_as_the_provider_gets_it() -> None:
    run, texts = recovered(), pki_texts("lab")
    cfg, machines = load("lab").cfg, load("lab").machines
    machine = machines["controller-1"]
    files = {path: data.decode() for path, data in run.only("lab-recover").files.items()}
    for step, brought in {
        "bootstrap": bootstrap_files(cfg, machine, machines, texts),
        "handover": handover_files(cfg, machine, machines, texts),
    }.items():
        assert files[f"{step}/run"] == script(step)
        for path, file in brought.items():
            assert files[f"{step}/{path}"] == file.text, path
    manifests = {path: yaml.safe_load(text) for path, text in files.items() if path.startswith("manifests/")}
    for line in files["token"].splitlines():
        workload, intent = line.split()
        (manifest,) = [
            each for each in manifests.values() if f"{each['kind']}/{each['metadata']['name']}" == workload
        ]
        manifest["metadata"]["annotations"][INTENT] = intent
    given = {
        f"manifests/{each.name.removeprefix('lab-')}.yaml": each.plain
        for each in run.of("kubernetes:")
        if not each.type.endswith("Patch")
    }
    assert manifests == given
    for manifest in manifests.values():
        assert OWNER.items() <= manifest["metadata"]["annotations"].items()


def test_what_is_secret_is_in_private_files() -> None:
    case = load("lab")
    for path, file in recovery_files(
        case.cfg, case.machines["controller-1"], case.machines, case.texts
    ).items():
        secret = any(
            mark in file.text for mark in ("PRIVATE KEY", "key-data", "kind: Secret", "token-secret")
        )
        assert file.mode == 0o600 or not secret, path
