"""Snapshots of etcd that cannot be made, or whose run is cut short: the script, run in a sandbox."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.assets import templates
from components.assets.backup import SCRIPT
from components.config import durations
from tests.cases import read
from tests.unit.backed_up_host import (
    ANSWERS,
    BACKUPS,
    COPIES,
    ETCDCTL,
    GIB,
    arrange,
    configure,
    database,
    failed,
    free,
    made,
    older,
    run,
    snapshots,
)
from tests.unit.recorder import program
from tests.unit.sandbox import Sandbox


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    return arrange(Sandbox(tmp_path))


FAILURES = {
    "etcd is down": ("etcdctl", "echo 'Error: connection refused' >&2; exit 1", "connection refused"),
    "the disk is full": (
        "etcdctl",
        f"{ANSWERS}; echo pages >$file.part; echo 'no space left on device' >&2; exit 1",
        "no space left on device",
    ),
    "the disk is full afterwards": ("sync", "echo 'sync: No space left on device' >&2; exit 1", "No space"),
    "a page is damaged": ("etcdutl", "echo 'Error: integrity check failed' >&2; exit 1", "is damaged"),
    "etcd tells no size": ("etcdctl", "echo '[]'", "tells no size of its database: []"),
    "a full disk is near": (
        "df",
        f"echo Avail; echo {GIB + 2047}",
        "no snapshot was made, older ones are as they were: /var/lib/kubepivot/backups has 1024 MiB free, "
        "and 1024 MiB are needed, 1024 of them left for etcd; make space there, or lower kubepivot:backup.",
    ),
    "etcdutl tells nothing": ("etcdutl", "echo '{}'", "tells no revision: {}"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_told_and_leaves_the_old_ones_alone(host: Sandbox, failure: str) -> None:
    configure(host, keep=1)
    names = older(host, 1, 2)
    command, body, words = FAILURES[failure]
    host.fake(command, body)
    assert words in failed(host)
    assert snapshots(host) == names


def test_room_for_twice_the_database_and_the_reserve_is_enough(host: Sandbox) -> None:
    free(host, GIB + 2048)
    made(host)


def test_what_would_fill_the_disk_is_not_fetched(host: Sandbox) -> None:
    configure(host, s3=True)
    name = "metal-20260102T030405Z-2.db"
    host.path(COPIES).mkdir(parents=True)
    host.path(f"{COPIES}/{name}").write_bytes(database())
    free(host, GIB + 1055)
    assert f"error: {name} was not fetched, older ones are as they were" in failed(host, "fetch", name)
    free(host, GIB + 1056)
    assert run(host, "fetch", name).returncode == 0


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (database()[:-1], "cut short: it has 1055 bytes"),
        (database()[:512], "cut short"),
        (b"", "cut short"),
        (b"x" + database()[1:], "but etcd sent"),
        (database()[:-1] + b"\0", "but etcd sent"),
    ],
)
def test_a_snapshot_that_is_not_what_etcd_sent_is_not_kept(host: Sandbox, sent: bytes, words: str) -> None:
    names = older(host, 1)
    host.path("/var/etcd.db").write_bytes(sent)
    assert words in failed(host)
    assert snapshots(host) == names


def start(host: Sandbox) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [host.path(SCRIPT)],
        env={"PATH": str(host.root.parent / "bin")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_what_a_killed_run_has_left_goes_with_the_next(host: Sandbox, kind: signal.Signals) -> None:
    names = older(host, 1)
    slow = f"{ANSWERS}; echo pages >$file.part; echo $$ >/var/pid.new; mv /var/pid.new /var/pid"
    host.fake("etcdctl", f"{slow}; exec sleep 60")
    process = start(host)
    wait_for(host.path("/var/pid"))
    os.killpg(process.pid, kind)
    # `timeout` has a process group of its own, and what runs below it the lock.
    os.kill(int(host.path("/var/pid").read_text()), signal.SIGKILL)
    process.communicate(timeout=10)
    assert process.returncode != 0
    host.write(f"{BACKUPS}/metal-20260102T030405Z-2.db.sha256", "the second of two files was not written")
    host.fake("etcdctl", ETCDCTL)
    path = made(host)
    assert snapshots(host) == [*names, path.name]


def test_one_run_waits_for_the_other(host: Sandbox) -> None:
    slow = f"case $* in *save*) echo begin >>/var/calls ;; esac{ETCDCTL}sleep 0.2; echo end >>/var/calls"
    host.fake("etcdctl", slow)
    with ThreadPoolExecutor() as pool:
        done = [each.result() for each in [pool.submit(run, host) for _ in range(3)]]
    assert [each.returncode for each in done] == [0, 0, 0], done
    calls = [line for line in host.path("/var/calls").read_text().splitlines() if line in ("begin", "end")]
    assert calls == ["begin", "end"] * 3


def test_an_unknown_command_is_refused(host: Sandbox) -> None:
    assert failed(host, "restore", "x") == "error: unknown: restore; use no argument, or fetch NAME\n"
    assert failed(host, "fetch") == "error: use no argument, or fetch NAME\n"
    assert host.path("/var/calls").read_text() == ""


def test_whoever_starts_a_run_waits_for_all_of_its_deadlines() -> None:
    """Else a slow run would end without its reason."""
    script = templates.read("scripts/backup.sh")
    deadlines = [
        *re.findall(r"flock --wait (\d+)", script),
        *re.findall(r"timeout (\d+)", script),
        *re.findall(r"\bs3 (\d+)", script.split("\ncopy() {")[1].split("\n}")[0]),
        *(str(int(seconds) + 10) for seconds in re.findall(r"^  etcd (\d+)", script, re.MULTILINE)),
    ]
    assert len(deadlines) == 7
    run = program(read("lab") | {"backup": {"generation": 1}})
    (step,) = re.findall(r"timeout (\d+) sh", run.only("lab-controller-1-backup").inputs["create"])
    unit = templates.read("files/kubepivot-backup.service")
    (timer,) = re.findall(r"^TimeoutStartSec=(.*)$", unit, re.MULTILINE)
    (before,) = re.findall(r"timeout (\d+) sh", run.only("lab-controller-1-snapshot").inputs["create"])
    assert sum(map(int, deadlines)) < int(step) == int(before) == durations.seconds(timer)


def test_storage_that_is_too_slow_is_told(host: Sandbox) -> None:
    configure(host, s3=True)
    host.fake("timeout", 'case $* in *" lsf "*) exit 124 ;; esac; shift; exec "$@"')
    assert (
        "(kubepivot:backup.s3); the next run copies what is missing: it did not end within 120 s"
        in failed(host)
    )


def test_a_check_that_takes_too_long_is_no_damage(host: Sandbox) -> None:
    host.fake("timeout", 'case $* in *etcdutl*) exit 124 ;; esac; shift; exec "$@"')
    assert failed(host) == "error: the snapshot could not be checked within 300 s\n"
