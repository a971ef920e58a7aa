"""What is staged on a node that serves, and swapped in when it is its turn: the scripts, run in a sandbox."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.assets.templates import script
from components.assets.upgrade import last_change, upgrade_files
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


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A node that serves."""
    host = arrange(Sandbox(tmp_path))
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


def test_it_is_swapped_in_and_the_node_uncordoned(host: Sandbox) -> None:
    run_node(host, **newer())
    host.write("/var/calls")
    host.write("/var/node", node(version="v1.36.3"))
    done = run_upgrade(host)
    assert (done.returncode, done.stderr) == (0, "")
    assert host.path(LIVE).read_text() == "downloaded\n"
    assert host.path(YAML).read_text().endswith("maxPods: 200\n")
    assert host.path("/var/lib/kubepivot/kubelet").read_text() == f"{NEWER_URL}\n"
    assert restarts(host) == ["kubelet"]
    assert not host.path(STAGED).parent.exists()
    assert '"unschedulable": null' in host.path("/var/patched").read_text()
    host.write("/var/calls")
    done = run_node(host, **newer())
    assert (done.returncode, done.stdout) == (0, "change=a-uuid\n")
    assert restarts(host) == []


def test_an_admins_cordon_stays(host: Sandbox) -> None:
    host.write("/var/node", node(version="v1.36.3", ours=False))
    assert run_upgrade(host).returncode == 0
    assert not host.path("/var/patched").exists()


@pytest.mark.parametrize(
    ("told", "staged"),
    [
        (node(version="v1.36.1"), False),
        (node(version="v1.36.3", ready=False), False),
        (node(version="v1.36.3", heard="2020-01-01T00:00:00Z"), True),
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
    assert "timed out waiting for node gpu to be Ready with kubelet v1.36.3" in done.stderr
    assert "a kubelet that crashes" in done.stderr
    assert "put the former values back" in done.stderr
    assert not host.path("/var/patched").exists()


def test_a_swap_that_was_cut_short_is_ended_by_the_next(host: Sandbox) -> None:
    run_node(host, **newer())
    host.write("/var/calls")
    host.write("/var/node", node(version="v1.36.3"))
    host.fake("systemctl", 'echo "$*" >>/var/calls; case $1 in is-active) ;; restart) exit 1 ;; esac')
    assert run_upgrade(host).returncode == 1
    assert host.path(STAGED).exists()
    host.fake("systemctl", 'echo "$*" >>/var/calls')
    host.write("/var/calls")
    assert run_upgrade(host).returncode == 0
    assert restarts(host) == ["kubelet"]
    assert host.path(LIVE).read_text() == "downloaded\n"


def test_what_is_taken_back_before_its_turn_is_staged_no_more(host: Sandbox) -> None:
    run_node(host, **newer())
    done = run_node(host)
    # Another name than before all: the step runs, and uncordons what was cordoned for it.
    assert (done.returncode, done.stdout) == (0, "change=a-uuid\n")
    assert not host.path(STAGED).parent.exists()
    assert host.path(LIVE).read_text() == "older"


def test_what_is_staged_is_not_downloaded_again(host: Sandbox) -> None:
    run_node(host, **newer())
    host.write("/var/downloads")
    host.write("/proc/sys/kernel/random/uuid", "another-uuid")
    done = run_node(host, **newer())
    assert (done.returncode, done.stdout) == (0, "change=another-uuid\n")
    assert host.path("/var/downloads").read_text() == ""
    assert host.path(STAGED).read_text() == "downloaded\n"


def test_where_the_kubelet_is_down_nothing_is_spared(host: Sandbox) -> None:
    run_node(host, **newer())
    host.path("/var/healthy").unlink()
    host.write("/var/calls")
    done = run_node(host, **newer())
    assert (done.returncode, done.stdout) == (0, "change=a-uuid\n")
    assert host.path(LIVE).read_text() == "downloaded\n"
    assert restarts(host) == ["kubelet"]
    assert not host.path(STAGED).parent.exists()


@pytest.mark.parametrize("swapped", [True, False])
def test_a_change_that_was_not_seen_to_serve_is_mended_at_once(host: Sandbox, swapped: bool) -> None:
    """Its kubelet may be healthy and its node not Ready: what mends it can't wait for the node."""
    run_node(host, **newer())
    if swapped:
        host.write("/var/node", node(version="v1.36.3", ready=False))
        host.fake("date", "echo $(($(cat /var/clock 2>/dev/null || echo 1) + 999)) | tee /var/clock")
        host.real("tee")
        assert run_upgrade(host).returncode == 1
    done = run_node(host)
    assert done.returncode == 0
    assert host.path(LIVE).read_text() == ("downloaded\n" if swapped else "older")
    assert not host.path(STAGED).parent.exists()
    if swapped:
        assert not host.path(YAML).read_text().endswith("maxPods: 200\n")


def test_a_node_that_cannot_be_uncordoned_fails_the_step(host: Sandbox) -> None:
    host.write("/var/node", node(version="v1.36.3"))
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


def test_what_nobody_wishes_any_more_is_not_swapped_in(host: Sandbox) -> None:
    """A step that staged it failed, and was taken back: it did not run again."""
    run_node(host, **newer())
    host.write("/var/node", node(version="v1.36.3"))
    assert run_upgrade(host, "an-earlier-change").returncode == 0
    assert host.path(LIVE).read_text() == "older"
    assert not host.path(STAGED).parent.exists()


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


def test_a_stage_whose_removal_was_cut_short_is_made_anew(host: Sandbox) -> None:
    run_node(host, **newer())
    host.path(STAGED).unlink()
    done = run_node(host, **newer())
    assert (done.returncode, done.stderr) == (0, "")
    assert host.path(STAGED).read_text() == "downloaded\n"


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
