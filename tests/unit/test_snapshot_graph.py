"""Snapshots that are asked for: which resources a generation gives."""

from __future__ import annotations

import pytest

from tests.cases import CASES, Case, Raw, read
from tests.sweeps import swept
from tests.unit.recorder import Unknown, has, program


def _with_generation(name: str, generation: int) -> Raw:
    raw = read(name)
    return raw | {"backup": {**raw.get("backup", {}), "generation": generation}}


@pytest.mark.parametrize("case", swept(CASES), indirect=True)
@pytest.mark.parametrize("preview", [False, True])
def test_a_generation_makes_a_snapshot_on_every_controller_once_the_cluster_is_up(
    case: Case, preview: bool
) -> None:
    run = program(_with_generation(case.name, 1), preview=preview)
    steps = [run.only(f"{case.cfg.name}-{name}-backup") for name in case.cfg.controllers]
    handed_over = run.only(f"{case.cfg.name}-handover").urn
    assert all(handed_over in step.dependencies for step in steps)
    known = {
        name: {"path": f"of {step.name}", "sha256": f"of {step.name}"}
        for name, step in zip(case.cfg.controllers, steps, strict=True)
    }
    if preview:
        assert has(Unknown, run.outputs["backups"])
    else:
        assert run.outputs["backups"] == known


@pytest.mark.parametrize("case", swept(CASES), indirect=True)
def test_nothing_but_another_generation_makes_another_snapshot(case: Case) -> None:
    def files(raw: Raw) -> dict[str, bytes]:
        return program(raw, preview=False).only(f"{case.cfg.name}-{case.cfg.controllers[0]}-backup").files

    one, two = (files(_with_generation(case.name, number)) for number in (1, 2))
    protect = not case.cfg.pki.protect
    assert one == files(_with_generation(case.name, 1) | {"pki": {"protect": protect}})
    assert {name for name in one if one[name] != two[name]} == {"generation"}
