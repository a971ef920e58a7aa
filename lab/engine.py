"""The container engine: Docker, found, started or installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Literal

from lab import apt
from lab.cache import locked
from lab.errors import LabError
from lab.progress import Progress

PACKAGES = ("docker.io", "iptables", "ca-certificates")
START_SECONDS = 60
STOP_SECONDS = 30
PROBE_SECONDS = 5

SYSTEMD = Path("/run/systemd/system")  # there if it runs this machine

# Written by the daemons. After a power loss they name a process that is gone or another one, and
# dockerd then refuses to start, or waits for a containerd that never answers.
DOCKERD_PID = Path("/var/run/docker.pid")
CONTAINERD_PID = Path("/var/run/docker/containerd/containerd.pid")


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """What the doctor shows.

    `stopped` and `missing` are what `ensure_engine` sees to; `unusable` is the user's, and `mend` says how.
    """

    status: Literal["running", "stopped", "missing", "unusable"]
    version: str = ""
    started_by_us: bool = False
    detail: str = ""
    mend: str = ""


def docker(*args: str, input: bytes | None = None, timeout: float = 120) -> str:
    """Run the Docker CLI and return its output without surrounding white space.

    Raises LabError with the command and its stderr if it fails, cannot be run, or takes more than
    `timeout` seconds.
    """
    command = f"docker {' '.join(args)}"
    try:
        done = subprocess.run(["docker", *args], input=input, capture_output=True, timeout=timeout)
    except FileNotFoundError as error:
        raise LabError(
            "docker is not on PATH", "install Docker, or run as root on Debian or Ubuntu"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"`{command}` did not end within {timeout:.0f} s", "see whether `docker info` answers"
        ) from error
    if done.returncode:
        raise LabError(
            f"`{command}` failed: {done.stderr.decode(errors='replace').strip()}",
            "mend that; see that `docker info` answers and that the disk has room; then run again",
        )
    return done.stdout.decode(errors="replace").strip()


@cache
def can_pull(registry: str) -> bool:
    """Whether `registry` (as in image names: docker.io, ghcr.io) answers within 5 s. Asked once a run."""
    host = {"docker.io": "registry-1.docker.io"}.get(registry, registry)
    try:
        with urllib.request.urlopen(f"https://{host}/v2/", timeout=PROBE_SECONDS):
            return True
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code == 401  # asks to log in; a filtering proxy has other answers
    except (OSError, HTTPException):
        return False


def engine_state() -> EngineState:
    """Look at the engine without changing anything."""
    try:
        version = docker("info", "--format", "{{.ServerVersion}}", timeout=20)
    except LabError as error:
        return _not_running(str(error))
    return EngineState(status="running", version=version, started_by_us=_our_pid() is not None)


def ensure_engine(progress: Progress) -> None:
    """Have an engine that answers `docker info`: the running one, else the installed one, else Debian's."""
    if engine_state().status == "running":
        return
    with locked(state_dir() / "engine"):
        state = engine_state()  # another run may have started it meanwhile
        if state.status == "missing":
            with progress.step("install the container engine (docker.io)"):
                apt.install(*PACKAGES)
                apt.ensure_command("docker", "docker-cli")  # a package of its own since Debian 13
            state = engine_state()  # the package starts it where there is an init system
        if state.status == "unusable":
            raise LabError(state.detail, state.mend)
        if state.status != "running":
            with progress.step("start the container engine"):
                _start()


def stop_engine() -> None:
    """Stop the engine if `ensure_engine` started it. Its containerd and all containers end with it."""
    pid = _our_pid()
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while is_running(pid, "dockerd"):
        if time.monotonic() > deadline:
            raise LabError(
                f"dockerd (pid {pid}) did not end within {STOP_SECONDS} s",
                f"see {_log_file()}, then kill {pid}",
            )
        time.sleep(0.1)
    _pid_file().unlink()


def state_dir() -> Path:
    """Return ~/.local/state/kubepivot (XDG_STATE_HOME is respected): an engine of ours has its log there."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "kubepivot"


def read_pid(path: Path) -> int | None:
    """Return the number in a pid file, None if there is no such file or it was not written to its end."""
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def is_running(pid: int, *names: str) -> bool:
    """Whether the process lives and is one of these programs: a pid may be another program's by now."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return name in names and rest.split()[0] not in ("Z", "X")


def _not_running(detail: str) -> EngineState:
    if host := os.environ.get("DOCKER_HOST"):
        return EngineState(
            status="unusable",
            detail=f"the engine at DOCKER_HOST={host} does not answer: {detail}",
            mend="start it, or unset DOCKER_HOST",
        )
    if os.geteuid() == 0 and shutil.which("dockerd"):
        return EngineState(status="stopped", detail="dockerd is installed and not running")
    if apt.can_install():
        return EngineState(status="missing", detail="no container engine is installed")
    return EngineState(
        status="unusable",
        detail=f"no container engine answers: {detail}",
        mend="start Docker so that `docker info` works for this user, or run as root on Debian or Ubuntu",
    )


def _start() -> None:
    if SYSTEMD.is_dir():
        try:
            done = subprocess.run(
                ["systemctl", "start", "docker"], capture_output=True, text=True, timeout=START_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(
                f"`systemctl start docker` did not end within {START_SECONDS} s", "see `journalctl -u docker`"
            ) from error
        if done.returncode:
            raise LabError(
                f"`systemctl start docker` failed: {done.stderr.strip()}", "see `journalctl -u docker`"
            )
        return
    for path, name in ((DOCKERD_PID, "dockerd"), (CONTAINERD_PID, "containerd")):
        pid = read_pid(path)
        if pid is not None and not is_running(pid, name):
            path.unlink()
    if _our_pid() is None:
        _pid_file().unlink(missing_ok=True)
    if read_pid(DOCKERD_PID) is None:  # else an init script, say the package's, has just started it
        _run_dockerd()
    _wait_until_running()


def _run_dockerd() -> None:
    with _log_file().open("wb") as log:
        # In a session of its own and nobody's child: it outlives us and whoever started us.
        subprocess.run(
            ["setsid", "--fork", "sh", "-c", 'echo $$ > "$1" && exec dockerd', "sh", str(_pid_file())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
            timeout=10,
        )


def _wait_until_running() -> None:
    deadline = time.monotonic() + START_SECONDS
    while engine_state().status != "running":
        pid = read_pid(_pid_file())
        if pid is not None and not is_running(pid, "dockerd", "sh"):
            raise LabError(f"dockerd ended at once:\n{_log_tail()}", f"see {_log_file()}")
        if time.monotonic() > deadline:
            raise LabError(
                f"dockerd did not answer within {START_SECONDS} s:\n{_log_tail()}", f"see {_log_file()}"
            )
        time.sleep(0.2)


def _our_pid() -> int | None:
    pid = read_pid(_pid_file())
    return pid if pid is not None and is_running(pid, "dockerd") else None


def _pid_file() -> Path:
    return state_dir() / "dockerd.pid"


def _log_file() -> Path:
    return state_dir() / "dockerd.log"


def _log_tail() -> str:
    if not _log_file().exists():  # an engine that we have not started
        return ""
    return "\n".join(_log_file().read_text(errors="replace").splitlines()[-10:])
