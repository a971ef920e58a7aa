"""apt on this machine: one run at a time, and an error that says what apt said. apt itself is imitated."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab import apt
from lab.errors import LabError

APT_GET = """#!/bin/sh
mkdir {lock} || {{ echo "E: Could not get lock"; exit 100; }}
echo "$*" >> {log}
sleep 0.1
rmdir {lock}
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an apt-get that fails beside another one writes its arguments."""
    program = tmp_path / "apt-get"
    program.write_text(APT_GET.format(lock=tmp_path / "lock", log=tmp_path / "log"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "log"


def test_runs_at_once_take_turns(log: Path) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(apt.install, ("gcc", "mmdebstrap")))
    calls = [line.split(" ", 2)[2] for line in log.read_text().splitlines()]
    assert calls[::2] == ["update", "update"]
    assert {call.split()[-1] for call in calls[1::2]} == {"gcc", "mmdebstrap"}


def test_waits_for_a_machine_that_updates_itself(log: Path) -> None:
    apt.install("gcc")
    assert all(line.startswith("--option=DPkg::Lock::Timeout=") for line in log.read_text().splitlines())


def test_error_has_what_apt_said(log: Path, tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(LabError, match=r"(?s)update` failed:.*Could not get lock") as it:
        apt.install("gcc")
    assert "apt-get" in it.value.mend
