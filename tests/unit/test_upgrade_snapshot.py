"""The snapshot of etcd before an upgrade: when it is made, what stops it, and where it stays."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.assets.snapshot import about, former_version, snapshot_files
from components.assets.templates import script
from components.config.releases import LATEST
from components.ssh import Payload, command_text
from tests.cases import Case, load
from tests.unit.raw_configs import EARLIER
from tests.unit.recorder import Run, ran
from tests.unit.sandbox import Sandbox

NAME = "alpha"
BACKUP = "/usr/local/libexec/kubepivot/backup"
MADE = "/var/lib/kubepivot/backups/metal-20260102T030405Z-2.db"
KEPT = "/var/lib/kubepivot/before-upgrade"
RUNS, ETCD = "1.36.1", "3.6.8"
URLS = {
    "kubelet": "https://example.com/mirror/v2/dl.k8s.io/v{}/bin/linux/amd64/kubelet",
    "etcd": "https://github.com/etcd-io/etcd/releases/download/v{0}/etcd-v{0}-linux-amd64.tar.gz",
}


# Of each member one is told.
ETCDCTL = """
echo $* >>/var/calls
case "$*" in
  *status*)
    printf '[{"Status":{"version":"%s","storageVersion":"3.6.0"}},' $(cat /var/member)
    echo '{"Status":{"version":"3.99.0"}}]' ;;
  *) echo 'https://192.168.1.11:2379 is healthy' ;;
esac
"""


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A controller that serves."""
    host = Sandbox(tmp_path)
    host.real("cat", "cp", "cut", "grep", "ln", "mkdir", "mv", "paste", "rm", "sed", "sort", "tail")
    host.fake("sync")
    host.fake("etcdctl", ETCDCTL)
    host.write("/var/member", ETCD)
    has(host, "kubelet", RUNS)
    has(host, "etcd", ETCD)
    makes(host, MADE)
    host.write("/var/lib/kubepivot/last-change", "none\n")
    return host


def has(host: Sandbox, part: str, version: str) -> None:
    """What the host has in place; nothing while it is swapped in."""
    host.write(f"/var/lib/kubepivot/{part}", f"{URLS[part].format(version)}\n" if version else "\n")


def makes(host: Sandbox, path: str) -> None:
    """Gives the host a backup's script that makes this snapshot."""
    host.path(path).parent.mkdir(parents=True, exist_ok=True)
    files = f"echo data >{path}\necho sum >{path}.sha256"
    host.write(
        BACKUP, host.moved(f"#!/bin/sh\necho saved >>/var/calls\n{files}\necho path={path}\necho sha256=1\n")
    )
    host.path(BACKUP).chmod(0o755)


def run(host: Sandbox, kubernetes: str, etcd: str = ETCD) -> subprocess.CompletedProcess[str]:
    files = {path: file.text for path, file in snapshot_files(load("baremetal").cfg, NAME).items()}
    files["env"] = f"NAME={NAME}\nKUBERNETES={kubernetes}\nETCD={etcd}\n"
    host.write("/var/calls")
    done = host.run(script("snapshot"), files)
    done.stdout, done.stderr = (text.replace(str(host.root), "") for text in (done.stdout, done.stderr))
    return done


def calls(host: Sandbox) -> list[str]:
    return host.path("/var/calls").read_text().splitlines()


def kept(host: Sandbox) -> list[str]:
    return sorted(path.name for path in host.path(KEPT).iterdir()) if host.path(KEPT).exists() else []


@pytest.mark.parametrize(
    ("kubelet", "etcd", "kubernetes", "wanted", "made"),
    [
        ("1.36.1", "3.6.8", "1.36.3", "3.6.8", True),
        ("1.36.9", "3.6.8", "1.36.10", "3.6.8", True),
        ("1.35.4", "3.6.8", "1.36.1", "3.6.8", True),
        ("1.36.1", "3.6.8", "1.36.1", "3.6.16", True),
        ("", "3.6.8", "1.36.1", "3.6.8", True),
        ("1.36.1", "3.6.8", "1.36.1", "3.6.8", False),
        ("1.36.3", "3.6.8", "1.36.1", "3.6.8", False),
        ("1.36.3", "3.6.16", "1.36.1", "3.6.8", False),
    ],
)
def test_it_is_made_before_what_is_newer(
    host: Sandbox, kubelet: str, etcd: str, kubernetes: str, wanted: str, made: bool
) -> None:
    """And neither back to an earlier patch nor for a change of flags."""
    has(host, "kubelet", kubelet)
    has(host, "etcd", etcd)
    done = run(host, kubernetes, wanted)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (f"path={KEPT}/{Path(MADE).name}\n" if made else "")
    assert ("saved" in calls(host)) == made


def test_a_new_host_has_nothing_to_save(host: Sandbox) -> None:
    host.path("/var/lib/kubepivot/kubelet").unlink()
    done = run(host, "1.36.3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert calls(host) == []


def test_the_last_one_stays_whatever_the_backups_let_go(host: Sandbox) -> None:
    run(host, "1.36.3")
    assert host.path(f"{KEPT}/{Path(MADE).name}").samefile(host.path(MADE))
    assert host.path(KEPT).stat().st_mode & 0o777 == 0o700
    host.path(MADE).unlink()
    assert kept(host) == [Path(MADE).name, f"{Path(MADE).name}.sha256"]
    newer = MADE.replace("T03", "T04")
    makes(host, newer)
    host.write(f"{KEPT}.new/cut-short")
    assert run(host, "1.36.3").returncode == 0
    assert kept(host) == [Path(newer).name, f"{Path(newer).name}.sha256"]


def test_backups_on_another_disk_are_copied(host: Sandbox) -> None:
    host.fake("ln", "exit 1")
    assert run(host, "1.36.3").returncode == 0
    assert host.path(f"{KEPT}/{Path(MADE).name}").read_text() == "data\n"


def test_an_etcd_that_is_not_well_stops_it(host: Sandbox) -> None:
    """With all members, and their alarms."""
    said = """echo '{"level":"warn"}' >&2; echo 'https://a is unhealthy: NOSPACE' >&2; echo Error >&2"""
    host.fake("etcdctl", f"echo $* >>/var/calls; {said}; exit 1")
    done = run(host, "1.36.3")
    assert done.returncode == 1
    assert done.stderr == (
        "error: etcd is not healthy (https://a is unhealthy: NOSPACE Error), and nothing has been upgraded: "
        "mend that, then run 'pulumi up' again\n"
    )
    (call,) = calls(host)
    assert call.endswith("endpoint health --cluster") and "--cert=" in call
    assert kept(host) == []


@pytest.mark.parametrize(
    ("member", "wanted", "refused"),
    [
        ("3.6.8", "3.7.3", True),
        ("3.6.10", "3.7.3", True),
        ("3.6.11", "3.7.3", False),
        ("3.7.1", "3.7.3", False),
        ("3.6.8", "3.6.16", False),
    ],
)
def test_etcds_next_minor_is_reached_from_a_late_patch(
    host: Sandbox, member: str, wanted: str, refused: bool
) -> None:
    host.write("/var/member", member)
    done = run(host, "1.37.2", wanted)
    assert done.returncode == refused
    assert ("saved" in calls(host)) != refused
    assert not refused or done.stderr == (
        f"error: a member of etcd is {member}, and {wanted} is reached from 3.6.11 or newer: nothing has "
        f"been upgraded; set kubepivot:kubernetesVersion to {RUNS}, which brings such a one, and run "
        "'pulumi up'; then upgrade\n"
    )


def test_without_a_backup_it_stops_and_the_last_one_stays(host: Sandbox) -> None:
    run(host, "1.36.3")
    before = kept(host)
    host.write(BACKUP, "#!/bin/sh\necho 'error: /var/lib has 3 MiB free' >&2; exit 1\n")
    done = run(host, "1.36.3")
    assert done.returncode == 1
    reason, mend = done.stderr.splitlines()
    assert reason == "error: /var/lib has 3 MiB free"
    assert mend.startswith("error: the backup of etcd that comes first has failed, and nothing has been ")
    assert kept(host) == before


def test_an_earlier_minor_is_refused_by_what_the_host_runs(host: Sandbox) -> None:
    """The stack of a cluster of an earlier commit has no record to refuse it by."""
    done = run(host, "1.35.4")
    assert (done.returncode, calls(host)) == (1, [])
    assert done.stderr == (
        'error: kubepivot:kubernetesVersion = "1.35.4": alpha runs 1.36.1, and 1.35 may not read what that '
        "has stored: use a version of 1.36\n"
    )


def test_a_cluster_of_an_earlier_kubepivot_gets_no_other_minor_at_once(host: Sandbox) -> None:
    """Nothing of it is staged: all its kubelets would be newer than kube-apiserver."""
    host.path("/var/lib/kubepivot/last-change").unlink()
    done = run(host, "1.37.2")
    assert done.returncode == 1
    assert f"put {RUNS} there and run 'pulumi up' first" in done.stderr
    assert run(host, "1.36.3").returncode == 0


# -- in the program ------------------------------------------------------------------------------------------


def test_it_is_made_on_the_first_controller_between_the_downloads_and_the_record(run: Run) -> None:
    (step,) = [each for each in run.resources if each.name.endswith("-snapshot")]
    assert step.name.endswith(("-controller-1-snapshot", "-alpha-snapshot"))
    downloads = {each.urn for each in run.resources if each.name.endswith("-download")}
    assert downloads and downloads <= run.before(step)
    assert step.urn in run.only("kubernetes-version").dependencies
    assert step.before_update == ("checks before the snapshot",)


def test_the_cluster_is_looked_at_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the version becomes another one; not when the step changes otherwise."""
    run = ran("lab")
    command = run.only("lab-controller-1-snapshot").inputs["create"]
    hook: Any = run.hooks["checks before the snapshot"]
    looked: list[str] = []

    async def check(_: Any, __: Any, former: str) -> None:
        looked.append(former)

    monkeypatch.setattr("components.snapshot.check", check)

    def update(former: str) -> None:
        old = {"create": command.replace(f"Kubernetes {LATEST},", f"Kubernetes {former},")}
        asyncio.run(hook(pulumi.ResourceHookArgs(urn="", id="", name="", type="", old_inputs=old)))

    update(LATEST)
    # Of one that was killed before the version was recorded: there it is refused if it has begun.
    update("1.99.0")
    assert looked == []
    update(EARLIER)
    assert looked == [EARLIER]
    with pytest.raises(pulumi.RunError, match="no minor can be skipped"):
        update("1.34.1")
    assert looked == [EARLIER]


def test_a_command_tells_its_version(case: Case) -> None:
    text = command_text(Payload(script="", files={}, about=about(case.cfg)), user="root", timeout=1)
    assert former_version(text) == case.cfg.kubernetes_version
