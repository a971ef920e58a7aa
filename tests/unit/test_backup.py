"""The script that makes snapshots of etcd, run in a sandbox with a made-up etcd and made-up storage."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.assets import templates
from components.assets.backup import SCRIPT, backup_files, facts
from components.config import durations
from components.ssh import DONE
from tests.cases import load, read
from tests.unit import recorder
from tests.unit.recorder import REMOTE, program
from tests.unit.sandbox import Sandbox

BACKUPS = "/var/lib/kubepivot/backups"
CLIENT = "/usr/local/libexec/kubepivot/rclone"
COPIES = "/var/storage/alpha"
CONTENT = b"pages of a database".ljust(1024)
GIB = 1 << 30

# What etcd sends is in /var/etcd.db.
STATUS = '[{"Endpoint":"https://127.0.0.1:2379","Status":{"dbSize":1024,"dbSizeInUse":512,"dbSizeQuota":9}}]'
ANSWERS = f"""case $* in *"endpoint status"*) echo '{STATUS}'; exit ;; esac; for file; do :; done"""
ETCDCTL = f"""
echo "$*" >>/var/calls
{ANSWERS}
cat /var/etcd.db >"$file"
"""
ETCDUTL = """echo '{"hash":2718281828,"revision":4711,"totalKey":9,"totalSize":1024,"version":"3.6.0"}'"""

# The remote `copies` is /var/storage, by the host's name.
RCLONE = """
echo "$*" >>/var/client
[ "$RCLONE_CONFIG_COPIES_TYPE" = crypt ] || exit 9
if [ "$1" = obscure ]; then tr a-z n-za-m; exit; fi
[ "$RCLONE_CONFIG_COPIES_PASSWORD" = "$(echo "$KEY" | tr a-z n-za-m)" ] || exit 9
if [ -e /var/refused ]; then echo "attempt 1" >&2; echo "SignatureDoesNotMatch" >&2; exit 1; fi
while [ "${1#--}" != "$1" ]; do shift; done
mkdir -p /var/storage/alpha
case $1 in
  copy) for file in *.db; do [ -e "/var/storage/alpha/$file" ] || cp "$file" /var/storage/alpha; done ;;
  copyto) cp "/var/storage/${2#copies:}" "$3" ;;
  delete) while read -r file; do rm "/var/storage/alpha/$file"; done ;;
  lsf)
    cd /var/storage
    if [ "$2" != --recursive ]; then ls alpha; exit; fi
    for file in */${7#/*/}; do [ ! -e "$file" ] || echo "$file;$(stat -c %s "$file")"; done ;;
esac
"""


def database(content: bytes = CONTENT) -> bytes:
    """A snapshot as etcd sends it."""
    return content + hashlib.sha256(content).digest()


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A controller of the case `baremetal`, which copies to S3 and keeps 10, without its S3."""
    host = Sandbox(tmp_path)
    host.real("cat", "cp", "cut", "date", "flock", "grep", "head", "install", "ls", "mkdir", "mv", "od", "rm")
    host.real("awk", "sed", "sha256sum", "sleep", "sort", "stat", "sync", "tail", "timeout", "touch", "tr")
    host.fake("etcdctl", ETCDCTL)
    host.fake("etcdutl", ETCDUTL)
    free(host, 20 * GIB)
    host.write("/var/calls")
    host.path("/var/etcd.db").write_bytes(database())
    configure(host)
    return host


def free(host: Sandbox, size: int) -> None:
    """Gives the host's disk that much room."""
    host.fake("df", f"echo Avail; echo {size}")


def configure(host: Sandbox, *, keep: int = 10, most: str = "10Gi", s3: bool = False) -> None:
    """Brings script and settings as the node's step does."""
    case = load("baremetal")
    update = {"keep": keep, "max_size": most} | ({} if s3 else {"s3": None})
    backup = case.cfg.backup.model_copy(update=update)
    files = backup_files(case.cfg.model_copy(update={"backup": backup}), case.machines["alpha"])
    for path in (SCRIPT, "/etc/kubernetes/backup.env"):
        host.write(path, host.moved(files[path].text))
        host.path(path).chmod(files[path].mode)
    if s3:
        assert case.cfg.backup.s3 is not None
        key = case.cfg.backup.s3.encryption_key.get_secret_value()
        host.write("/var/client")
        host.write(CLIENT, host.moved(f"#!/bin/sh\nKEY='{key}'\n{RCLONE}"))
        host.path(CLIENT).chmod(0o755)


def run(host: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    return host.run(" ".join([f"exec {SCRIPT}", *arguments]))


def made(host: Sandbox) -> Path:
    """Makes a snapshot that has to succeed."""
    done = run(host)
    assert (done.returncode, done.stderr) == (0, "")
    told = facts(done.stdout)
    assert told["sha256"] == hashlib.sha256(Path(told["path"]).read_bytes()).hexdigest()
    return Path(told["path"])


def failed(host: Sandbox, *arguments: str) -> str:
    """Runs what has to fail, and returns the error."""
    done = run(host, *arguments)
    assert done.returncode == 1
    return done.stderr.replace(str(host.root), "")


def older(host: Sandbox, *days: int, directory: str = BACKUPS) -> list[str]:
    """Snapshots of these days of January, with their sums."""
    names = [f"metal-202601{day:02}T030405Z-{day}.db" for day in days]
    for name in names:
        host.write(f"{directory}/{name}", name)
        if directory == BACKUPS:
            host.write(f"{directory}/{name}.sha256", f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n")
    return names


def snapshots(host: Sandbox, directory: str = BACKUPS) -> list[str]:
    """Every file that is there, without the sums; each snapshot has one, and no sum is alone."""
    names = sorted(path.name for path in host.path(directory).iterdir())
    if directory == BACKUPS:
        sums = [name for name in names if name.endswith(".sha256")]
        assert [f"{name}.sha256" for name in names if name not in sums] == sums
        names = [name for name in names if name not in sums]
    return names


# -- what is told --------------------------------------------------------------------------------------------


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


# -- making one ----------------------------------------------------------------------------------------------


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


# -- what goes wrong -----------------------------------------------------------------------------------------

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
    assert sum(map(int, deadlines)) < int(step) == durations.seconds(timer)


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


# -- copies --------------------------------------------------------------------------------------------------


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
