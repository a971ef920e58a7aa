"""What is staged on a node that serves, and swapped in when it is its turn: the scripts, run in a sandbox."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.assets.templates import script
from components.assets.upgrade import last_change, upgrade_files
from components.config.releases import LATEST
from tests.cases import load
from tests.unit.new_host import CURL, DOWNLOADS, MARK, NODES, arrange, env_of, files_of
from tests.unit.sandbox import Sandbox

NAME = "gpu"
LIVE, STAGED = "/usr/local/bin/kubelet", "/var/lib/kubepivot/stage/kubelet"
YAML = "/etc/kubernetes/kubelet.yaml"
CHANGE = "/var/lib/kubepivot/last-change"
NEWER_URL = "https://example.com/newer/kubelet"

# The kubelet's health, and the API: what the Node is, and what is patched.
ANSWERS = """
case "$*" in
  *10248/healthz*) [ -e /var/healthy ]; exit ;;
  *PATCH*) echo "$*" >>/var/patched; exit ;;
  */api/v1/nodes/*) cat /var/node; exit ;;
esac
"""


def node(*, version: str, ready: bool = True, heard: str = "2999-01-01T00:00:00Z", ours: bool = True) -> str:
    """A Node as the API prints it."""
    annotations = {"kubepivot.dev/cordoned": "upgrade"} if ours else {"note": "kubepivot.dev/cordoned"}
    found: dict[str, Any] = {
        "metadata": {"name": NAME, "annotations": annotations},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [
                {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": heard},
                {"type": "Ready", "status": str(ready), "lastHeartbeatTime": heard, "reason": "KubeletReady"},
            ],
            "nodeInfo": {"kubeletVersion": version},
        },
    }
    return json.dumps(found, indent=2)


def run_node(host: Sandbox, **other: str) -> subprocess.CompletedProcess[str]:
    return host.run(script("node"), files_of(NAME) | other)


def run_upgrade(host: Sandbox, change: str = "") -> subprocess.CompletedProcess[str]:
    """The step, with the name of the change that the host told last if no other is given."""
    files = {path: file.text for path, file in upgrade_files(load(NODES[NAME]).cfg).items()}
    return host.run(script("upgrade"), files | {"change": change or host.path(CHANGE).read_text()})


def newer() -> dict[str, str]:
    """Another kubelet with another configuration, and other settings of keep-node, which are not staged."""
    files = files_of(NAME)
    return {
        "env": files["env"].replace(env_of(NAME)["KUBELET_URL"].replace("amd64", "@ARCH@"), NEWER_URL),
        f"root{YAML}": files[f"root{YAML}"] + "maxPods: 200\n",
        "root/etc/kubernetes/node.env": files["root/etc/kubernetes/node.env"] + "# more\n",
    }


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """A node that serves."""
    host = arrange(Sandbox(tmp_path_factory.mktemp(NAME)))
    host.real("date", "tail", "tr")
    host.fake("curl", f"{ANSWERS}{CURL}")
    host.fake("journalctl", "echo a kubelet that crashes")
    host.fake("sleep", "touch -d '@1' /var/slept")
    host.write(MARK, f"{load(NODES[NAME]).cfg.name}/{NAME}\n")
    for part in DOWNLOADS:
        host.write(f"/var/lib/kubepivot/{part}", env_of(NAME)[f"{part.upper()}_URL"])
    host.write(LIVE, "older")
    done = run_node(host)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "change=none\n")
    host.write("/var/active")
    host.write("/var/healthy")
    host.write("/var/calls")
    return host


@pytest.fixture
def host(serving: Sandbox, tmp_path: Path) -> Sandbox:
    """That one, for one test."""
    return serving.copied(tmp_path)


@pytest.fixture(scope="module")
def staging(serving: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """One on which a newer kubelet is staged."""
    host = serving.copied(tmp_path_factory.mktemp("staging"))
    done = run_node(host, **newer())
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "change=a-uuid\n")
    return host


@pytest.fixture
def staged(staging: Sandbox, tmp_path: Path) -> Sandbox:
    """That one, for one test."""
    return staging.copied(tmp_path)


def restarts(host: Sandbox) -> list[str]:
    calls = host.path("/var/calls").read_text().splitlines()
    return [call.removeprefix("restart ") for call in calls if call.startswith("restart")]


def test_what_restarts_pods_keepers_is_staged(host: Sandbox) -> None:
    before = host.path(YAML).read_text()
    done = run_node(host, **newer())
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "change=a-uuid\n")
    assert host.path(LIVE).read_text() == "older"
    assert host.path(YAML).read_text() == before
    assert host.path(STAGED).read_text() == "downloaded\n"
    assert host.path("/etc/kubernetes/node.env").read_text().endswith("# more\n")
    assert restarts(host) == ["kubepivot-node.service"]


def test_labels_and_taints_restart_no_kubelet(host: Sandbox) -> None:
    env, taints = "/etc/kubernetes/kubelet.env", "/etc/kubernetes/kubelet.d/taints.conf"
    done = run_node(host, **{f"root{env}": "NODE_LABELS=a=b\n", f"root{taints}": "registerWithTaints: []\n"})
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "change=none\n")
    assert host.path(env).read_text() == "NODE_LABELS=a=b\n"
    assert host.path(taints).read_text() == "registerWithTaints: []\n"
    assert restarts(host) == []
    assert not host.path(STAGED).parent.exists()


def test_it_is_swapped_in_and_the_node_uncordoned(staged: Sandbox) -> None:
    staged.write("/var/calls")
    staged.write("/var/node", node(version=f"v{LATEST}"))
    done = run_upgrade(staged)
    assert (done.returncode, done.stderr) == (0, "")
    assert staged.path(LIVE).read_text() == "downloaded\n"
    assert staged.path(YAML).read_text().endswith("maxPods: 200\n")
    assert staged.path("/var/lib/kubepivot/kubelet").read_text() == f"{NEWER_URL}\n"
    assert restarts(staged) == ["kubelet"]
    assert not staged.path(STAGED).parent.exists()
    assert '"unschedulable": null' in staged.path("/var/patched").read_text()
    staged.write("/var/calls")
    done = run_node(staged, **newer())
    assert (done.returncode, done.stdout) == (0, "change=a-uuid\n")
    assert restarts(staged) == []


CTR = """
case "$*" in
  *"tasks list") echo TASK PID STATUS; [ -e /var/no-etcd ] || echo second 1 RUNNING ;;
  *"containers list"*) echo first; echo second ;;
  *"containers info second") echo '    "io.kubernetes.pod.uid": "uid-of-now",' ;;
esac
"""
ETCD = "/etc/kubernetes/manifests/etcd.yaml"
NAMED = "kind: Pod\nmetadata:\n  name: etcd\nspec: {}\n"


@pytest.mark.parametrize(
    ("before", "runs", "after"),
    [
        (NAMED, True, NAMED.replace("  name", "  uid: uid-of-now\n  name")),
        (
            NAMED.replace("  name", "  uid: older\n  name"),
            True,
            NAMED.replace("  name", "  uid: older\n  name"),
        ),
        (NAMED, False, NAMED),
    ],
    ids=["its own uid", "as it was given one", "none runs"],
)
def test_for_another_kubelet_etcd_stays_the_pod_that_it_is(
    staged: Sandbox, before: str, runs: bool, after: str
) -> None:
    staged.write(ETCD, before)
    staged.fake("ctr", CTR)
    if not runs:
        staged.write("/var/no-etcd")
    staged.write("/var/node", node(version=f"v{LATEST}"))
    staged.fake("systemctl", f'[ "$*" != "restart kubelet" ] || cp {ETCD} /var/at-the-restart')
    done = run_upgrade(staged)
    assert (done.returncode, done.stderr) == (0, "")
    assert staged.path("/var/at-the-restart").read_text() == staged.path(ETCD).read_text() == after


def test_an_admins_cordon_stays(host: Sandbox) -> None:
    host.write("/var/node", node(version=f"v{LATEST}", ours=False))
    assert run_upgrade(host).returncode == 0
    assert not host.path("/var/patched").exists()


@pytest.mark.parametrize(
    ("told", "staged"),
    [
        (node(version="v1.36.1"), False),
        (node(version=f"v{LATEST}", ready=False), False),
        (node(version=f"v{LATEST}", heard="2020-01-01T00:00:00Z"), True),
        ("", False),
    ],
    ids=["another version", "not ready", "a status of before", "no answer"],
)
def test_a_node_that_does_not_come_back_stays_cordoned(host: Sandbox, told: str, staged: bool) -> None:
    if staged:
        run_node(host, **newer())
    host.write("/var/node", told)
    # Every question of the time is a minute later.
    host.write("/var/clock", "1000")
    host.fake(
        "date",
        'case $1 in -u) echo 2026-11-28T00:00:00Z ;; *) read -r now </var/clock; echo "$now"; '
        "echo $((now + 60)) >/var/clock ;; esac",
    )
    done = run_upgrade(host)
    assert done.returncode == 1
    assert f"timed out waiting for node gpu to be Ready with kubelet v{LATEST}" in done.stderr
    assert "a kubelet that crashes" in done.stderr
    assert "put the former values back" in done.stderr
    assert not host.path("/var/patched").exists()


def test_a_swap_that_was_cut_short_is_ended_by_the_next(staged: Sandbox) -> None:
    staged.write("/var/calls")
    staged.write("/var/node", node(version=f"v{LATEST}"))
    staged.fake("systemctl", 'echo "$*" >>/var/calls; case $1 in is-active) ;; restart) exit 1 ;; esac')
    assert run_upgrade(staged).returncode == 1
    assert staged.path(STAGED).exists()
    staged.fake("systemctl", 'echo "$*" >>/var/calls')
    staged.write("/var/calls")
    assert run_upgrade(staged).returncode == 0
    assert restarts(staged) == ["kubelet"]
    assert staged.path(LIVE).read_text() == "downloaded\n"


# It has removed the one file by then.
RM_CUT_SHORT = """
for last; do :; done
[ ! -e "$last/kubelet.url" ] || { /bin/rm "$last/kubelet.url"; kill -9 $PPID; exit; }
exec /bin/rm "$@"
"""


def test_what_is_staged_goes_all_at_once(staged: Sandbox) -> None:
    """A power cut between its files would leave a kubelet without what tells its version."""
    staged.write("/var/calls")
    staged.write("/var/node", node(version=f"v{LATEST}"))
    staged.fake("rm", RM_CUT_SHORT)
    assert run_upgrade(staged).returncode != 0
    staged.real("rm")
    assert run_upgrade(staged).returncode == 0
    assert staged.path("/var/lib/kubepivot/kubelet").read_text() == f"{NEWER_URL}\n"


def test_what_is_taken_back_before_its_turn_is_staged_no_more(staged: Sandbox) -> None:
    done = run_node(staged)
    # Another name than before all: the step runs, and uncordons what was cordoned for it.
    assert (done.returncode, done.stdout) == (0, "change=a-uuid\n")
    assert not staged.path(STAGED).parent.exists()
    assert staged.path(LIVE).read_text() == "older"


def test_what_is_staged_is_not_downloaded_again(staged: Sandbox) -> None:
    staged.write("/var/downloads")
    staged.write("/proc/sys/kernel/random/uuid", "another-uuid")
    done = run_node(staged, **newer())
    assert (done.returncode, done.stdout) == (0, "change=another-uuid\n")
    assert staged.path("/var/downloads").read_text() == ""
    assert staged.path(STAGED).read_text() == "downloaded\n"


def test_where_the_kubelet_is_down_nothing_is_spared(staged: Sandbox) -> None:
    staged.path("/var/healthy").unlink()
    staged.write("/var/calls")
    done = run_node(staged, **newer())
    assert (done.returncode, done.stdout) == (0, "change=a-uuid\n")
    assert staged.path(LIVE).read_text() == "downloaded\n"
    assert restarts(staged) == ["kubelet"]
    assert not staged.path(STAGED).parent.exists()


@pytest.mark.parametrize("swapped", [True, False])
def test_a_change_that_was_not_seen_to_serve_is_mended_at_once(staged: Sandbox, swapped: bool) -> None:
    """Its kubelet may be healthy and its node not Ready: what mends it can't wait for the node."""
    if swapped:
        staged.write("/var/node", node(version=f"v{LATEST}", ready=False))
        staged.fake("date", "echo $(($(cat /var/clock 2>/dev/null || echo 1) + 999)) | tee /var/clock")
        staged.real("tee")
        assert run_upgrade(staged).returncode == 1
    done = run_node(staged)
    assert done.returncode == 0
    assert staged.path(LIVE).read_text() == ("downloaded\n" if swapped else "older")
    assert not staged.path(STAGED).parent.exists()
    if swapped:
        assert not staged.path(YAML).read_text().endswith("maxPods: 200\n")


def test_a_kubelet_that_cannot_start_is_told_and_started_by_the_next_run(host: Sandbox) -> None:
    run_node(host, **newer())
    host.write("/var/node", node(version=f"v{LATEST}"))
    host.fake(
        "systemctl", 'case "$*" in "restart kubelet") echo Job failed >&2; exit 1 ;; is-active*) ;; esac'
    )
    done = run_upgrade(host)
    assert done.returncode == 1
    reason, last_lines, ways_on = done.stderr.splitlines()
    assert (reason, last_lines) == ("Job failed", "a kubelet that crashes")
    assert ways_on.startswith("error: no other host is begun, and gpu stays cordoned. Mend what ")
    host.fake("systemctl", 'echo "$*" >>/var/calls')
    host.write("/var/calls")
    assert run_upgrade(host).returncode == 0
    assert restarts(host) == ["kubelet"]


def test_a_node_that_cannot_be_uncordoned_fails_the_step(host: Sandbox) -> None:
    host.write("/var/node", node(version=f"v{LATEST}"))
    host.fake("curl", f'case "$*" in *PATCH*) exit 22 ;; esac\n{ANSWERS}')
    host.write("/var/clock", "1000")
    host.fake("date", 'read -r now </var/clock; echo "$now"; echo $((now + 30)) >/var/clock')
    done = run_upgrade(host)
    assert done.returncode == 1
    assert "timed out waiting for node gpu to be uncordoned" in done.stderr


def test_at_another_address_it_is_changed_at_once(host: Sandbox) -> None:
    unit = files_of(NAME)["root/etc/systemd/system/kubelet.service"]
    address = env_of(NAME)["ADDRESS"]
    moved = {
        "env": files_of(NAME)["env"].replace(f"ADDRESS={address}", "ADDRESS=192.0.2.77"),
        "root/etc/systemd/system/kubelet.service": unit.replace(
            f"--node-ip={address}", "--node-ip=192.0.2.77"
        ),
    }
    done = run_node(host, **moved)
    assert (done.returncode, done.stderr) == (0, "")
    assert restarts(host) == ["kubelet"]


def test_what_nobody_wishes_any_more_is_not_swapped_in(staged: Sandbox) -> None:
    """A step that staged it failed, and was taken back: it did not run again."""
    staged.write("/var/node", node(version=f"v{LATEST}"))
    assert run_upgrade(staged, "an-earlier-change").returncode == 0
    assert staged.path(LIVE).read_text() == "older"
    assert not staged.path(STAGED).parent.exists()


def test_a_download_does_not_write_over_what_is_staged(host: Sandbox) -> None:
    host.fake("sysctl", "exit 1")
    host.path("/var/lib/kubepivot/sysctl-before.conf").unlink()
    assert run_node(host, **newer()).returncode == 1
    assert host.path(STAGED).samefile(host.path("/var/cache/kubepivot/kubelet"))
    env = newer()["env"].replace("/newer/", "/third/")
    host.fake("sha256sum", 'echo "bad  $1"')
    assert run_node(host, **newer() | {"env": env}).returncode == 1
    assert host.path(STAGED).read_text() == "downloaded\n"
    assert not host.path(STAGED).samefile(host.path("/var/cache/kubepivot/kubelet"))


def test_a_stage_whose_removal_was_cut_short_is_made_anew(staged: Sandbox) -> None:
    staged.path(STAGED).unlink()
    done = run_node(staged, **newer())
    assert (done.returncode, done.stderr) == (0, "")
    assert staged.path(STAGED).read_text() == "downloaded\n"


def test_a_host_of_before_is_changed_at_once(host: Sandbox) -> None:
    """Its state has no step yet that would swap it."""
    host.path(CHANGE).unlink()
    done = run_node(host, **newer())
    assert (done.returncode, done.stdout) == (0, "change=none\n")
    assert host.path(LIVE).read_text() == "downloaded\n"
    assert "kubelet" in restarts(host)


@pytest.mark.parametrize(
    ("said", "change"), [("change=a-uuid", "a-uuid"), ("motd\nchange=a-uuid\n", "a-uuid"), ("", "none")]
)
def test_the_change_is_read_from_what_the_step_said(said: str, change: str) -> None:
    assert last_change(said) == change
