"""Copies of snapshots at S3, sent and fetched: the script, run in a sandbox with made-up storage."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from components.assets.backup import facts
from tests.cases import load
from tests.unit.backed_up_host import (
    BACKUPS,
    CLIENT,
    COPIES,
    arrange,
    configure,
    database,
    failed,
    made,
    older,
    run,
    snapshots,
)
from tests.unit.sandbox import Sandbox


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    return arrange(Sandbox(tmp_path))


def test_without_s3_no_client_is_needed(host: Sandbox) -> None:
    made(host)
    assert not host.path(CLIENT).exists()


def test_what_the_storage_lacks_is_copied_and_only_the_newest_stay(host: Sandbox) -> None:
    configure(host, keep=3, s3=True)
    here, there = older(host, 5), older(host, 1, 2, 3, directory=COPIES)
    path = made(host)
    assert snapshots(host) == [*here, path.name]
    assert snapshots(host, COPIES) == [there[-1], *here, path.name]


def test_no_secret_is_an_argument(host: Sandbox) -> None:
    configure(host, keep=1, s3=True)
    older(host, 1, directory=COPIES)
    made(host)
    calls = host.path("/var/client").read_text()
    assert [line.split()[0 if line.startswith("obscure") else 4] for line in calls.splitlines()] == [
        *("obscure", "lsf", "copy", "delete")
    ]
    s3 = load("baremetal").cfg.backup.s3
    assert s3 is not None
    for secret in (s3.access_key, s3.secret_key, s3.encryption_key):
        assert secret.get_secret_value() not in calls


def test_storage_that_refuses_is_an_error_and_the_snapshot_is_safe(host: Sandbox) -> None:
    configure(host, s3=True)
    host.write("/var/refused")
    error = failed(host)
    (name,) = snapshots(host)
    assert f"{BACKUPS}/{name} is safe on this host, but not in https://s3.example.com/backups/" in error
    assert "SignatureDoesNotMatch" in error
    assert "kubepivot:backup.s3" in error
    host.path("/var/refused").unlink()
    path = made(host)
    assert {name, path.name} == set(snapshots(host)) == set(snapshots(host, COPIES))


def test_a_copy_is_fetched_from_whichever_host_made_it(host: Sandbox) -> None:
    configure(host, s3=True)
    name = "metal-20260102T030405Z-2.db"
    host.path("/var/storage/beta").mkdir(parents=True)
    host.path(f"/var/storage/beta/{name}").write_bytes(database())
    done = run(host, "fetch", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert facts(done.stdout) == {
        "path": str(host.path(f"{BACKUPS}/{name}")),
        "sha256": hashlib.sha256(database()).hexdigest(),
    }
    assert host.path(f"{BACKUPS}/{name}").read_bytes() == database()
    assert host.path(f"{BACKUPS}/{name}").stat().st_mode & 0o777 == 0o600
    assert snapshots(host) == [name]


def test_what_is_on_the_host_is_not_fetched(host: Sandbox) -> None:
    (name,) = older(host, 1)
    done = run(host, "fetch", name)
    assert facts(done.stdout)["sha256"] == hashlib.sha256(name.encode()).hexdigest()
    host.write(f"{BACKUPS}/{name}", "damaged")
    assert "has no whole" in failed(host, "fetch", name)
    configure(host, s3=True)
    host.path(COPIES).mkdir(parents=True)
    host.path(f"{COPIES}/{name}").write_bytes(database())
    assert run(host, "fetch", name).returncode == 0
    assert host.path(f"{BACKUPS}/{name}").read_bytes() == database()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("metal-20260102T030405Z-2.db", "neither /var/lib/kubepivot/backups nor https://s3.example.com/"),
        ("other-20260102T030405Z-2.db", "no snapshot of the cluster metal"),
        ("../metal-20260102T030405Z-2.db", "no snapshot of the cluster metal"),
        ("metal-20260102T030405Z-2.db.sha256", "no snapshot of the cluster metal"),
    ],
)
def test_what_cannot_be_fetched_is_refused(host: Sandbox, name: str, words: str) -> None:
    configure(host, s3=True)
    assert words in failed(host, "fetch", name)
    assert snapshots(host) == []


def test_a_damaged_copy_is_not_taken(host: Sandbox) -> None:
    configure(host, s3=True)
    name = "metal-20260102T030405Z-2.db"
    host.path(COPIES).mkdir(parents=True)
    host.path(f"{COPIES}/{name}").write_bytes(b"x" + database()[1:])
    assert f"the copy alpha/{name} in https://s3.example.com/backups/kubernetes/metal is damaged" in failed(
        host, "fetch", name
    )
    assert snapshots(host) == []
