"""Packs files into a deterministic tar.gz: equal content gives equal bytes, and so no diff in a preview."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["File", "digest_lines", "pack", "unpack"]


@dataclass(frozen=True)
class File:
    """Content of a file with its mode and numeric owner (user and group alike)."""

    text: str
    mode: int = 0o644
    owner: int = 0


def pack(files: Mapping[str, File], *, compress: bool = True) -> bytes:
    """Packs a tar (gzipped unless told otherwise) without times or names, in the order of the paths."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, file in sorted(files.items()):
            data = file.text.encode()
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.uid, entry.gid = len(data), file.mode, file.owner, file.owner
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), mtime=0) if compress else raw.getvalue()


def unpack(archive: bytes) -> dict[str, str]:
    """The texts of the files of a gzipped archive, by path."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return {
            entry.name: content.read().decode()
            for entry in tar.getmembers()
            if (content := tar.extractfile(entry)) is not None
        }


def digest_lines(files: Mapping[str, File]) -> str:
    """A comment line per file: a preview then names the files that change and never shows their content."""
    return "\n".join(
        f"# {path} {hashlib.sha256(file.text.encode()).hexdigest()[:16]} {file.mode:04o} {file.owner}"
        for path, file in sorted(files.items())
    )
