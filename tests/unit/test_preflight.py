"""The script that looks at a host before anything is written to it, run here in a sandbox."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from components.assets.preflight import preflight_files
from components.assets.templates import script
from tests.cases import load
from tests.sweeps import swept
from tests.unit.sandbox import Sandbox

Change = Callable[[Sandbox], None]

NEEDED = {
    "base64",
    "cmp",
    "curl",
    "find",
    "flock",
    "ip",
    "mount",
    "sha256sum",
    "stat",
    "sysctl",
    "tar",
    "timeout",
}
# Of every host that a test looks at.
IP = """
case "$*" in
  "-o -4 address show")
    echo "1: lo    inet 127.0.0.1/8 scope host lo"
    for address in 192.168.7.11/24 192.168.7.21/24 172.30.0.21/16; do
      echo "2: eth0    inet $address brd 192.0.2.255 scope global eth0"
    done ;;
  "-4 route get "*) [ ! -e /var/no-route ] ;;
  *) exit 1 ;;
esac
"""
# As nft shows what iptables has made.
FILTER = """
table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy %s;
		%s
	}
}
table ip of-another {
	chain forward {
		type filter hook forward priority 10; policy accept;
		ip saddr 10.64.0.0/16 accept
	}
}
"""
LISTENING = "   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1"  # 6443
# Only with --fail is it an error to curl.
CURL_OF_A_SITE_WITHOUT = """
case " $* " in *" --fail "*) echo "curl: (22) The requested URL returned error: 404" >&2; exit 22 ;; esac
printf 'HTTP/1.1 404 Not Found\\r\\n'
"""


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A host on which nothing is wrong."""
    host = Sandbox(tmp_path)
    host.real("awk", "cat", "date", "grep", "ls", "sed", "tail", "tr", "wc")
    for command in (*NEEDED, "tar", "timeout", "modprobe", "nft"):
        host.fake(command)
    host.fake("ip", IP)
    host.fake("systemctl", "exit 3")
    host.fake("id", "case $1 in -u) echo 0 ;; *) echo root ;; esac")
    host.fake("uname", "case $1 in -m) echo x86_64 ;; -n) echo node-1 ;; *) echo 6.1.0 ;; esac")
    host.fake("df", "echo Avail; echo 20000")
    host.fake("curl", f"printf 'HTTP/1.1 200 OK\\r\\nDate: {formatdate(usegmt=True)}\\r\\n'")
    host.path("/run/systemd/system").mkdir(parents=True)
    host.path("/var").mkdir()
    host.write("/proc/net/tcp", "  sl  local_address rem_address   st\n")
    host.write("/proc/net/tcp6", "  sl  local_address rem_address   st\n")
    host.write("/proc/filesystems", "nodev\tproc\n\text4\nnodev\toverlay\n")
    host.write("/proc/sys/net/ipv4/tcp_migrate_req", "0\n")
    host.write("/proc/meminfo", "MemTotal:        4000000 kB\nMemFree: 1 kB\n")
    host.write("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
    host.write("/etc/machine-id", "0123456789abcdef\n")
    return host


def _preflight(host: Sandbox, name: str = "alpha", case: str = "baremetal") -> tuple[int, str]:
    cfg, machine = load(case).cfg, load(case).machines[name]
    files = {path: file.text for path, file in preflight_files(cfg, machine).items()}
    files["preflight.env"] = files["preflight.env"].replace("8443", "6443")
    done = host.run(script("preflight"), files)
    assert done.stderr == ""
    return done.returncode, done.stdout


def _api_port_taken(host: Sandbox) -> None:
    host.write("/proc/net/tcp", f"  sl  local_address rem_address   st\n{LISTENING}\n")


def _api_port_taken_without_ipv6(host: Sandbox) -> None:
    _api_port_taken(host)
    host.path("/proc/net/tcp6").unlink()


TREES = [
    *(
        "/etc/cni/net.d",
        "/etc/containerd",
        "/etc/kubernetes",
        "/opt/cni/bin",
        "/run/containerd",
        "/run/flannel",
    ),
    *("/var/lib/cni", "/var/lib/containerd", "/var/lib/etcd", "/var/lib/kubelet", "/var/lib/kubepivot"),
    "/var/log/pods",
]
FILES = [
    *("/etc/systemd/system/containerd.service", "/etc/systemd/system/kubelet.service"),
    *("/etc/sysctl.d/90-kubepivot.conf", "/etc/modules-load.d/kubepivot.conf"),
    *(f"/usr/local/bin/{name}" for name in ("containerd", "ctr", "etcdctl", "etcdutl", "kubectl", "kubelet")),
]


def _installed(host: Sandbox) -> None:
    for tree in TREES:
        host.write(f"{tree}/something")
    for file in FILES:
        host.write(file)


def _left_in_the_network(host: Sandbox) -> None:
    for link in ("cni0", "flannel.1"):
        host.path(f"/sys/class/net/{link}").mkdir(parents=True)
    host.fake("nft", "echo 'table ip kube-proxy'; echo 'table ip6 flannel-ipv6'; echo 'table inet filter'")
    host.fake("iptables-save", "echo '*nat'; echo ':KUBE-SERVICES - [0:0]'; echo COMMIT")


def _link_to_nothing(host: Sandbox) -> None:
    host.path("/var/lib").mkdir()
    host.path("/var/lib/kubelet").symlink_to("/nowhere/kubelet")


def _rules(host: Sandbox, policy: str, rule: str = "") -> None:
    host.write("/var/rules", FILTER % (policy, rule))
    host.fake("nft", 'case "$*" in "list ruleset") cat /var/rules ;; esac')


def _forwards_nothing(host: Sandbox) -> None:
    _rules(host, "drop")
    host.fake("systemctl", '[ "$3" = ufw ]')


def _old_tables(host: Sandbox) -> None:
    host.write("/proc/net/ip_tables_names", "filter\n")
    host.fake("iptables-legacy", 'echo "-P FORWARD DROP"')


def _firewalld(host: Sandbox, *, trusts: bool = False) -> None:
    host.fake("systemctl", '[ "$3" = firewalld ]')
    host.fake(
        "firewall-cmd", f'[ "$*" = "--zone=trusted --query-source=10.64.0.0/16" ] && {str(trusts).lower()}'
    )


def _swap_on(host: Sandbox) -> None:
    host.write("/proc/swaps", "Filename\tType\n/dev/sda2 partition\n")


def _clock_of_the_site(host: Sandbox, seconds: int) -> None:
    stamp = formatdate(time.time() + seconds, usegmt=True)
    host.fake("curl", f"printf 'HTTP/1.1 200 OK\\r\\ndate: {stamp}\\r\\n'")


def _small_disk_of_etcd(host: Sandbox) -> None:
    host.path("/var/lib/etcd").mkdir(parents=True)
    host.fake("df", 'case "$*" in *size*) echo Size; echo 2047 ;; *) echo Avail; echo 20000 ;; esac')


def _no_kernel_features(host: Sandbox) -> None:
    host.write("/proc/filesystems", "\text4\n")
    for command in ("modprobe", "nft"):
        host.fake(command, "exit 1")


PROBLEMS: dict[str, tuple[Change, list[str]]] = {
    "not root": (
        lambda host: host.fake("id", "case $1 in -u) echo 1000 ;; *) echo admin ;; esac"),
        ["runs as admin, not as root", "allow admin sudo without a password"],
    ),
    "no systemd": (lambda host: host.path("/run/systemd/system").rmdir(), ["there is no systemd"]),
    "missing command": (lambda host: host.without("flock"), ["the command flock is missing"]),
    "architecture": (lambda host: host.fake("uname", "echo riscv64"), ["the architecture is riscv64"]),
    "another cluster": (
        lambda host: host.write("/etc/kubernetes/kubepivot.cluster", "other/alpha\n"),
        ["it belongs to the cluster other ("],
    ),
    "another name": (
        lambda host: host.write("/etc/kubernetes/kubepivot.cluster", "metal/beta\n"),
        ["it is beta of this cluster already", "remove beta from kubepivot:hosts", "add the host as alpha"],
    ),
    "another kubelet": (
        lambda host: host.fake("systemctl", '[ "$3" = kubelet ]'),
        ["kubelet.service is running", "systemctl disable --now kubelet"],
    ),
    "leftovers": (lambda host: host.write("/etc/kubernetes/admin.conf"), ["/etc/kubernetes is not empty"]),
    "an installation that does not run": (
        _installed,
        [*(f"{tree} is not empty" for tree in TREES), *(f"there is {file}" for file in FILES)],
    ),
    "a unit of a package": (
        lambda host: host.fake("systemctl", '[ "$*" = "cat kubelet.service" ]'),
        ["there is a kubelet.service", "systemctl cat kubelet"],
    ),
    "a network that was left": (
        _left_in_the_network,
        [
            "there is a link cni0",
            "ip link delete flannel.1",
            "nft delete table ip kube-proxy",
            "there is the nftables table ip6 flannel-ipv6",
            "iptables-save shows chains of another cluster",
        ],
    ),
    "a link to nothing": (_link_to_nothing, ["/var/lib/kubelet is a link to nothing"]),
    "data of etcd": (lambda host: host.write("/var/lib/etcd/member"), ["/var/lib/etcd is not empty"]),
    "port": (_api_port_taken, ["port 6443 is in use", "ss -ltnp sport = :6443"]),
    "port of a host without IPv6": (_api_port_taken_without_ipv6, ["port 6443 is in use"]),
    "kernel": (
        _no_kernel_features,
        [
            f"the kernel has no {name}"
            for name in ("overlay filesystem", "br_netfilter", "nf_tables", "vxlan")
        ],
    ),
    "old kernel": (
        lambda host: host.path("/proc/sys/net/ipv4/tcp_migrate_req").unlink(),
        ["the kernel 6.1.0 is too old", "Use Linux 5.14 or newer"],
    ),
    "address": (
        lambda host: host.fake("ip", IP.replace("192.168.7.11/24", "")),
        [
            "its address 192.168.7.11 is on none of its links; they have 192.168.7.21 172.30.0.21",
            "Set kubepivot:hosts.alpha.address",
        ],
    ),
    "a link among the pods": (
        lambda host: host.fake("ip", IP.replace("172.30.0.21/16", "10.64.7.5/20")),
        ["overlap those of pods and services: 10.64.7.5/20 of eth0 and 10.64.0.0/16. Choose other ranges"],
    ),
    "a link that has the services": (
        lambda host: host.fake("ip", IP.replace("172.30.0.21/16", "10.65.200.1/8")),
        ["10.65.200.1/8 of eth0 and 10.65.0.0/20", "10.65.200.1/8 of eth0 and 10.64.0.0/16"],
    ),
    "no way to services": (
        lambda host: host.write("/var/no-route"),
        ["no route for addresses of services such as 10.65.0.1", "ip route add default dev LINK"],
    ),
    "a policy": (
        _forwards_nothing,
        [
            "drops what is forwarded",
            "(table ip filter, chain FORWARD; ufw.service is active)",
            "iptables -P FORWARD ACCEPT",
            "DEFAULT_FORWARD_POLICY",
        ],
    ),
    "a policy of the old kind": (_old_tables, ["(iptables-legacy, chain FORWARD)"]),
    "firewalld": (
        _firewalld,
        ["firewalld.service is active", "systemctl disable --now firewalld", "--zone=trusted"],
    ),
    "memory": (
        lambda host: host.write("/proc/meminfo", "MemTotal: 1024000 kB\n"),
        ["it has 1000 MiB of memory", "at least 1700 MiB"],
    ),
    "disk": (lambda host: host.fake("df", "echo Avail; echo 300"), ["/var has 300 MiB free"]),
    "disk of etcd": (
        _small_disk_of_etcd,
        ["the disk of /var/lib/etcd has 2047 MiB", "at least 4608 MiB, or lower kubepivot:etcd.quota"],
    ),
    "swap": (_swap_on, ["swap is on", "swapoff"]),
    "slow clock": (
        lambda host: _clock_of_the_site(host, 900),
        ["its clock is -", " s off that of https://dl.k8s.io/"],
    ),
    "fast clock": (lambda host: _clock_of_the_site(host, -900), ["its clock is 9", "Set the clock"]),
    "site without the release": (
        lambda host: host.fake("curl", CURL_OF_A_SITE_WITHOUT),
        ["does not answer (curl: (22) The requested URL returned error: 404)", "kubepivot:mirror.artifacts"],
    ),
    "unreachable site": (
        lambda host: host.fake("curl", "echo 'curl: (6) Could not resolve host: dl.k8s.io' >&2; exit 6"),
        ["does not answer (curl: (6) Could not resolve host: dl.k8s.io)", "kubepivot:mirror.artifacts"],
    ),
}


def test_a_sound_host_passes_and_tells_who_it_is(host: Sandbox) -> None:
    assert _preflight(host) == (0, "machine-id=0123456789abcdef\nhostname=node-1\n")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_problem_is_told_with_its_mend(host: Sandbox, problem: str) -> None:
    change, expected = PROBLEMS[problem]
    change(host)
    code, output = _preflight(host)
    assert code == 1
    lines = output.splitlines()
    for part in expected:
        assert part in output.replace(str(host.root), "")
    for line in lines:
        assert re.fullmatch(r"alpha: .+\. .+\.", line), line


def test_every_problem_is_told_at_once(host: Sandbox) -> None:
    together = [
        "not root",
        "leftovers",
        "data of etcd",
        "port",
        "kernel",
        "memory",
        "swap",
    ]
    for problem in together:
        PROBLEMS[problem][0](host)
    code, output = _preflight(host)
    assert code == 1
    for problem in together:
        for part in PROBLEMS[problem][1]:
            assert part in output.replace(str(host.root), "")


def test_every_missing_command_is_told_and_none_of_them_is_used(host: Sandbox) -> None:
    missing = ("awk", "df", "ip", "sed")
    for command in missing:
        host.without(command)
    code, output = _preflight(host)
    assert code == 1
    assert output.splitlines() == [
        f"alpha: the command {command} is missing. Install it." for command in missing
    ]


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_the_site_is_asked_for_what_the_host_will_run(host: Sandbox, machine: str, arch: str) -> None:
    host.fake("uname", f"echo {machine}")
    host.fake("curl", 'for url; do :; done; echo "$url" >/var/asked')
    assert _preflight(host)[0] == 0
    assert host.path("/var/asked").read_text().endswith(f"/bin/linux/{arch}/kubelet.sha256\n")


def test_a_clock_may_be_a_little_off(host: Sandbox) -> None:
    _clock_of_the_site(host, 15)
    assert _preflight(host)[0] == 0


def test_a_host_of_this_cluster_may_run_what_is_its_own(host: Sandbox) -> None:
    host.write("/etc/kubernetes/kubepivot.cluster", "metal/alpha\n")
    _installed(host)
    _left_in_the_network(host)
    host.fake("systemctl", "case $3 in kubelet | firewalld) ;; *) exit 3 ;; esac")
    _rules(host, "drop")
    _api_port_taken(host)
    host.fake("df", 'case "$*" in *size*) echo Size; echo 20000 ;; *) echo Avail; echo 300 ;; esac')
    assert _preflight(host)[0] == 0


MARKS = ["kubepivot.cluster", "kubepivot.cluster.new", "kubepivot.made", "kubepivot.made.new"]


@pytest.mark.parametrize("name", swept(MARKS))
def test_a_mark_that_was_cut_short_is_none(host: Sandbox, name: str) -> None:
    host.write(f"/etc/kubernetes/{name}")
    assert _preflight(host)[0] == 0
    host.write("/etc/kubernetes/admin.conf")
    code, output = _preflight(host)
    assert (code, "/etc/kubernetes is not empty" in output.replace(str(host.root), "")) == (1, True)


def test_what_is_not_in_the_way_may_be_there(host: Sandbox) -> None:
    """An empty disk, a link to one, and what lies beside the places that something is put in."""
    for path in ("/var/lib/containerd/lost+found", "/disk/kubelet/lost+found", "/etc/containerd"):
        host.path(path).mkdir(parents=True)
    host.path("/var/lib/kubelet").symlink_to(host.path("/disk/kubelet"))
    for path in (
        "/opt/containerd/bin/x",
        "/opt/cni/x",
        "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/x/x",
    ):
        host.write(path)
    host.fake("nft", "echo 'table inet filter'; echo 'table ip kube-proxy-of-mine'")
    host.fake("iptables-save", "echo '*nat'; echo ':DOCKER - [0:0]'; echo '-A DOCKER -j KUBE-X'; echo COMMIT")
    assert _preflight(host)[0] == 0


def test_a_worker_needs_less_than_a_controller(host: Sandbox) -> None:
    for tool in ("kubectl", "etcdctl", "etcdutl"):
        host.write(f"/usr/local/bin/{tool}")
    host.write("/proc/meminfo", "MemTotal: 1024000 kB\n")
    host.write("/var/lib/etcd/member")
    _api_port_taken(host)
    assert _preflight(host, "gpu")[0] == 0


def test_a_firewall_that_lets_the_pods_through_is_none_of_ours(host: Sandbox) -> None:
    _rules(host, "drop", "ip saddr 10.64.0.0/16 counter packets 0 bytes 0 accept")
    assert _preflight(host)[0] == 0
    _rules(host, "accept")
    _firewalld(host, trusts=True)
    assert _preflight(host)[0] == 0


def test_a_host_without_nft_is_asked_by_iptables(host: Sandbox) -> None:
    host.without("nft")
    host.write("/sys/module/nf_tables/x")
    host.fake("iptables", '[ "$*" = "-S FORWARD" ] && echo "-P FORWARD DROP"')
    code, output = _preflight(host)
    assert (code, "(iptables, chain FORWARD)" in output) == (1, True)
    rule = '"-P FORWARD DROP" "-A FORWARD -s 10.64.0.0/16 -j ACCEPT"'
    host.fake("iptables", f'printf "%s\\n" {rule}')
    assert _preflight(host)[0] == 0


def test_swap_of_the_machine_is_not_a_containers_affair(host: Sandbox) -> None:
    _swap_on(host)
    assert _preflight(host, "worker-1", "lab")[0] == 0
