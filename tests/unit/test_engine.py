"""The container engine: what is found, what is started, and what an error says. Docker itself is imitated."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from io import BytesIO
from pathlib import Path

import pytest

from lab import apt, engine
from lab.errors import LabError
from lab.progress import Progress

# While the file `up` is there, the imitated engine answers.
DOCKER = """#!/bin/sh
[ -e "{up}" ] || {{ echo "Cannot connect to the Docker daemon" >&2; exit 1; }}
case $1 in info) echo 20.10.24 ;; cat) cat ;; *) echo "$@" ;; esac
"""
DOCKERD = """#!/bin/sh
trap 'rm "{up}"; exit 0' TERM
touch "{up}"
while :; do sleep 0.05; done
"""
MUTE_DOCKERD = """#!/bin/sh
while :; do sleep 0.05; done
"""
BROKEN_DOCKERD = """#!/bin/sh
echo "iptables not found" >&2
exit 1
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine of root's without an init system. Yields the directory of its programs; docker is there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "SYSTEMD", tmp_path / "no-systemd")
    monkeypatch.setattr(engine, "DOCKERD_PID", tmp_path / "docker.pid")
    monkeypatch.setattr(engine, "CONTAINERD_PID", tmp_path / "containerd.pid")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    install(programs, "docker", DOCKER)
    yield programs
    engine.stop_engine()


def install(programs: Path, name: str, text: str) -> None:
    program = programs / name
    program.write_text(text.format(up=programs.parent / "up"))
    program.chmod(0o755)


def start_engine(machine: Path) -> None:
    install(machine, "dockerd", DOCKERD)
    engine.ensure_engine(Progress())


def pid_file() -> Path:
    return engine.state_dir() / "dockerd.pid"


def test_docker_returns_what_it_prints_and_passes_input_on(machine: Path) -> None:
    (machine.parent / "up").touch()
    assert engine.docker("image", "ls") == "image ls"
    assert engine.docker("cat", input=b"by stdin\n") == "by stdin"


def test_docker_error_has_the_command_and_its_stderr(machine: Path) -> None:
    with pytest.raises(
        LabError, match=r"`docker image ls` failed: Cannot connect to the Docker daemon"
    ) as it:
        engine.docker("image", "ls")
    assert "`docker info`" in it.value.mend


def test_docker_that_hangs_is_given_up(machine: Path) -> None:
    install(machine, "docker", "#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(LabError, match=r"`docker info` did not end within 0 s"):
        engine.docker("info", timeout=0.1)


def test_docker_that_is_missing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine / "none"))
    with pytest.raises(LabError, match="docker is not on PATH"):
        engine.docker("info")


def test_installed_engine_is_started_and_outlives_the_call(machine: Path) -> None:
    start_engine(machine)
    state = engine.engine_state()
    assert (state.status, state.version, state.started_by_us) == ("running", "20.10.24", True)
    pid = int(pid_file().read_text())
    assert os.getsid(pid) != os.getsid(0)


def test_running_engine_is_left_alone(machine: Path) -> None:
    (machine.parent / "up").touch()
    engine.ensure_engine(Progress())
    assert engine.engine_state() == engine.EngineState(status="running", version="20.10.24")
    engine.stop_engine()
    assert engine.engine_state().status == "running"


def test_stop_ends_what_we_started(machine: Path) -> None:
    start_engine(machine)
    pid = int(pid_file().read_text())
    engine.stop_engine()
    assert not engine.is_running(pid, "dockerd")
    assert engine.engine_state().status == "stopped"
    assert not pid_file().exists()


def test_stop_spares_a_stranger_with_the_pid_of_a_dead_engine(machine: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        engine.state_dir().mkdir(parents=True)
        pid_file().write_text(str(stranger.pid))
        engine.stop_engine()
        assert stranger.poll() is None
        stranger.kill()


def test_stale_pid_files_do_not_stop_the_start(machine: Path) -> None:
    engine.state_dir().mkdir(parents=True)
    for file in (engine.DOCKERD_PID, engine.CONTAINERD_PID, pid_file()):
        file.write_text(str(os.getpid()))  # lives, and is neither
    start_engine(machine)
    assert not engine.DOCKERD_PID.exists()
    assert not engine.CONTAINERD_PID.exists()
    assert engine.engine_state().started_by_us


def test_pid_file_of_a_living_engine_is_kept(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_engine(machine)
    engine.DOCKERD_PID.write_text(pid_file().read_text())
    (machine.parent / "up").unlink()  # it lives and does not answer, and neither does another one
    install(machine, "dockerd", MUTE_DOCKERD)
    monkeypatch.setattr(engine, "START_SECONDS", 0)
    pid = int(pid_file().read_text())
    try:
        with pytest.raises(LabError, match="did not answer"):
            engine.ensure_engine(Progress())
        assert engine.DOCKERD_PID.exists()
        # Known by its pid file, or it could not be ended.
        deadline = time.monotonic() + 10
        while not engine.is_running(engine.read_pid(pid_file()) or 0, "dockerd"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_engine_that_an_init_script_has_just_started_is_waited_for(machine: Path) -> None:
    install(machine, "dockerd", 'sleep 0.5; touch "{up}"; while :; do sleep 0.05; done\n')
    program = machine / "dockerd"
    program.write_text(f"#!/bin/sh\n{program.read_text()}")
    started = subprocess.Popen([program])
    try:
        engine.DOCKERD_PID.write_text(str(started.pid))
        engine.ensure_engine(Progress())
        assert not pid_file().exists(), "no other one was started"
        assert not engine.engine_state().started_by_us
    finally:
        started.kill()
        started.wait()


def test_engine_that_ends_at_once_shows_its_log(machine: Path) -> None:
    install(machine, "dockerd", BROKEN_DOCKERD)
    with pytest.raises(LabError, match=r"(?s)ended at once:.*iptables not found") as raised:
        engine.ensure_engine(Progress())
    assert str(engine.state_dir() / "dockerd.log") in raised.value.mend


def test_missing_engine_is_installed_then_started(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def apt_install(*packages: str) -> None:
        asked.extend(packages)
        install(machine, "dockerd", DOCKERD)

    monkeypatch.setattr(shutil, "which", which_in(machine))
    monkeypatch.setattr(apt, "can_install", lambda: True)
    monkeypatch.setattr(apt, "install", apt_install)
    assert engine.engine_state().status == "missing"
    engine.ensure_engine(Progress())
    assert "docker.io" in asked
    assert engine.engine_state().started_by_us


def which_in(programs: Path) -> object:
    """A search that does not see what this machine has."""

    def which(name: str) -> str | None:
        return str(programs / name) if (programs / name).exists() else None

    return which


def test_machine_that_is_not_ours_to_change_says_what_to_do(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", which_in(machine))
    monkeypatch.setattr(apt, "can_install", lambda: False)
    with pytest.raises(LabError, match="Cannot connect to the Docker daemon") as raised:
        engine.ensure_engine(Progress())
    assert "root on Debian or Ubuntu" in raised.value.mend


def test_remote_engine_that_is_down_is_not_replaced(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, "dockerd", DOCKERD)
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    with pytest.raises(LabError, match=r"DOCKER_HOST=tcp://192\.0\.2\.1:2376 does not answer") as raised:
        engine.ensure_engine(Progress())
    assert "unset DOCKER_HOST" in raised.value.mend


@pytest.mark.parametrize("content", ["", "12x", "\n"])
def test_half_written_pid_file_is_no_pid(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    assert engine.read_pid(tmp_path / "pid") is None
    assert engine.read_pid(tmp_path / "none") is None


@pytest.mark.parametrize(("status", "expected"), [(401, True), (200, True), (403, False), (502, False)])
def test_registry_is_one_that_asks_to_log_in(
    status: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> BytesIO:
        asked.append(url)
        if status == 200:
            return BytesIO(b"{}")
        raise urllib.error.HTTPError(url, status, "", Message(), BytesIO())

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    engine.can_pull.cache_clear()
    assert [engine.can_pull("docker.io"), engine.can_pull("docker.io")] == [expected, expected]
    assert asked == ["https://registry-1.docker.io/v2/"], "asked once a run"
    engine.can_pull.cache_clear()


def test_registry_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def urlopen(url: str, timeout: float) -> BytesIO:
        assert timeout <= 5
        raise urllib.error.URLError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    engine.can_pull.cache_clear()
    assert not engine.can_pull("ghcr.io")
    engine.can_pull.cache_clear()
