"""Renders the snapshot script of etcd for a controller, its settings and its systemd timer."""

from __future__ import annotations

import shlex

from components.archive import File
from components.assets import templates
from components.config import ClusterConfig, durations, sizes
from components.hosts.machine import Machine

__all__ = ["SCRIPT", "backup_files", "facts", "generation_file"]

SCRIPT = "/usr/local/libexec/kubepivot/backup"
SPREAD = 20
"""Controllers make their snapshots up to this part of the interval apart."""


def backup_files(cfg: ClusterConfig, machine: Machine) -> dict[str, File]:
    """Script, units and settings by path. The settings are one file, so that the digest of it, which is no
    secret, says nothing about the shortest secret in it.
    """
    interval = durations.seconds(cfg.backup.interval)
    timer = {"interval": str(interval), "spread": str(interval // SPREAD)}
    units = {
        "kubepivot-backup.service": templates.read("files/kubepivot-backup.service"),
        "kubepivot-backup.timer": templates.substitute(templates.read("files/kubepivot-backup.timer"), timer),
    }
    return {
        SCRIPT: File(templates.read("scripts/backup.sh"), mode=0o755),
        "/etc/kubernetes/backup.env": File(_settings(cfg, machine), mode=0o600),
        **{f"/etc/systemd/system/{name}": File(text) for name, text in units.items()},
    }


def _settings(cfg: ClusterConfig, machine: Machine) -> str:
    text = _filled(
        "backup.env",
        cluster=cfg.name,
        host=machine.name,
        keep=str(cfg.backup.keep),
        **{"max-bytes": str(sizes.in_bytes(cfg.backup.max_size))},
    )
    s3 = cfg.backup.s3
    if s3 is None:
        return text
    path = "/".join(part for part in (s3.bucket, s3.prefix, cfg.name) if part)
    return text + _filled(
        "backup-s3.env",
        storage=f"{s3.endpoint}/{path}",
        remote=f"s3:{path}",
        endpoint=s3.endpoint,
        region=s3.region,
        **{
            "access-key": s3.access_key.get_secret_value(),
            "secret-key": s3.secret_key.get_secret_value(),
            "encryption-key": s3.encryption_key.get_secret_value(),
        },
    )


def _filled(name: str, **values: str) -> str:
    quoted = {key: shlex.quote(value) for key, value in values.items()}
    return templates.substitute(templates.read(f"files/{name}"), quoted)


def generation_file(cfg: ClusterConfig) -> File:
    """The number that, raised, asks for a snapshot: nothing else of a step that makes one ever changes."""
    return File(f"{cfg.backup.generation}\n")


def facts(output: str) -> dict[str, str]:
    """Parses the script's output: path and SHA-256 of a snapshot. ValueError if one is missing."""
    # A login shell may have printed something of its own first.
    told = ("path=", "sha256=")
    found = dict(line.split("=", 1) for line in output.splitlines() if line.startswith(told))
    for fact in told:
        if fact[:-1] not in found:
            raise ValueError(f"there is no line {fact}… in {output!r}")
    return found
