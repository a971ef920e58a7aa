"""What `mode: render` does to this machine: a whole asset directory, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cases import read
from tests.unit.recorder import LOCAL, program, revealed
from tests.unit.sandbox import Sandbox

DIRECTORY = "rendered/of lab"


@pytest.fixture
def here(tmp_path: Path) -> Sandbox:
    here = Sandbox(tmp_path)
    here.real("base64", "gzip", "mkdir", "mv", "rm", "tar")
    here.root.joinpath("checkout").mkdir()
    return here


def _render(here: Sandbox) -> tuple[int, str]:
    (assets,) = program(read("lab") | {"mode": "render", "assetDirectory": DIRECTORY}).of(LOCAL)
    done = here.run(
        assets.inputs["create"], stdin=revealed(assets.inputs["stdin"]), here=here.path("checkout")
    )
    return done.returncode, done.stderr


def test_assets_are_private_and_nothing_else_is_written(here: Sandbox) -> None:
    assert _render(here) == (0, "")
    directory = here.path("checkout") / DIRECTORY
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]
    assert (directory.stat().st_mode & 0o777, (directory / "tls/ca.key").stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )
    assert (directory / "manifests/kube-apiserver.yaml").exists()


def test_what_is_there_is_kept(here: Sandbox) -> None:
    edited = here.path("checkout") / DIRECTORY / "edited"
    edited.parent.mkdir(parents=True)
    edited.write_text("mine")
    code, error = _render(here)
    assert code == 1
    assert error == f'kubepivot:assetDirectory = "{DIRECTORY}": it exists; remove it or name another one\n'
    assert [path.name for path in edited.parent.iterdir()] == ["edited"]


def test_a_run_that_was_cut_short_is_made_good(here: Sandbox) -> None:
    here.fake("tar", 'cat >/dev/null; while [ "$1" != -C ]; do shift; done; echo torn >"$2/torn"; exit 1')
    here.real("cat")
    assert _render(here)[0] == 1
    assert not (here.path("checkout") / DIRECTORY).exists()
    here.real("tar")
    assert _render(here) == (0, "")
    assert not (here.path("checkout") / DIRECTORY / "torn").exists()
