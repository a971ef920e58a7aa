"""Arguments of every process that a host runs, its pods' included, read ten times a second.

Standard library only: it runs on the host. When its input ends, or after DEADLINE seconds, it prints every
command line that it saw, once, as JSON.

    arguments.py <a pipe that is closed in the end
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

PERIOD = 0.1
DEADLINE = 600.0


def command_lines() -> set[str]:
    """Those of now."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found.add((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:  # it has ended
                continue
    return found


def main() -> None:
    """Reads them until it is told to stop."""
    stop = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    seen: set[str] = set()
    deadline = time.monotonic() + DEADLINE
    while True:
        seen |= command_lines()
        if stop.wait(PERIOD) or time.monotonic() > deadline:
            break
    print(json.dumps(sorted(seen)))


if __name__ == "__main__":
    main()
