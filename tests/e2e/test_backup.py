"""Snapshots of etcd: made by the timer and when asked for, kept, and copied to a real S3 server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import pins, toolchain
from lab.engine import docker
from lab.images import S3_CLIENT, ensure_images
from lab.progress import Progress
from tests.e2e.probing import credentials
from tests.e2e.stacks import Checkout, Stack, eventually, lab_config, remove_hosts
from tests.e2e.witnesses import Writer, add_users, lost, users

pytestmark = pytest.mark.e2e

CONTROLLER = "backup-controller-1"
ENDPOINT = "https://172.30.8.11:6443"
BACKUPS = "/var/lib/kubepivot/backups"
BACKUP = "/usr/local/libexec/kubepivot/backup"
SERVER = "172.30.8.5"
ACCESS, SECRET = "kubepivot-backups", "the-secret-of-the-access-key"
KEY = "a-key-that-the-storage-never-sees"
KNOWN = "what-only-a-secret-of-the-cluster-says"


class Storage:
    """versitygw in a container: an S3 server that keeps objects as files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "backups"
        self.directory.mkdir(parents=True)
        program = toolchain.ensure("versitygw", Progress(), installed=False)
        docker(
            *("run", "--detach", "--name", "backup-storage", "--label", "kubepivot.cluster=storage"),
            *("--network", "kubepivot", "--ip", SERVER),
            *("--volume", f"{program}:/versitygw:ro", "--volume", f"{directory}:/storage"),
            *("--env", f"ROOT_ACCESS_KEY={ACCESS}", "--env", f"ROOT_SECRET_KEY={SECRET}"),
            *("--entrypoint", "/versitygw", "kubepivot/host:latest"),
            *("--port", ":7070", "posix", "/storage"),
        )

    @property
    def copies(self) -> dict[str, bytes]:
        """What is stored for the controller, by the names of the snapshots."""
        directory = self.directory / "clusters" / "backup" / "controller-1"
        return {path.name.removesuffix(".bin"): path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def storage(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    remove_hosts("storage")  # of a test run that was killed
    yield Storage(tmp_path_factory.mktemp("storage"))
    remove_hosts("storage")


def config(*, generation: int = 0, **changed: str) -> dict[str, Any]:
    """A lab that keeps two snapshots, and two copies."""
    s3 = {
        "endpoint": f"http://{SERVER}:7070",
        "bucket": "backups",
        "prefix": "clusters",
        "accessKey": ACCESS,
        "secretKey": SECRET,
        "encryptionKey": KEY,
        **changed,
    }
    return {
        **lab_config(8),
        "etcd": {"quota": "64Mi"},
        "backup": {"keep": 2, "generation": generation, "s3": s3},
    }


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack], storage: Storage) -> Iterator[Stack]:
    ensure_images(Progress(), (S3_CLIENT,))
    stack = new_stack("backup", config())
    begin = time.monotonic()
    stack.up()
    print(f"pulumi up took {time.monotonic() - begin:.0f} s")
    stack.kubectl("create", "secret", "generic", "known", f"--from-literal=text={KNOWN}")
    add_users(stack)
    yield stack


def on_controller(command: str) -> str:
    return docker("exec", CONTROLLER, "sh", "-ec", command)


def snapshots() -> list[str]:
    """Names of the snapshots on the controller; nothing else is there but their sums."""
    names = on_controller(f"ls -A {BACKUPS}").split()
    assert [name for name in names if not re.fullmatch(r"backup-\d{8}T\d{6}Z-\d+\.db(\.sha256)?", name)] == []
    found = [name for name in names if name.endswith(".db")]
    assert sorted([*found, *(f"{name}.sha256" for name in found)]) == sorted(names)
    return found


def asked_for(stack: Stack) -> dict[str, str]:
    """Path and hash of the controller's snapshot, as any user reads them."""
    outputs: dict[str, dict[str, str]] = json.loads(stack.pulumi("stack", "output", "backups", "--json"))
    (found,) = outputs.values()
    return found


def log() -> str:
    return on_controller("journalctl --unit kubepivot-backup --output cat --no-pager")


# -- the timer -----------------------------------------------------------------------------------------------

SPAN = {"d": 86400, "h": 3600, "min": 60, "s": 1, "ms": 0.001, "us": 0.000001}


def timers() -> dict[str, float]:
    """Seconds since the machine's start at which each of the timer's conditions is met next."""
    text = on_controller("systemctl show kubepivot-backup.timer --property=TimersMonotonic --value")
    found = re.findall(r"(\w+)=[^;]*; next_elapse=([^}]*) }", text)
    parts = {name: re.findall(r"([\d.]+)([a-z]+)", span) for name, span in found}
    return {
        name: sum(float(number) * SPAN[unit] for number, unit in each if unit in SPAN)
        for name, each in parts.items()
    }


def uptime() -> float:
    return float(on_controller("cut -d ' ' -f 1 /proc/uptime"))


def test_the_timer_runs_soon_and_then_every_six_hours(stack: Stack) -> None:
    assert on_controller("systemctl is-active kubepivot-backup.timer") == "active"
    assert on_controller("systemctl is-enabled kubepivot-backup.timer") == "enabled"
    assert 0 < timers()["OnActiveUSec"] - uptime() < 300 + 1080
    begin = uptime()
    on_controller("systemctl start kubepivot-backup.service")
    assert "path=/var/lib/kubepivot/backups/backup-" in log()
    assert len(snapshots()) == 1
    assert begin <= timers()["OnUnitActiveUSec"] - 6 * 3600 <= uptime() + 1080


def test_the_first_copy_is_there(stack: Stack, storage: Storage) -> None:
    assert list(storage.copies) == snapshots()


# -- asked for -----------------------------------------------------------------------------------------------


def test_a_generation_makes_a_snapshot_now(stack: Stack) -> None:
    stack.configure(config(generation=1))
    plan = stack.pulumi("preview")
    assert "backup-controller-1-backup" in plan
    assert "-node" not in plan and "apiserver" not in plan
    begin = time.monotonic()
    stack.up()
    print(f"pulumi up with a snapshot took {time.monotonic() - begin:.1f} s")
    told = asked_for(stack)
    assert told["path"].startswith(f"{BACKUPS}/backup-")
    assert told["path"].rpartition("/")[2] == snapshots()[-1]
    assert on_controller(f"stat -c %a:%U {told['path']}") == "600:root"
    assert on_controller(f"stat -c %a:%U {BACKUPS}") == "700:root"
    assert on_controller(f"sha256sum {told['path']}").split()[0] == told["sha256"]
    on_controller(f"cd {BACKUPS}; sha256sum --check --strict {told['path']}.sha256")
    status = json.loads(on_controller(f"etcdutl snapshot status {told['path']} --write-out=json"))
    assert told["path"].endswith(f"-{status['revision']}.db")
    assert status["totalKey"] > 100
    assert on_controller(f"grep --count --text {KNOWN} {told['path']}") != "0"


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    stack.second_up_changes_nothing()


def test_only_the_newest_stay_here_and_there(stack: Stack, storage: Storage) -> None:
    before = snapshots()
    assert len(before) == 2
    on_controller("systemctl start kubepivot-backup.service")
    assert snapshots()[0] == before[1]
    assert len(snapshots()) == 2
    assert sorted(storage.copies) == snapshots()


# -- copies --------------------------------------------------------------------------------------------------


def test_a_copy_tells_nothing_and_comes_back_whole(stack: Stack, storage: Storage) -> None:
    for name, content in storage.copies.items():
        original = on_controller(f"grep --count --text {KNOWN} {BACKUPS}/{name}")
        assert original != "0"
        assert KNOWN.encode() not in content
        assert b"/registry/" not in content
    name = snapshots()[0]
    sha256 = on_controller(f"sha256sum {BACKUPS}/{name}").split()[0]
    on_controller(f"rm {BACKUPS}/{name} {BACKUPS}/{name}.sha256")
    said = on_controller(f"{BACKUP} fetch {name}")
    assert said.splitlines() == [f"path={BACKUPS}/{name}", f"sha256={sha256}"]
    assert on_controller(f"sha256sum {BACKUPS}/{name}").split()[0] == sha256
    assert on_controller(f"stat -c %a {BACKUPS}/{name}") == "600"


def test_storage_that_refuses_fails_the_run_and_not_the_snapshot(stack: Stack, storage: Storage) -> None:
    stack.configure(config(generation=2, secretKey="the-wrong-secret"))
    output = stack.up(fails=True)
    assert "is safe on this host, but not in http://172.30.8.5:7070/backups/clusters/backup" in output
    assert "SignatureDoesNotMatch" in output
    assert "kubepivot:backup.s3" in output
    assert "the-wrong-secret" not in output and KEY not in output
    newest = snapshots()[-1]
    assert newest not in storage.copies
    stack.configure(config(generation=2))
    stack.up()
    assert newest in snapshots()
    assert sorted(storage.copies) == snapshots()
    stack.second_up_changes_nothing()


def test_no_credential_is_in_the_state_in_plain_text(stack: Stack) -> None:
    state = stack.pulumi("stack", "export")
    assert "backup-controller-1-backup" in state
    assert [secret for secret in (SECRET, KEY) if secret in state] == []


# -- what goes wrong -----------------------------------------------------------------------------------------


def failed_run() -> str:
    """What a run says that has to fail."""
    before = log()
    on_controller("systemctl start kubepivot-backup.service || true")
    assert on_controller("systemctl is-failed kubepivot-backup.service") == "failed"
    return log().removeprefix(before)


def test_a_full_disk_leaves_nothing_behind(stack: Stack) -> None:
    on_controller(f"mount -t tmpfs -o size=1m tmpfs {BACKUPS}")
    try:
        said = failed_run()
        left = on_controller(f"ls -A {BACKUPS}")
    finally:
        on_controller(f"umount {BACKUPS}")
    assert "no snapshot was made" in said and "has 1 MiB free" in said and "kubepivot:backup.keep" in said
    assert left == ""


def test_a_snapshot_needs_etcd_and_nothing_else(stack: Stack) -> None:
    """The kubelet, and with it the control plane, is stopped; then etcd is."""
    before, people, known = snapshots(), users(stack), credentials(stack)
    assert known is not None
    with Writer(ENDPOINT, known, "backup") as writer:
        on_controller("systemctl stop kubelet")
        try:
            for process in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
                on_controller(f"pkill -9 -f '^{process} '")
            on_controller("systemctl start kubepivot-backup.service")
            assert snapshots()[0] == before[1]
            on_controller("pkill -9 -f '^etcd '")
            begin = time.monotonic()
            said = failed_run()
            print(f"without etcd it failed after {time.monotonic() - begin:.0f} s: {said.strip()}")
        finally:
            on_controller("systemctl start kubelet")
        assert "error: etcd on this host gave no snapshot" in said
        eventually("etcd and the API again", 120, lambda: _serves(stack))
        writer.writes_on()
    on_controller("systemctl start kubepivot-backup.service")
    assert lost(stack, writer.acknowledged) == set()
    assert users(stack) == people
    stack.second_up_changes_nothing()


def _serves(stack: Stack) -> bool:
    return on_controller("curl -sk https://127.0.0.1:6443/readyz || true") == "ok"


# -- etcd's quota --------------------------------------------------------------------------------------------

EXCEEDED = "database space exceeded"


def cure() -> list[str]:
    """The commands that the documentation gives, the last apart."""
    text = (pins.CHECKOUT / "docs" / "operations.md").read_text().split("## etcd's quota is used up")[1]
    commands = text.split("```sh\n")[1].split("```")[0]
    made, last = commands.rstrip().rsplit("\n", 1)
    assert last == "etcd alarm disarm"
    return [made, commands.split("etcd endpoint")[0] + last]


def test_etcds_quota_is_used_up_and_the_documented_commands_cure_it(stack: Stack, tmp_path: Path) -> None:
    people, large = users(stack), tmp_path / "large"
    large.write_bytes(b"x" * 900_000)

    def fill() -> Iterator[str]:
        for number in range(100):
            name = f"configmap/fill-{number}"
            done = stack.run_kubectl("create", *name.split("/"), f"--from-file={large}")
            if done.returncode:
                assert EXCEEDED in done.stderr
                return
            yield name
        pytest.fail("64 MiB took 90 MB")

    filled = list(fill())
    on_controller("systemctl start kubepivot-backup.service")
    assert snapshots(), "what only reads goes on"
    stack.kubectl("delete", *filled)
    space, alarm = cure()
    on_controller(space)
    assert EXCEEDED in stack.kubectl("create", "configmap", "after", fails=True), (
        "the alarm outlives the cause"
    )
    on_controller(alarm)
    stack.kubectl("create", "configmap", "after")
    assert users(stack) == people
    stack.second_up_changes_nothing()


def test_destroy_leaves_nothing(stack: Stack) -> None:
    stack.destroy()
    assert docker("container", "ls", "--all", "--quiet", "--filter", "label=kubepivot.cluster=backup") == ""
