"""What `destroy` does to a host that outlives the cluster, run here in a sandbox."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path
from threading import Thread

import pytest

from tests.unit.new_host import RECORD, reset_script
from tests.unit.sandbox import Sandbox

OWNER = "/etc/kubernetes/kubepivot.cluster"
RESET = f"CLUSTER=metal\nNAME=alpha\n{reset_script('controller')}"
BEFORE = "/var/lib/kubepivot/sysctl-before.conf"
UNITS = ("kubelet", "containerd", "kubepivot-checkpoints", "kubepivot-backup")


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A controller of ours, by the mark alone: it was installed before there was a record."""
    host = Sandbox(tmp_path)
    host.real("awk", "cat", "date", "find", "flock", "grep", "ls", "mkdir", "mv", "readlink", "rm", "rmdir")
    host.real("sed", "sleep", "sort")
    for command in ("ip", "nft", "sync", "sysctl", "systemctl", "umount"):
        host.fake(command, f'echo "{command} $*" >>/var/calls')
    host.write("/proc/mounts", "overlay / overlay rw 0 0\n")
    host.write("/var/calls")
    host.path("/run").mkdir()
    host.path("/var/lib").mkdir()
    host.write(OWNER, "metal/alpha")
    for unit in UNITS:
        host.write(f"/etc/systemd/system/{unit}.service")
    host.write("/etc/systemd/system/kubepivot-backup.timer")
    return host


def _reset(host: Sandbox) -> None:
    done = host.run(RESET)
    assert (done.returncode, done.stderr) == (0, "")
    assert not host.path(OWNER).exists()


def _calls(host: Sandbox, command: str) -> list[list[str]]:
    lines = host.path("/var/calls").read_text().replace(str(host.root), "").splitlines()
    return [line.split()[1:] for line in lines if line.split()[0] == command]


@pytest.mark.parametrize(
    ("owner", "said"), [(None, ""), ("other/alpha", "left alone"), ("metal/beta", "left alone")]
)
def test_a_host_of_nobody_or_of_another_is_left_alone(host: Sandbox, owner: str | None, said: str) -> None:
    host.path(OWNER).unlink()
    if owner is not None:
        host.write(OWNER, owner)
    before = sorted(host.root.rglob("*"))
    done = host.run(RESET)
    assert done.returncode == 0
    assert said in done.stdout
    assert [path for path in sorted(host.root.rglob("*")) if path.name != "kubepivot.lock"] == before
    assert host.path("/var/calls").read_text() == ""


def test_a_step_that_still_runs_is_not_reset_under(host: Sandbox) -> None:
    with host.path("/run/kubepivot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = host.run(RESET.replace("--wait 120", "--wait 0"))
    assert done.returncode == 1
    assert "a step of another run still works on this host" in done.stderr
    assert host.path("/var/calls").read_text() == ""


@pytest.mark.parametrize("owner", ["", "metal/alpha", "other/alpha"])
def test_the_lock_stays_the_one_that_others_wait_for(host: Sandbox, owner: str) -> None:
    """Were it unlinked, who waits and who comes next would hold two locks, and run at the same time."""
    host.write(OWNER, owner)
    host.write("/run/kubepivot.lock")
    before = host.path("/run/kubepivot.lock").stat().st_ino
    assert host.run(RESET).returncode == 0
    assert host.path("/run/kubepivot.lock").stat().st_ino == before


@pytest.mark.parametrize("owner", ["metal/alpha", "other/alpha"])
def test_what_a_killed_step_has_left_goes(host: Sandbox, owner: str) -> None:
    host.write(OWNER, owner)
    host.write("/run/kubepivot.Ab12Cd/pki/ca.key")
    host.write("/run/kubepivot.service/theirs")
    assert host.run(RESET).returncode == 0
    left = {path.name for path in host.path("/run").iterdir()} - {"kubepivot.lock"}
    assert left == {"kubepivot.service"}


def test_what_starts_a_kubelet_is_stopped_first_and_containerd_last(host: Sandbox) -> None:
    _reset(host)
    assert _calls(host, "systemctl") == [
        ["disable", "--now", "--quiet", "kubepivot-backup.service"],
        ["disable", "--now", "--quiet", "kubepivot-backup.timer"],
        ["disable", "--now", "--quiet", "kubepivot-checkpoints.service"],
        ["disable", "--now", "--quiet", "kubelet.service"],
        ["disable", "--now", "--quiet", "containerd.service"],
        ["daemon-reload"],
    ]


def test_a_kubelet_that_cannot_be_stopped_fails_the_reset(host: Sandbox) -> None:
    host.fake("systemctl", "echo 'cannot talk to systemd' >&2; exit 1")
    host.write("/var/lib/kubelet/key")
    done = host.run(RESET)
    assert (done.returncode, done.stderr) == (1, "cannot talk to systemd\n")
    assert host.path("/var/lib/kubelet/key").exists()


def test_kernel_settings_are_put_back_before_they_are_forgotten(host: Sandbox) -> None:
    """What they were, `node.sh` has written (test_node)."""
    host.fake("sysctl", 'echo "sysctl $*" >>/var/calls; cat "$3" >>/var/loaded')
    host.write(BEFORE, "net.ipv4.ip_forward = 0\n")
    _reset(host)
    assert _calls(host, "sysctl") == [["--quiet", "--load", BEFORE, "--ignore"]]
    assert host.path("/var/loaded").read_text() == "net.ipv4.ip_forward = 0\n"
    assert not host.path(BEFORE).exists()


def test_a_host_that_was_never_set_up_has_no_kernel_settings_to_put_back(host: Sandbox) -> None:
    _reset(host)
    assert _calls(host, "sysctl") == []


def test_the_mark_of_the_owner_goes_last(host: Sandbox) -> None:
    """Else a reset that was cut short would find a host of nobody, and leave the rest."""
    host.write("/var/lib/kubelet/key")
    host.write("/etc/kubernetes/pki/ca.crt")
    host.fake("rmdir", "echo 'rmdir: busy' >&2; exit 1")
    assert host.run(RESET).returncode == 1
    assert host.path(OWNER).exists() and host.path(RECORD).exists()
    host.real("rmdir")
    _reset(host)
    assert not host.path("/etc/kubernetes").exists()


def test_a_step_that_was_killed_before_it_owned_the_host_leaves_nothing(host: Sandbox) -> None:
    """It had recorded what it would make, and was at its mark."""
    host.path(OWNER).rename(host.path(f"{OWNER}.new"))
    host.write(RECORD, host.moved("tree /etc/kubernetes\n"))
    _reset(host)
    assert not host.path("/etc/kubernetes").exists()


@pytest.mark.parametrize("ours", [False, True])
def test_runc_goes_only_if_it_was_brought(host: Sandbox, ours: bool) -> None:
    host.write("/usr/local/bin/runc")
    if ours:
        host.write("/var/lib/kubepivot/runc", "https://github.com/runc")
    _reset(host)
    assert host.path("/usr/local/bin/runc").exists() != ours


# -- processes -----------------------------------------------------------------------------------------------


def test_what_runs_in_pods_ends_though_containerd_is_broken(host: Sandbox) -> None:
    """And a shim whose file an upgrade has taken away."""
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    in_pod, shim, theirs = started
    reapers = [Thread(target=process.wait, daemon=True) for process in started]
    for reaper in reapers:
        reaper.start()
    host.write("/sys/fs/cgroup/kubepods/burstable/pod1/c1/cgroup.procs")
    host.write("/sys/fs/cgroup/system.slice/cgroup.procs", f"{theirs.pid}\n")
    # The kernel forgets those that have ended.
    host.fake(
        "cat", f"case $* in */pod1/*) ! kill -0 {in_pod.pid} || echo {in_pod.pid} ;; *) sed -n p $* ;; esac"
    )
    host.path(f"/proc/{shim.pid}").mkdir(parents=True)
    host.fake(
        "readlink",
        f"""case $1 in
          */exe) ! kill -0 {shim.pid} || echo "/usr/local/bin/containerd-shim-runc-v2 (deleted)" ;;
          *) shift; echo "$1" ;;
        esac 2>/dev/null""",
    )
    try:
        done = host.run(RESET)
        assert done.returncode == 0, done.stderr
        for reaper in reapers[:2]:
            reaper.join(10)
        assert (in_pod.returncode, shim.returncode, theirs.poll()) == (-9, -9, None)
    finally:
        for process in started:
            process.kill()


# -- mounts --------------------------------------------------------------------------------------------------

# Each that is taken away is not in the kernel's table any more.
UMOUNT = """
echo "umount $*" >>/var/calls
grep -vF " $2 " /proc/mounts >/var/left
cat /var/left >/proc/mounts
rm /var/left
"""


def _mount(host: Sandbox, *paths: str) -> None:
    host.fake("umount", UMOUNT)
    lines = "".join(f"/dev/sdb {host.path(path)} ext4 rw 0 0\n" for path in paths)
    host.write("/proc/mounts", f"/dev/sda / ext4 rw 0 0\n{lines}")


def test_mounts_of_pods_are_undone_innermost_first(host: Sandbox) -> None:
    pods = "/var/lib/kubelet/pods"
    ours = [f"{pods}/1/volumes", f"{pods}/1/volumes/deep", "/run/containerd/io/1/rootfs", "/run/netns/cni-1"]
    _mount(host, *ours, "/run/netns/theirs", "/var/lib/theirs")
    _reset(host)
    assert [call[-1] for call in _calls(host, "umount")] == sorted(ours, reverse=True)


def test_mounts_behind_a_link_are_found_by_their_real_path(host: Sandbox) -> None:
    _mount(host, "/disk/kubelet/pods/1/volumes", "/disk/kubelet/plugins/csi/x")
    host.path("/disk/kubelet").mkdir(parents=True)
    host.path("/var/lib/kubelet").symlink_to(host.path("/disk/kubelet"))
    _reset(host)
    assert [call[-1] for call in _calls(host, "umount")] == [
        "/disk/kubelet/pods/1/volumes",
        "/disk/kubelet/plugins/csi/x",
    ]


def test_a_disk_of_its_own_is_emptied_and_stays_mounted(host: Sandbox) -> None:
    """`rm` of a mount point fails, and the mark of the owner would stay for ever."""
    disks = ("/var/lib/etcd", "/var/lib/containerd", "/var/lib/kubelet")
    _mount(host, *disks)
    for disk in disks:
        host.write(f"{disk}/.hidden")
        host.write(f"{disk}/member/keys")
        host.path(f"{disk}/lost+found").mkdir()
    _reset(host)
    for disk in disks:
        assert [path.name for path in host.path(disk).iterdir()] == ["lost+found"], disk
    assert _calls(host, "umount") == []


def test_what_others_have_mounted_below_stays_with_what_it_holds(host: Sandbox) -> None:
    theirs = "/var/log/pods/their disk/deep"
    _mount(host, theirs.replace(" ", "\\040"))
    host.write(f"{theirs}/file")
    host.write("/var/log/pods/their disk/ours")
    host.write("/var/log/pods/pod/0.log")
    done = host.run(RESET)
    assert done.returncode == 0
    assert (
        done.stderr.replace(str(host.root), "")
        == f"left as it is, since it was mounted by others:\n{theirs}\n"
    )
    assert [str(path) for path in host.path("/var/log/pods").rglob("*") if path.is_file()] == [
        str(host.path(f"{theirs}/file"))
    ]
    assert _calls(host, "umount") == []
    assert not host.path(OWNER).exists()


@pytest.mark.parametrize("place", ["/var/lib/etcd/member", "/etc/kubernetes/pki", "/var/lib/kubelet/pods"])
def test_a_mount_that_may_hide_keys_is_no_success(host: Sandbox, place: str) -> None:
    _mount(host, place)
    host.write(f"{place}/x")
    done = host.run(RESET)
    assert done.returncode == 1
    assert f"unmount it, then destroy again:\n{place}\n" in done.stderr.replace(str(host.root), "")
    assert host.path(f"{place}/x").exists() and host.path(OWNER).exists()
    _mount(host)
    _reset(host)
    assert not host.path(place).exists()


# -- links and packet filter ---------------------------------------------------------------------------------


def test_links_that_others_made_stay(host: Sandbox) -> None:
    """Those of ours hang on the bridge, as long as that is there."""
    for link in ("veth12ab34cd", "vethZQ0x1t", "cni0", "flannel.1"):
        host.path(f"/sys/class/net/{link}").mkdir(parents=True)
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
    _reset(host)
    deleted = [call[-1] for call in _calls(host, "ip") if call[:2] == ["link", "delete"]]
    assert deleted == ["veth12ab34cd", "cni0", "flannel.1"]


EMPTY = """
table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
	}
}
"""
NFT = """
case $* in
  "list tables") sed 's/^/table /' /var/tables ;;
  "list table ip nat" | "list table ip6 filter" | "list table inet empty") cat /var/empty ;;
  "list table ip filter") sed 's/accept/drop/' /var/empty ;;
  "list table ip mangle") cat /var/empty; echo "chain THEIRS {" ;;
  delete*) echo "nft $*" >>/var/calls ;;
esac
"""


def test_tables_of_others_stay_though_they_are_empty(host: Sandbox) -> None:
    """One with `policy drop` and no rules locks a host up, and was not ours to take away."""
    tables = [
        "ip kube-proxy",
        "ip6 kube-proxy",
        "ip flannel-ipv4",
        "ip cni_hostport",
        "inet empty",
        "ip theirs",
    ]
    tables += ["ip filter", "ip nat", "ip mangle", "ip6 filter"]
    host.write("/var/tables", "\n".join(tables) + "\n")
    host.write("/var/empty", EMPTY)
    host.write("/var/lib/kubepivot/tables-before", "table ip6 filter\n")
    host.fake("nft", NFT)
    _reset(host)
    assert [" ".join(call[2:]) for call in _calls(host, "nft")] == [*tables[:4], "ip nat"]


# As iptables-save writes them beside a pod with a hostPort and rules of others.
SAVED = r"""
*filter
:INPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:THEIRS - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m comment --comment "say \"-j KUBE-FIREWALL\" -j CNI-X" -j THEIRS
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block localnet" -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-DN-1a2b - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -p tcp -g CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"cbr0\" id: \"a'b\"" -j CNI-DN-1a2b
-A OUTPUT -m comment --comment "it's \"theirs\"" -j ACCEPT
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
-A PREROUTING -m comment --comment "-j KUBE-X" -j ACCEPT
COMMIT
"""


def test_rules_go_whatever_their_text_and_those_of_others_stay(host: Sandbox) -> None:
    host.write("/var/saved", SAVED.lstrip())
    for command in ("iptables", "ip6tables"):
        host.fake(f"{command}-save", "cat /var/saved" if command == "iptables" else "")
        host.fake(f"{command}-restore", f'echo "{command} $*" >>/var/calls; cat >>/var/{command}')
    _reset(host)
    assert _calls(host, "iptables") == [["--noflush"]]
    assert host.path("/var/iptables").read_text().splitlines() == [
        "*filter",
        "-D INPUT -j KUBE-FIREWALL",
        "-F KUBE-FIREWALL",
        "-X KUBE-FIREWALL",
        "COMMIT",
        "*nat",
        "-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        "-D PREROUTING -p tcp -g CNI-HOSTPORT-DNAT",
        "-F CNI-HOSTPORT-DNAT",
        "-F CNI-DN-1a2b",
        "-X CNI-HOSTPORT-DNAT",
        "-X CNI-DN-1a2b",
        "COMMIT",
    ]
    assert host.path("/var/ip6tables").read_text() == ""
