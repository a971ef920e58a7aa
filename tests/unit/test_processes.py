"""A program that is ended takes along what it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import apt, debian, processes

# Whoever of it is alive holds the fifo open, and nobody is started any more once somebody does.
PROGRAM = """#!/bin/sh
{trap}
sleep 60 3> {fifo} &
exec 3> {fifo}
wait
"""


def interrupted(call: Callable[[], object], fifo: Path) -> None:
    """Interrupt `call` when its program is under way and waited for, and see that nothing is left of it."""
    left: list[str] = []
    awaited, heard = threading.Event(), threading.Event()
    communicate = subprocess.Popen.communicate

    def told(process: subprocess.Popen[str], *args: Any, **kwargs: Any) -> Any:
        awaited.set()
        return communicate(process, *args, **kwargs)

    def once(*_: object) -> None:
        if not heard.is_set():
            heard.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        with fifo.open() as alive:
            assert awaited.wait(timeout=10)
            # Between Python's last look for signals and its system call one goes unnoticed.
            while not heard.wait(timeout=0.1):
                os.kill(os.getpid(), signal.SIGINT)
            left.append(alive.read())

    os.mkfifo(fifo)
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    before = signal.signal(signal.SIGINT, once)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(subprocess.Popen, "communicate", told)
        call()
    signal.signal(signal.SIGINT, before)
    thread.join(timeout=10)
    assert left == [""]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("apt-get", lambda: apt.install("gcc")),
        ("mmdebstrap", lambda: debian.bootstrap(Path("root.tar"), ["dash"], variant="minbase")),
    ],
)
def test_interrupted_packages_leave_no_process(
    name: str, call: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(PROGRAM.format(trap="", fifo=tmp_path / "fifo"))
    (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    interrupted(call, tmp_path / "fifo")


def test_program_may_clean_up(tmp_path: Path) -> None:
    trap = f"trap 'echo done > {tmp_path}/cleaned; exit 1' TERM"
    command = ["sh", "-c", PROGRAM.format(trap=trap, fifo=tmp_path / "fifo")]
    interrupted(lambda: processes.run(command, seconds=60), tmp_path / "fifo")
    assert (tmp_path / "cleaned").read_text() == "done\n"


def test_program_that_ignores_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "END_SECONDS", 0.1)
    command = ["sh", "-c", PROGRAM.format(trap="trap '' TERM", fifo=tmp_path / "fifo")]
    interrupted(lambda: processes.run(command, seconds=60), tmp_path / "fifo")


def test_program_has_a_deadline() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(["sleep", "60"], seconds=0.1)


def test_output_has_stderr_among_it() -> None:
    done = processes.run(["sh", "-c", "echo out; echo err >&2; exit 3"], seconds=10)
    assert (done.returncode, done.stdout) == (3, "out\nerr\n")
