"""Where the lab keeps things: what can be made again under the cache, what can't under the data directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from lab.errors import LabError

LOCK_SECONDS = 3600


def cache_dir() -> Path:
    """Return ~/.cache/kubepivot (XDG_CACHE_HOME is respected). Not created here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubepivot"


def data_dir() -> Path:
    """Return ~/.local/share/kubepivot (XDG_DATA_HOME is respected). Not created here."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "kubepivot"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, so that of two runs at once one makes it and the other finds it made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.parent / f".{path.name}.lock"
    try:
        with filelock.FileLock(lock, timeout=LOCK_SECONDS):
            yield
    except filelock.Timeout as error:
        raise LabError(
            f"another run has held {lock} for {LOCK_SECONDS // 60} minutes",
            "end that run (`fuser -v` on the file names it), then run again",
        ) from error


@contextmanager
def fresh_dir(path: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `path` if the block ends well. Hold `locked(path)`."""
    partial = path.parent / f".{path.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)  # an interrupted run's
    partial.mkdir(parents=True)
    yield partial
    if path.exists():
        shutil.rmtree(path)
    partial.rename(path)


def write_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file or none; the mode is set before the content is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
