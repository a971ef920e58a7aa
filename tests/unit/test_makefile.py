"""The Makefile's own share: what it runs, and what it makes of a failure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lab import pins

PYTEST = """#!/bin/sh
echo "$2" >> {log}
case $2 in *not*) exit {second} ;; *) exit {first} ;; esac
"""


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=30
    )


def test_help_lists_every_target() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (pins.CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    listed = re.findall(r"^make (\S+) ", make(pins.CHECKOUT).stdout, re.MULTILINE)
    assert sorted(listed) == sorted(targets[1].split())


@pytest.mark.parametrize(
    ("first", "second", "fails", "runs"),
    [(0, 0, False, 2), (1, 0, True, 2), (0, 1, True, 2), (1, 1, True, 2), (2, 0, True, 1)],
)
def test_end_to_end_tests_all_run_unless_interrupted(
    first: int, second: int, fails: bool, runs: int, tmp_path: Path
) -> None:
    shutil.copy(pins.CHECKOUT / "Makefile", tmp_path)
    for name in ("requirements.txt", "lab/requirements.txt", "tests/requirements.txt", ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
    (tmp_path / ".venv/bin/pytest").write_text(
        PYTEST.format(log=tmp_path / "log", first=first, second=second)
    )
    for program in (tmp_path / ".venv/bin").iterdir():
        program.chmod(0o755)
    (tmp_path / ".venv/ready").touch()
    assert (make(tmp_path, "e2e").returncode != 0) == fails
    assert len((tmp_path / "log").read_text().splitlines()) == runs
