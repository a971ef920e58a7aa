"""What `destroy` does to a host that outlives the cluster, run here in a sandbox that removes nothing."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from components.assets.node import bootstrap_files, node_files, script
from tests.cases import load, read
from tests.unit.recorder import program, ran, revealed
from tests.unit.sandbox import Sandbox

OWNER = "/etc/kubernetes/kubepivot.cluster"
RESET = f"CLUSTER=metal\nNAME=alpha\n{script('reset')}"
BEFORE = "/var/lib/kubepivot/sysctl-before.conf"
INSTALLED = [f"/usr/local/bin/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr", "kubectl")]
INSTALLED += ["/usr/local/bin/etcdctl", "/usr/local/bin/etcdutl"]
INSTALLED += ["/usr/local/bin/kubelet", "/opt/cni/bin/bridge", "/var/lib/kubepivot/kubelet"]
MADE_BY_WHAT_RUNS = ["/etc/cni/net.d/10-flannel.conflist", "/run/flannel/subnet.env", "/var/lib/etcd/member"]
MADE_BY_WHAT_RUNS += ["/var/lib/containerd/x", "/var/lib/kubelet/pods/x", "/var/log/pods/x"]
MADE_BY_WHAT_RUNS += ["/var/lib/kubepivot/backups/metal-20260102T030405Z-1.db"]
MADE_BY_WHAT_RUNS += ["/run/kubepivot.lock"]  # by every step


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    host = Sandbox(tmp_path)
    host.real("awk", "cat", "date", "flock", "grep", "readlink", "sed", "sleep", "sort")
    for command in ("ctr", "ip", "nft", "sysctl", "systemctl", "umount", "rm"):
        host.fake(command, f'echo "{command} $*" >>/var/calls')
    host.write("/proc/mounts", "overlay / overlay rw 0 0\n")
    host.write("/var/calls")
    host.path("/run").mkdir()
    return host


def _calls(host: Sandbox, command: str) -> list[list[str]]:
    lines = host.path("/var/calls").read_text().replace(str(host.root), "").splitlines()
    return [line.split()[1:] for line in lines if line.split()[0] == command]


def _removed(host: Sandbox) -> list[str]:
    return [path for call in _calls(host, "rm") for path in call if path.startswith("/")]


@pytest.mark.parametrize(
    ("owner", "said"), [(None, ""), ("other/alpha", "left alone"), ("metal/beta", "left alone")]
)
def test_a_host_of_nobody_or_of_another_is_left_alone(host: Sandbox, owner: str | None, said: str) -> None:
    if owner is not None:
        host.write(OWNER, owner)
    done = host.run(RESET)
    assert done.returncode == 0
    assert said in done.stdout
    removed = ["/run/kubepivot.??????", *([] if owner else ["/run/kubepivot.lock", "/var/cache/kubepivot"])]
    assert _removed(host) == removed
    assert {line.split()[0] for line in host.path("/var/calls").read_text().splitlines()} == {"rm"}


def test_everything_that_was_put_on_the_host_goes(host: Sandbox) -> None:
    case = load("baremetal")
    machine = case.machines[case.cfg.bootstrap_controller]
    files = node_files(case.cfg, machine, case.texts) | bootstrap_files(case.cfg, machine, case.texts)
    placed = [path.removeprefix("root") for path in files if path.startswith("root/")]
    host.write(OWNER, "metal/alpha")
    assert host.run(RESET).returncode == 0
    removed = _removed(host)
    for path in [OWNER, *placed, *INSTALLED, *MADE_BY_WHAT_RUNS]:
        assert any(path == each or path.startswith(f"{each}/") for each in removed), path


def test_a_step_that_still_runs_is_not_reset_under(host: Sandbox) -> None:
    host.write(OWNER, "metal/alpha")
    with host.path("/run/kubepivot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = host.run(RESET.replace("--wait 120", "--wait 0"))
    assert done.returncode == 1
    assert "a step of another run still works on this host" in done.stderr
    assert host.path("/var/calls").read_text() == ""


@pytest.mark.parametrize("owner", ["metal", "other"])
def test_what_a_killed_step_has_left_goes(host: Sandbox, owner: str) -> None:
    host.write(OWNER, owner)
    host.write("/run/kubepivot.Ab12Cd/pki/ca.key")
    host.write("/run/kubepivot.service/theirs")
    host.real("rm")
    assert host.run(RESET).returncode == 0
    left = {path.name for path in host.path("/run").iterdir()} - {"kubepivot.lock"}
    assert left == {"kubepivot.service"}


def test_a_host_that_was_refused_is_as_it_was(host: Sandbox) -> None:
    host.real("rm")
    assert host.run(RESET).returncode == 0
    assert list(host.path("/run").iterdir()) == []


def test_the_kubelet_is_stopped_before_anything_is_removed(host: Sandbox) -> None:
    host.write(OWNER, "metal/alpha")
    host.run(RESET)
    calls = [line.split()[0] for line in host.path("/var/calls").read_text().splitlines()]
    assert calls.index("systemctl") < calls.index("rm", 1)  # the first removes what a killed step has left
    assert [call for call in _calls(host, "systemctl") if "disable" in call] == [
        ["disable", "--now", "--quiet", "kubepivot-node"],
        ["disable", "--now", "--quiet", "kubelet"],
        ["disable", "--now", "--quiet", "kubepivot-checkpoints"],
        ["disable", "--now", "--quiet", "kubepivot-backup.timer"],
        ["disable", "--now", "--quiet", "containerd"],
    ]


def test_kernel_settings_are_put_back_before_they_are_forgotten(host: Sandbox) -> None:
    """What they were, `node.sh` has written (test_node)."""
    host.write(OWNER, "metal/alpha")
    assert host.run(RESET).returncode == 0
    assert _calls(host, "sysctl") == [["--quiet", "--load", BEFORE]]
    calls = host.path("/var/calls").read_text().replace(str(host.root), "").splitlines()
    (removal,) = [line for line in calls if line.startswith("rm ") and line.endswith(" /var/lib/kubepivot")]
    assert calls.index(f"sysctl --quiet --load {BEFORE}") < calls.index(removal)


def test_a_host_that_was_never_set_up_has_no_kernel_settings_to_put_back(host: Sandbox) -> None:
    host.fake("sysctl", 'echo "cannot open $3" >&2; exit 1')
    host.write(OWNER, "metal/alpha")
    done = host.run(RESET)
    assert (done.returncode, done.stderr) == (0, "")
    assert _removed(host)[-1] in ("/etc/kubernetes", OWNER)


def test_the_mark_of_the_owner_goes_last(host: Sandbox) -> None:
    """Else a reset that was cut short would find a host of nobody, and leave the rest."""
    host.write(OWNER, "metal/alpha")
    host.run(RESET)
    assert _removed(host)[-1] in ("/etc/kubernetes", OWNER)


@pytest.mark.parametrize("ours", [False, True])
def test_runc_goes_only_if_it_was_brought(host: Sandbox, ours: bool) -> None:
    host.write(OWNER, "metal/alpha")
    if ours:
        host.write("/var/lib/kubepivot/runc", "https://github.com/runc")
    host.run(RESET)
    assert ("/usr/local/bin/runc" in _removed(host)) == ours


def test_mounts_of_pods_are_undone_innermost_first(host: Sandbox) -> None:
    host.write(OWNER, "metal/alpha")
    pods = host.path("/var/lib/kubelet/pods")
    host.write("/proc/mounts", f"a / ext4 rw 0 0\nb {pods}/1 tmpfs rw 0 0\nc {pods}/1/deep tmpfs rw 0 0\n")
    host.run(RESET)
    assert [call[-1] for call in _calls(host, "umount")] == [
        "/var/lib/kubelet/pods/1/deep",
        "/var/lib/kubelet/pods/1",
    ]


def test_a_disk_of_its_own_is_emptied_and_stays_mounted(host: Sandbox) -> None:
    """`rm` of a mount point fails, and the mark of the owner would stay for ever."""
    host.write(OWNER, "metal/alpha")
    disks = ("/var/lib/etcd", "/var/lib/containerd", "/var/lib/kubelet")
    mounts = "".join(f"/dev/sdb {host.path(disk)} ext4 rw 0 0\n" for disk in disks)
    host.write("/proc/mounts", f"/dev/sda / ext4 rw 0 0\n{mounts}")
    for disk in disks:
        host.write(f"{disk}/.hidden")
        host.write(f"{disk}/member/keys")
        host.path(f"{disk}/lost+found").mkdir()
    host.real("find", "rm")
    done = host.run(RESET)
    assert (done.returncode, done.stderr) == (0, "")
    for disk in disks:
        assert [path.name for path in host.path(disk).iterdir()] == ["lost+found"], disk
    assert _calls(host, "umount") == []
    assert not host.path(OWNER).exists()


def test_links_that_others_made_stay(host: Sandbox) -> None:
    """Those of ours hang on the bridge, as long as that is there."""
    host.write(OWNER, "metal/alpha")
    ours = "5: veth12ab34cd@if2: <UP> mtu 1450 master cni0 state UP"
    theirs = "6: vethZQ0x1t@if2: <UP> mtu 1500 master lxcbr0 state UP"
    host.fake(
        "ip",
        f"""echo "ip $*" >>/var/calls
        case $* in
          *"show type veth master cni0") echo "{ours}" ;;
          *show*) echo "{ours}"; echo "{theirs}" ;;
        esac
        """,
    )
    assert host.run(RESET).returncode == 0
    deleted = [call[-1] for call in _calls(host, "ip") if call[:2] == ["link", "delete"]]
    assert deleted == ["veth12ab34cd", "cni0", "flannel.1"]


# -- over SSH, from this machine -----------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path) -> Sandbox:
    here = Sandbox(tmp_path)
    here.real("cat", "grep", "mktemp", "rm")
    here.fake("ssh-agent", 'case $1 in -s) echo "SSH_AUTH_SOCK=agent; export SSH_AUTH_SOCK" ;; esac')
    here.fake("ssh-add", "cat >/var/key")
    here.path("/var").mkdir()
    return here


def _destroy(here: Sandbox, host: str, ssh: str) -> tuple[int, str]:
    here.fake("ssh", f'printf "%s\\n" "$@" >/var/arguments\n{ssh}')
    reset = ran("baremetal").only(f"metal-{host}-reset")
    done = here.run(reset.inputs["delete"], stdin=revealed(reset.inputs["stdin"]))
    return done.returncode, done.stderr


def test_a_host_is_reset_over_ssh_with_its_key_pinned(here: Sandbox) -> None:
    assert _destroy(here, "gpu", "exit 0") == (0, "")
    arguments = here.path("/var/arguments").read_text()
    assert "admin@192.168.7.21\n" in arguments
    assert arguments.startswith("-p\n2222\n")
    assert "StrictHostKeyChecking=yes\n" in arguments
    assert "sudo --non-interactive timeout" in arguments
    assert "CLUSTER=metal\nNAME=gpu\n" in arguments
    assert f"PATH={here.root}/usr/local/sbin:{here.root}/usr/local/bin:" in arguments
    assert "PRIVATE KEY" not in arguments
    assert "PRIVATE KEY" in here.path("/var/key").read_text()


def test_without_an_agent_of_its_own_the_users_is_not_touched(here: Sandbox) -> None:
    here.fake("ssh-agent", 'echo "$*" >>/var/agent; exit 1')
    code, _ = _destroy(here, "gpu", "exit 0")
    assert code == 1
    assert here.path("/var/agent").read_text() == "-s\n"
    assert not here.path("/var/key").exists()
    assert not here.path("/var/arguments").exists()


def test_root_needs_no_sudo(here: Sandbox) -> None:
    assert _destroy(here, "alpha", "exit 0") == (0, "")
    assert "sudo --" not in here.path("/var/arguments").read_text()


@pytest.mark.parametrize(
    "said",
    [
        "ssh: connect to host 192.168.7.21 port 2222: Connection refused",
        "ssh: connect to host 192.168.7.21 port 2222: No route to host",
        "ssh: connect to host 192.168.7.21 port 2222: Connection timed out",
        "Timeout, server 192.168.7.21 not responding.",
    ],
)
def test_a_dead_host_is_told_and_passed_over(here: Sandbox, said: str) -> None:
    assert _destroy(here, "gpu", f'echo "{said}" >&2; exit 255') == (
        0,
        f"{said}\ngpu (192.168.7.21) does not answer: it was left as it is\n",
    )


def test_a_changed_host_key_replaces_no_reset_and_a_destroy_uses_the_new_one() -> None:
    raw = read("baremetal")
    old, new = raw["hosts"]["gpu"]["hostKey"], raw["hosts"]["alpha"]["hostKey"]
    raw["hosts"]["gpu"]["hostKey"] = new
    before, after = (run.only("metal-gpu-reset") for run in (ran("baremetal"), program(raw)))
    assert before.urn == after.urn
    for each in (before, after):
        assert "triggers" not in each.inputs  # any other input is updated in place
        assert not each.delete_before_replace
    assert old in before.inputs["delete"] and old not in after.inputs["delete"]
    assert new in after.inputs["delete"]


FAILURES = {
    "login refused": ("admin@192.168.7.21: Permission denied (publickey).", 255),
    "another host key": (
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.",
        255,
    ),
    "no sudo": ("sudo: a password is required", 1),
    "script": ("umount: pods/1: Permission denied", 32),
    "deadline": ("", 124),
}
"""What `ssh` says of a host that is there, and its status."""


@pytest.mark.parametrize("failure", FAILURES)
def test_a_host_that_is_there_and_was_not_reset_fails_the_destroy(here: Sandbox, failure: str) -> None:
    said, status = FAILURES[failure]
    code, error = _destroy(here, "gpu", f'printf "%s\\n" "{said}" >&2; exit {status}')
    assert code not in (0, 255)
    assert error.startswith(f"{said}\ngpu (192.168.7.21) was not reset: ")
    assert "does not answer" not in error
    assert ("mend that" in error) == (status != 124)


def test_a_reset_that_took_too_long_can_go_on(here: Sandbox) -> None:
    code, error = _destroy(here, "gpu", "exit 124")
    assert code == 1
    assert "was not reset: it did not end within 180 s; destroy again goes on where it stopped" in error
    assert "timeout 180 sh" in here.path("/var/arguments").read_text()
