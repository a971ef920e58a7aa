"""Checkpoints on disk, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

from components.programs.checkpointer.checkpoint import Checkpoint
from components.programs.checkpointer.pods import Owner

SUMS = "SHA256SUMS"


class Store:
    """`<owner>/<revision>/`, with `current` and `previous` as links to the last two, and what is armed.

    A revision never changes. It has the manifest, a directory for every volume and the digests of them all,
    the manifest's last; it is used only while all of them are right.
    """

    def __init__(self, directory: Path) -> None:
        self.checkpoints, self.manifests = directory / "checkpoints", directory / "manifests"
        self._booted = directory / "checkpoints.booted"

    def owners(self) -> set[Owner]:
        """Owners of which anything is on disk."""
        found = (Owner.parse(each.name) for each in self.checkpoints.glob("*"))
        return {owner for owner in found if owner}

    def booted(self) -> float:
        """When the host last booted, by its clock; 0 if it has not yet, or if the clock was ahead then."""
        if not self._booted.exists():
            return 0
        booted = self._booted.stat().st_mtime
        if booted <= time.time():
            return booted
        # When the clock gets there, what has started since would seem to be of before.
        os.utime(self._booted, (0, 0))
        return 0

    def is_armed(self, owner: Owner) -> bool:
        """Whether the kubelet has its static pod."""
        return (self.manifests / owner.manifest).exists()

    def generation(self, owner: Owner) -> Path | None:
        """The directory of the last valid checkpoint."""
        for link in ("current", "previous"):
            directory = self.checkpoints / str(owner) / link
            if is_valid(directory, owner.manifest):
                return directory
        return None

    def save(self, checkpoint: Checkpoint) -> bool:
        """Makes it the current one; whether it was not already."""
        home = self.checkpoints / str(checkpoint.owner)
        final, current = home / checkpoint.revision, home / "current"
        manifest = checkpoint.owner.manifest
        for directory in (self.checkpoints, home):
            if not directory.exists():
                directory.mkdir(mode=0o700)
                _sync(directory.parent)
        if is_valid(final, manifest) and _target(current) == final.name:
            self._collect(checkpoint.owner)
            return False
        if not is_valid(final, manifest):
            self._write(checkpoint, final)
        if is_valid(current, manifest) and _target(current) != final.name:
            _point(home / "previous", str(_target(current)))
        _point(current, final.name)
        self._collect(checkpoint.owner)
        return True

    def _write(self, checkpoint: Checkpoint, final: Path) -> None:
        new = final.with_name(f".{final.name}.new")
        _remove(new)
        new.mkdir(mode=0o700)
        files = {
            f"{volume}/{path}": (mode, data)
            for volume, paths in checkpoint.volumes.items()
            for path, (mode, data) in sorted(paths.items())
        }
        for volume in checkpoint.volumes:
            _mkdir(new / volume, checkpoint.uid)
        for path, (mode, data) in files.items():
            for parent in reversed(Path(path).parents[:-1]):
                _mkdir(new / parent, checkpoint.uid)
            _write(new / path, data, mode, checkpoint.uid)
        last = checkpoint.manifest(final)
        _write(new / checkpoint.owner.manifest, last, 0o600)
        digests = {path: data for path, (_, data) in files.items()} | {checkpoint.owner.manifest: last}
        sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in digests.items())
        _write(new / SUMS, sums.encode(), 0o600)
        for directory in [each for each in new.rglob("*") if each.is_dir()] + [new]:
            _sync(directory)
        _remove(final)
        new.rename(final)
        _sync(final.parent)

    def _collect(self, owner: Owner) -> None:
        """Removes what nothing points to. An armed pod may use any revision."""
        home = self.checkpoints / str(owner)
        kept = {"current", "previous", _target(home / "current"), _target(home / "previous")}
        if not self.is_armed(owner):
            for each in home.iterdir():
                if each.name not in kept:
                    _remove(each)

    def arm(self, owner: Owner) -> bool:
        """Gives the kubelet the last valid checkpoint; False if there is none."""
        if not (generation := self.generation(owner)):
            return False
        new = self.manifests / f".{owner.manifest}.new"
        _remove(new)
        _write(new, (generation / owner.manifest).read_bytes(), 0o600)
        new.rename(self.manifests / owner.manifest)
        _sync(self.manifests)
        return True

    def disarm(self, owner: Owner) -> None:
        """Takes the static pod away."""
        (self.manifests / owner.manifest).unlink(missing_ok=True)
        _sync(self.manifests)

    def forget(self, owner: Owner) -> None:
        """Removes all of an owner, its static pod first."""
        self.disarm(owner)
        _remove(self.checkpoints / str(owner))


def is_valid(directory: Path, manifest: str) -> bool:
    """Whether a revision is whole: the list of digests ends with the manifest's, and all are right."""
    try:
        lines = (directory / SUMS).read_text().splitlines()
        sums = [line.split("  ", 1) for line in lines]
        return bool(sums) and all(
            [hashlib.sha256((directory / path).read_bytes()).hexdigest() == digest for digest, path in sums]
            + [sums[-1][1] == manifest]
        )
    except (OSError, ValueError, IndexError):
        return False


def _write(path: Path, data: bytes, mode: int, uid: int | None = None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(descriptor, mode)
        if uid is not None:
            os.fchown(descriptor, uid, -1)
        os.fsync(descriptor)


def _mkdir(path: Path, uid: int) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    os.chown(path, uid, -1)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _point(link: Path, target: str) -> None:
    new = link.with_name(f".{link.name}.new")
    _remove(new)
    new.symlink_to(target)
    new.rename(link)
    _sync(link.parent)


def _target(link: Path) -> str | None:
    return str(link.readlink()) if link.is_symlink() else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
