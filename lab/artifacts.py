"""The mirror's HTTP tree: the files that hosts download, at the official sites' paths.

Each file has the site's checksum file beside it. It is the official file where the site can be reached,
else one of the same layout, assembled from what the toolchain built. runc is not here: hosts use their
distribution's.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab import pins, toolchain
from lab.cache import locked, write_file
from lab.mirror import files_dir
from lab.progress import Progress
from lab.toolchain.download import Sites, UnavailableError
from lab.toolchain.tools import Bundle, Official

GZIP_LEVEL = 1  # packed once and unpacked on every host: quick matters more than small


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One file of the tree. `members` are the paths of the binaries in an assembled archive."""

    bundle: Bundle
    members: tuple[str, ...]

    @property
    def official(self) -> Official:
        """Where the official file and its checksum file are."""
        assert self.bundle.official is not None
        return self.bundle.official

    @property
    def path(self) -> str:
        """The path in the tree: the URL without its scheme."""
        return self.official.url.removeprefix("https://")


def artifacts_of(release: pins.Release) -> tuple[Artifact, ...]:
    """Return the files that hosts of this release download."""
    kubelet, kubectl, containerd, plugins, etcd = (
        toolchain.bundle_of(name, release)
        for name in ("kubelet", "kubectl", "containerd", "bridge", "etcdctl")
    )
    etcd_directory = f"etcd-v{release.etcd}-linux-{pins.architecture()}"
    return (
        Artifact(bundle=kubelet, members=("kubelet",)),
        Artifact(bundle=kubectl, members=("kubectl",)),
        Artifact(bundle=containerd, members=tuple(f"bin/{name}" for name in containerd.builds)),
        Artifact(bundle=plugins, members=tuple(f"./{name}" for name in plugins.builds)),
        # etcd itself runs from its image; hosts need what makes and restores a snapshot.
        Artifact(bundle=etcd, members=(f"{etcd_directory}/etcdctl", f"{etcd_directory}/etcdutl")),
    )


ARTIFACTS = artifacts_of(pins.NEWEST)


def ensure_tree(
    progress: Progress, artifacts: Sequence[Artifact] = ARTIFACTS, *, sites: Sites = toolchain.SITES
) -> Path:
    """Have these artifacts in the tree, beside those that are there, and return the tree."""
    for artifact in artifacts:
        if not is_ready(artifact):
            file = files_dir() / artifact.path
            with progress.step(f"mirror {file.name}"), locked(_record(artifact)):
                if not is_ready(artifact):  # another run may have made it meanwhile
                    _make(artifact, file, progress, sites)
    return files_dir()


def is_ready(artifact: Artifact) -> bool:
    """Say whether the tree has the artifact, made from what is pinned now."""
    record = _record(artifact)
    return (
        (files_dir() / artifact.path).is_file() and record.is_file() and record.read_text() == _key(artifact)
    )


def _make(artifact: Artifact, file: Path, progress: Progress, sites: Sites) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.parent / f".{file.name}.partial"
    if artifact.official.is_archive:
        try:
            checksums = sites.fetch(artifact.official, partial, progress)
        except UnavailableError as reason:
            progress.note_once(f"not downloaded, built instead: {reason}")
            _assemble(artifact, partial, progress, sites)
            checksums = f"{_sha256(partial)}  {file.name}\n"
    else:
        # The toolchain has verified or built it.
        name = artifact.members[0]
        shutil.copyfile(toolchain.ensure_bundle(artifact.bundle, progress, sites=sites) / name, partial)
        checksums = _sha256(partial)
    write_file(file.parent / PurePosixPath(artifact.official.checksums).name, checksums.encode())
    partial.chmod(0o644)
    partial.replace(file)
    write_file(_record(artifact), _key(artifact).encode())


def _assemble(artifact: Artifact, file: Path, progress: Progress, sites: Sites) -> None:
    """Write the archive; the same binaries always give the same bytes."""
    directory = toolchain.ensure_bundle(artifact.bundle, progress, sites=sites)
    binaries = {member: directory / PurePosixPath(member).name for member in artifact.members}
    with (
        file.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for member, binary in binaries.items():
            entry = tarfile.TarInfo(member)
            entry.size = binary.stat().st_size
            entry.mode = 0o755
            with binary.open("rb") as content:
                archive.addfile(entry, content)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _key(artifact: Artifact) -> str:
    return f"{artifact.bundle.key} {' '.join(artifact.members)} {GZIP_LEVEL}"


def _record(artifact: Artifact) -> Path:
    """Return the file that says from which pins the artifact was made; outside of what is served."""
    return files_dir().parent / "made" / artifact.path
