"""The go command: this machine's if it is new enough, else the toolchain that Go publishes as a module."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from functools import cache
from pathlib import Path

from lab import pins
from lab.cache import cache_dir, fresh_dir, locked
from lab.errors import LabError
from lab.progress import Progress
from lab.toolchain.download import Sites, UnavailableError

VERSION_SECONDS = 20
GO_DIRECTORY = "/usr/local/go/bin"  # where Go's own instructions put it, which is seldom on PATH


def ensure_go(progress: Progress, sites: Sites) -> Path:
    """Return the path of a go command that builds every pinned module."""
    if installed := find_go():
        return installed
    directory = cache_dir() / "toolchain" / f"go-{pins.GO}"
    if not directory.is_dir():
        with progress.step(f"go {pins.GO}"), locked(directory):
            if not directory.is_dir():  # another run may have made it meanwhile
                with fresh_dir(directory) as partial:
                    _unpack_module(partial, progress, sites)
    return directory / "bin" / "go"


def find_go() -> Path | None:
    """Return the go command on PATH, or in Go's usual place, if it is new enough."""
    found = shutil.which("go") or shutil.which("go", path=GO_DIRECTORY)
    return Path(found) if found and _version(found) >= pins.GO_LEAST else None


def module_proxy() -> str | None:
    """Return the module proxy that GOPROXY in the environment names first."""
    entries = re.split(r"[,|]", os.environ.get("GOPROXY", ""))
    return next((entry.rstrip("/") for entry in entries if entry.startswith("http")), None)


@cache
def _version(go: str) -> tuple[int, ...]:
    # Without a directory for its telemetry, Go writes nothing when it is asked.
    environment = {**os.environ, "XDG_CONFIG_HOME": os.devnull, "GOTOOLCHAIN": "local"}
    try:
        answer = subprocess.run(
            [go, "version"], env=environment, cwd="/", capture_output=True, text=True, timeout=VERSION_SECONDS
        ).stdout
    except (OSError, subprocess.TimeoutExpired):  # not usable is not installed
        return ()
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", answer)
    return tuple(int(number or 0) for number in found.groups()) if found else ()


def _unpack_module(directory: Path, progress: Progress, sites: Sites) -> None:
    version = f"v0.0.1-go{pins.GO}.linux-{pins.architecture()}"
    archive = directory / "module.zip"
    try:
        if (proxy := module_proxy()) is None:
            raise UnavailableError("GOPROXY names no module proxy")
        sites.download(f"{proxy}/golang.org/toolchain/@v/{version}.zip", archive, progress)
    except UnavailableError as reason:
        raise LabError(
            f"there is no Go {'.'.join(map(str, pins.GO_LEAST))} or newer on PATH, and Go's own module "
            f"could not be had: {reason}",
            "install Go from https://go.dev/dl, or set GOPROXY to a module proxy that this machine reaches",
        ) from reason
    if not zipfile.is_zipfile(archive):
        raise LabError(
            f"what {proxy} has as Go's module is no zip file",
            "open the proxy's URL: a login page or a notice may be there; or set GOPROXY to another one",
        )
    with zipfile.ZipFile(archive) as module:
        actual, expected = _module_hash(module), pins.GO_MODULE_HASHES[pins.architecture()]
        if actual != expected:
            raise LabError(
                f"Go's module from {proxy} has the hash {actual}; Go's checksum database says {expected}",
                "run again; if it stays so, set GOPROXY to a proxy that does not alter modules",
            )
        for name in module.namelist():
            # A module holds no other module, so their go.mod files are renamed in it.
            path = directory / name.split("/", 2)[2].replace("_go.mod", "go.mod")
            path.parent.mkdir(parents=True, exist_ok=True)
            with module.open(name) as content, path.open("wb") as file:
                shutil.copyfileobj(content, file)
            if path.is_relative_to(directory / "bin") or path.is_relative_to(directory / "pkg" / "tool"):
                path.chmod(0o755)
    archive.unlink()


def _module_hash(module: zipfile.ZipFile) -> str:
    """Hash a module as go.sum and the checksum database do (`h1:`)."""
    total = hashlib.sha256()
    for name in sorted(module.namelist()):
        total.update(f"{hashlib.sha256(module.read(name)).hexdigest()}  {name}\n".encode())
    return f"h1:{base64.b64encode(total.digest()).decode()}"
