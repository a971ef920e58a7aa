"""Builds from pinned Go modules. Go's own cache makes an interrupted build go on where it was."""

from __future__ import annotations

import collections
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

from lab import apt, pins
from lab.errors import LabError
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
            *("build", "-v", "-trimpath", "-mod=readonly", "-buildvcs=false", *tags),
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
        "GOFLAGS": "",
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
    )
    last: collections.deque[str] = collections.deque(maxlen=30)

    def follow() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            last.append(line.rstrip())
            progress.detail(line.strip())

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        with process:
            assert process.stdout is not None
            answer = process.stdout.read()
            follower.join()
    finally:
        timer.cancel()
    if process.returncode:
        raise LabError(
            f"`go {' '.join(arguments)}` in {pins.MODULES / module} failed:\n" + "\n".join(last),
            "see that `go env GOPROXY` names a module proxy that this machine reaches, then run again",
        )
    return answer
