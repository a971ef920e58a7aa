"""The Makefile's own share: what it runs, and what it makes of a failure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import pins

PYTEST = """#!/bin/sh
echo "$*" >> {log}
case $* in *tests/*) exit {check} ;; *) exit {clusters} ;; esac
"""


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    environment |= {"XDG_CACHE_HOME": str(directory / "cache")}
    return subprocess.run(
        ["make", *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=30
    )


def test_help_lists_every_target() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (pins.CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    listed = re.findall(r"^make (\S+) ", make(pins.CHECKOUT).stdout, re.MULTILINE)
    assert sorted(listed) == sorted(targets[1].split())


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., list[str]]:
    """Makes a target where pytest ends as told, and returns the arguments of its runs."""
    shutil.copy(pins.CHECKOUT / "Makefile", tmp_path)
    for name in ("requirements.txt", "lab/requirements.txt", "tests/requirements.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (tmp_path / ".venv/ready").touch()

    def run(*arguments: str, check: int = 0, clusters: int = 0, fails: bool = False) -> list[str]:
        log = tmp_path / "log"
        log.write_text("")
        for name in ("python", "ruff", "mypy"):
            (programs / name).write_text("#!/bin/sh\n")
        (programs / "pytest").write_text(PYTEST.format(log=log, check=check, clusters=clusters))
        for program in programs.iterdir():
            program.chmod(0o755)
        done = make(tmp_path, *arguments)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return log.read_text().splitlines()

    return run


def test_the_life_of_clusters_comes_after_a_check_that_passed(fake: Callable[..., list[str]]) -> None:
    check, sweeps, plugins, lives = fake("test")
    assert check.endswith("-m not e2e and not sweep") and sweeps == check.replace("not e2e and not ", "")
    assert plugins.endswith("tests/plugins -m not e2e")
    assert lives == "-m e2e and life"
    assert len(fake("test", check=1, fails=True)) == 1


@pytest.mark.parametrize("found", ["a failure", "no test"])
def test_what_fails_on_clusters_fails_the_target(fake: Callable[..., list[str]], found: str) -> None:
    code = {"a failure": 1, "no test": 5}[found]
    assert len(fake("test", clusters=code, fails=True)) == 4
    assert len(fake("scenarios", "NAME=nothing", clusters=code, fails=True)) == 1


def test_scenarios_are_all_one_part_or_what_has_a_name(fake: Callable[..., list[str]]) -> None:
    for run in fake("scenarios"):
        assert "-m e2e and not life " in run and "--slice=1/1" in run
    for run in fake("scenarios", "SLICE=2/8"):
        assert "-m e2e and not life " in run and "--slice=2/8" in run
    for run in fake("scenarios", "SLICE=2/8", "WITHOUT=builds"):
        assert "-m e2e and not life and not builds " in run and "--slice=2/8" in run
    for run in fake("scenarios", "NAME=reboot"):
        assert "-k reboot" in run and "not life" not in run and "--slice" not in run


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("commits", "part"), [(0, 1), (7, 8), (8, 1), (9, 2)])
def test_a_ci_machine_takes_the_parts_in_turn(commits: int, part: int, cached: bool, tmp_path: Path) -> None:
    """Of a checkout that is no clone, the first. A machine without caches builds no other releases."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(pins.CHECKOUT / ".ci/run", tmp_path / ".ci")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "make").write_text('#!/bin/sh\necho "make $*"\n')
    (programs / "git").write_text(f"#!/bin/sh\n[ {commits} -ne 0 ] && echo {commits}\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    run = [tmp_path / ".ci/run"]
    if cached:
        (tmp_path / ".cache/kubepivot/toolchain").mkdir(parents=True)
    environment = {"PATH": path, "HOME": str(tmp_path)}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=30, check=True)
    without = "" if cached else "builds"
    assert done.stdout.splitlines() == ["make test", f"make scenarios SLICE={part}/8 WITHOUT={without}"]
