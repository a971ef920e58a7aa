"""Processes of others: what a program has started ends with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def end_with_children(leader: int) -> None:
    """Kill `leader`, which was started with `start_new_session`, and all that it started, orphans too."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _leader(process) == leader:
            try:
                os.kill(int(process.name), signal.SIGKILL)
            except ProcessLookupError:  # it has ended meanwhile
                continue


def _leader(process: Path) -> int | None:
    try:
        stat = (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[3])
