"""Where the lab keeps things: what can be made again under the cache, what can't under the data directory."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import filelock

from lab.errors import LabError

LOCK_SECONDS = 3600


def cache_dir() -> Path:
    """Return ~/.cache/kubepivot (XDG_CACHE_HOME is respected). Not created here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubepivot"


def data_dir() -> Path:
    """Return ~/.local/share/kubepivot (XDG_DATA_HOME is respected). Not created here."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "kubepivot"


def make_dir(path: Path) -> None:
    """Have the directory and its parents. Whoever comes first, the data directory is for its user alone."""
    if path.is_relative_to(data_dir()):
        data_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, so that of two runs at once one makes it and the other finds it made."""
    make_dir(path.parent)
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
def in_use(path: Path) -> Iterator[None]:
    """Say that `path` is in use, as many runs may at once. The kernel forgets a run that is killed."""
    make_dir(path.parent)
    with _users(path).open("w") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _try_lock(file, fcntl.LOCK_SH):
            if time.monotonic() > deadline:
                raise LabError(
                    f"another run has been removing {path} for {LOCK_SECONDS // 60} minutes",
                    f"end that run (`fuser -v {_users(path)}` names it), then run again",
                )
            time.sleep(0.1)
        yield


@contextmanager
def unless_in_use(path: Path) -> Iterator[bool]:
    """Yield whether nobody uses `path`; if so, nobody begins to before the block ends."""
    make_dir(path.parent)
    with _users(path).open("w") as file:
        yield _try_lock(file, fcntl.LOCK_EX)


def _users(path: Path) -> Path:
    return path.parent / f".{path.name}.users"


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
    make_dir(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
