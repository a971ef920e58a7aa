"""`python -m lab`: errors are for people, `env` is for a shell, and there is nothing to take down twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import __main__, lifecycle, pins, pulumi
from lab.engine import EngineState
from lab.errors import LabError

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a verb in a checkout with one stack, on a machine of a new user without an engine."""
    (tmp_path / "Pulumi.yaml").write_text("name: kubepivot\n")
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {}\n")
    monkeypatch.setattr(pins, "CHECKOUT", tmp_path)
    monkeypatch.setattr(lifecycle, "engine_state", lambda: EngineState(status="missing"))
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def main(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["lab", *arguments])
        return __main__.main()

    return main


def test_error_says_what_is_wrong_and_what_mends_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("up", "--stack", "prod") == 1
    error = capsys.readouterr().err
    assert "error: the stack prod has no file Pulumi.prod.yaml" in error
    assert "mend:  write it" in error


def test_interrupt_says_that_it_continues(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(stack: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lifecycle, "up", interrupted)
    assert run("up") == 130
    assert "run again, it continues" in capsys.readouterr().err


def test_environment_is_for_a_shell(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = 'it\'s a "path" $HOME `x`'
    monkeypatch.setattr(
        pulumi, "environment", lambda stack: {"PATH": os.environ["PATH"], "KUBECONFIG": value}
    )
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "another")
    assert run("env") == 0
    script = capsys.readouterr().out
    assert all(line.startswith(("export ", "unset ")) for line in script.splitlines())
    command = f'{script}\nprintf %s "$KUBECONFIG"; [ -z "${{PULUMI_CONFIG_PASSPHRASE+set}}" ]'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=10)
    assert (done.stdout, done.returncode) == (value, 0)


def test_down_with_nothing_there_does_nothing(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run("down") == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_down_removes_hosts_that_no_state_knows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def docker(*arguments: str) -> str:
        calls.append(" ".join(arguments))
        return "c1\nc2" if "label=kubepivot.cluster=dev" in arguments else ""

    monkeypatch.setattr(lifecycle, "engine_state", lambda: EngineState(status="running"))
    monkeypatch.setattr(lifecycle, "docker", docker)
    monkeypatch.setattr(lifecycle, "remove_mirror", lambda: calls.append("remove mirror"))
    monkeypatch.setattr(lifecycle, "stop_engine", lambda: calls.append("stop engine"))
    assert run("down") == 0
    assert calls[1:3] == ["container rm --force --volumes c1 c2", "remove mirror"]
    assert calls[-1] == "stop engine"


def test_down_leaves_an_engine_that_has_other_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "engine_state", lambda: EngineState(status="running"))
    monkeypatch.setattr(lifecycle, "docker", lambda *arguments: "" if "--all" in arguments else "c9")
    monkeypatch.setattr(lifecycle, "remove_mirror", lambda: None)

    def stop() -> None:
        raise LabError("stopped")

    monkeypatch.setattr(lifecycle, "stop_engine", stop)
    assert run("down") == 0
