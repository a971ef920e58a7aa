"""Processes of others: what a program has started ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

END_SECONDS = 20  # mmdebstrap takes its mounts away meanwhile


def run(
    command: Sequence[str], *, seconds: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `command` and return it with its output, stderr among it.

    Interrupted, or after `seconds`, it is asked to end with all that it started, and killed if it does not.
    Raises subprocess.TimeoutExpired then.
    """
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException:
            try:
                _signal_session(process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=END_SECONDS)
            finally:
                end_with_children(process.pid)
                process.wait()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def end_with_children(leader: int) -> None:
    """Kill `leader`, which was started with `start_new_session`, and all that it started, orphans too."""
    _signal_session(leader, signal.SIGKILL)


def _signal_session(leader: int, number: signal.Signals) -> None:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _leader(process) == leader:
            try:
                os.kill(int(process.name), number)
            except ProcessLookupError:  # it has ended meanwhile
                continue


def _leader(process: Path) -> int | None:
    try:
        stat = (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[3])
