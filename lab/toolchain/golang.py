"""Builds from pinned Go modules. Go's own cache makes an interrupted build go on where it was."""

from __future__ import annotations

import collections
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

from lab import apt, pins
from lab.errors import LabError
from lab.processes import end_with_children
from lab.progress import Progress
from lab.toolchain.download import Sites
from lab.toolchain.gotoolchain import ensure_go
from lab.toolchain.tools import Build

BUILD_SECONDS = 3600
MODULE_SECONDS = 600


def build(build: Build, target: Path, progress: Progress, sites: Sites) -> None:
    """Build one binary into `target`.

    Raises LabError where there is no Go, no C compiler that cgo needs, or the build fails.
    """
    if build.cgo:
        apt.ensure_command("gcc", "gcc", "libc6-dev")
    # In the go command's order of flags, so that the same build by hand finds the same cache entries.
    flags = ["-s", "-w", *(f"-X {name}={value}" for name, value in build.variables)]
    tags: list[str] = []
    if build.cgo:  # static, so that the binary runs in an image of any C library
        flags += ["-linkmode external", "-extldflags -static"]
        tags = ["-tags", "netgo,osusergo"]
    _go(
        build.module,
        [
            *("build", "-v", "-trimpath", "-buildvcs=false", *tags),
            *("-ldflags", " ".join(flags), "-o", str(target), build.package),
        ],
        cgo=build.cgo,
        seconds=BUILD_SECONDS,
        progress=progress,
        sites=sites,
    )


def copy_script(module: str, source: str, path: str, target: Path, progress: Progress, sites: Sites) -> None:
    """Copy the file `path` of the Go module `source`, at the version that lab/toolchain/<module> pins."""
    answer = _go(
        module, ["mod", "download", "-json", source], seconds=MODULE_SECONDS, progress=progress, sites=sites
    )
    shutil.copyfile(Path(json.loads(answer)["Dir"]) / path, target)
    target.chmod(0o755)


def _go(
    module: str, arguments: list[str], *, seconds: int, progress: Progress, sites: Sites, cgo: bool = False
) -> str:
    go = ensure_go(progress, sites)
    environment = {name: value for name, value in os.environ.items() if name != "GOROOT"}
    environment |= {
        "CGO_ENABLED": "1" if cgo else "0",
        "GOFLAGS": "-mod=readonly",  # not empty, or the user's `go env -w` would count
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
    }
    process = subprocess.Popen(
        [go, *arguments],
        cwd=pins.MODULES / module,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that its compilers end with it
    )
    assert process.stdout is not None and process.stderr is not None
    last: collections.deque[str] = collections.deque(maxlen=30)
    follower = threading.Thread(target=_follow, args=(process.stderr, last, progress))
    follower.start()
    deadline = time.monotonic() + seconds
    timer = threading.Timer(seconds, end_with_children, (process.pid,))
    timer.start()
    with process:
        try:
            answer = process.stdout.read()
            process.wait()
        finally:
            overdue = time.monotonic() >= deadline
            timer.cancel()
            if process.poll() is None:  # interrupted
                end_with_children(process.pid)
            follower.join()
    if process.returncode:
        why = f"did not end within {seconds} s" if overdue else "failed"
        raise LabError(
            f"`go {' '.join(arguments)}` in {pins.MODULES / module} {why}:\n" + "\n".join(last),
            "see that the disk has room and that `go env GOPROXY` names a module proxy that this machine "
            "reaches, then run again: Go continues where it was",
        )
    return answer


def _follow(lines: IO[str], last: collections.deque[str], progress: Progress) -> None:
    for line in lines:
        last.append(line.rstrip())
        progress.detail(line.strip())
