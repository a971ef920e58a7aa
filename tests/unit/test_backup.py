"""Snapshots of etcd: what is made, what is kept and what is told. The script is run in a sandbox."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.assets.backup import facts
from components.ssh import DONE
from tests.cases import read
from tests.unit import recorder
from tests.unit.backed_up_host import (
    BACKUPS,
    GIB,
    arrange,
    configure,
    database,
    made,
    older,
    snapshots,
)
from tests.unit.recorder import REMOTE, program
from tests.unit.sandbox import Sandbox


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    return arrange(Sandbox(tmp_path))


def test_what_a_login_shell_prints_is_no_fact() -> None:
    told = "Welcome!\n1 + 1 = 2\npath=/a/b=c.db\nsha256=12\n"
    assert facts(told) == {"path": "/a/b=c.db", "sha256": "12"}


@pytest.mark.parametrize("said", ["", "path=/a.db", "Welcome!path=/a.db\nsha256=12"])
def test_a_missing_fact_is_told(said: str) -> None:
    with pytest.raises(ValueError, match=r"there is no line (path|sha256)="):
        facts(said)


def test_a_missing_fact_comes_with_its_mend() -> None:
    raw = read("lab") | {"backup": {"generation": 1}}

    def answer(name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        said = {"stdout": f"Hi!\n{DONE}"}
        return said if name.endswith("-backup") else recorder.ANSWERS[REMOTE](name, inputs)

    with pytest.raises(pulumi.RunError, match=r"snapshot that controller-1 made is not told: .*--replace"):
        program(raw, answers={REMOTE: answer})


def test_a_snapshot_is_named_by_cluster_time_and_revision_and_is_the_owners(host: Sandbox) -> None:
    path = made(host)
    assert re.fullmatch(r"metal-20\d{6}T\d{6}Z-4711\.db", path.name)
    assert path.read_bytes() == database()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent == host.path(BACKUPS)
    check = ["sha256sum", "--check", "--strict", f"{path.name}.sha256"]
    assert subprocess.run(check, cwd=path.parent, capture_output=True, timeout=10).returncode == 0
    assert snapshots(host) == [path.name]


def test_etcd_on_this_host_is_asked_with_a_certificate(host: Sandbox) -> None:
    made(host)
    calls = host.path("/var/calls").read_text().replace(str(host.root), "").splitlines()
    assert [call.split()[-2:] for call in calls] == [["status", "--write-out=json"], ["save", ".new.db"]]
    pki = "/etc/kubernetes/pki/etcd"
    for call in calls:
        assert "--endpoints=https://127.0.0.1:2379" in call
        for flag in (f"--cacert={pki}/ca.crt", f"--cert={pki}/server.crt", f"--key={pki}/server.key"):
            assert flag in call.split()
        assert "--command-timeout=" in call


def test_only_the_newest_stay(host: Sandbox) -> None:
    configure(host, keep=3)
    names = older(host, 1, 2, 3, 4)
    assert snapshots(host) == names
    path = made(host)
    assert snapshots(host) == [*names[-2:], path.name]


def test_the_new_one_stays_whatever_the_clock_says(host: Sandbox) -> None:
    configure(host, keep=1)
    host.write(f"{BACKUPS}/metal-29991231T235959Z-1.db")
    path = made(host)
    assert snapshots(host) == [path.name]


def test_snapshots_of_the_future_go_before_those_of_the_past(host: Sandbox) -> None:
    configure(host, keep=4)
    names = older(host, 1, 2)
    future = [f"metal-2999123{day}T000000Z-1.db" for day in (0, 1)]
    for name in future:
        host.write(f"{BACKUPS}/{name}")
        host.write(f"{BACKUPS}/{name}.sha256")
    path = made(host)
    assert snapshots(host) == [*names, path.name, future[1]]


def test_all_together_take_no_more_than_they_may(host: Sandbox) -> None:
    configure(host, most="1Gi")
    names = older(host, 1, 2, 3)
    for name in names:
        os.truncate(host.path(f"{BACKUPS}/{name}"), GIB // 2)  # takes nothing of the disk
    path = made(host)
    assert snapshots(host) == [names[-1], path.name]


def test_the_newest_stays_however_large_it_is(host: Sandbox) -> None:
    older(host, 1)
    settings = host.path("/etc/kubernetes/backup.env")
    settings.write_text(settings.read_text() + "MAX_BYTES=1\n")
    path = made(host)
    assert snapshots(host) == [path.name]


def test_files_that_are_no_snapshots_of_the_cluster_stay(host: Sandbox) -> None:
    configure(host, keep=1)
    others = ["metal-2-20260101T000000Z-1.db", "other-20260101T000000Z-1.db", "metal.db", "notes"]
    for name in others:
        host.write(f"{BACKUPS}/{name}")
    path = made(host)
    assert {entry.name for entry in host.path(BACKUPS).iterdir()} == {
        *others,
        path.name,
        f"{path.name}.sha256",
    }
