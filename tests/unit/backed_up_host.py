"""A controller with the script that makes snapshots of etcd, in a sandbox: etcd and the storage are made up.

host = arrange(Sandbox(tmp_path))
path = made(host)
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from components.assets.backup import SCRIPT, backup_files, facts
from tests.cases import load
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


def arrange(host: Sandbox) -> Sandbox:
    """A controller of the case `baremetal`, which copies to S3 and keeps 10, without its S3."""
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
