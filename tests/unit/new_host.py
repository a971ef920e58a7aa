"""A host that is about to become a node, in a sandbox: kernel, systemd and download site are made up, and
what they do is in files below /var.

    host = arrange(Sandbox(tmp_path))
    code, error = set_up(host, "controller-1")
"""

from __future__ import annotations

import io
import os
import shlex
import tarfile
from functools import cache

from components.assets.claims import claims_script
from components.assets.node import node_files
from components.assets.templates import script
from tests.cases import load
from tests.unit.sandbox import Sandbox

NODES = {"controller-1": "lab", "worker-1": "lab", "alpha": "baremetal", "gpu": "baremetal"}
"""The case of each. `lab` has a mirror."""

MARK = "/etc/kubernetes/kubepivot.cluster"
RECORD = "/etc/kubernetes/kubepivot.made"

DOWNLOADS = {"containerd", "cni", "kubelet", "kubectl", "etcd"}

OURS = {key: "1" for key in ("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables")}
OURS |= {"net.ipv4.tcp_migrate_req": "1"}
THEIRS = {key: "0" for key in OURS} | {"net.ipv4.ip_forward": "1", "kernel.pid_max": "4194304"}

# The kernel's values are in /var/kernel; with /var/stubborn they cannot be set.
SYSCTL = """
case $1 in
  --quiet)
    [ ! -e /var/stubborn ] || exit 1
    awk -F ' = ' '/^[a-z]/ { value[$1] = $2 } END { for (key in value) print key " = " value[key] }' \
      /var/kernel "$3" >/var/kernel.new
    mv /var/kernel.new /var/kernel ;;
  *) for key in "$@"; do grep "^$key = " /var/kernel || exit 1; done ;;
esac
"""
# Whatever is downloaded has the checksum `good`, and comes by a proxy if the host has one.
CURL = """
[ -z "${NO_PROXY:-}${no_proxy:-}" ] || { echo "this goes by no proxy" >&2; exit 1; }
for url; do :; done
echo "$url" >>/var/downloads
while [ $# -gt 1 ] && [ "$1" != --output ]; do shift; done
if [ "$1" = --output ]; then echo downloaded >"$2"; else echo good; fi
"""
# Only root may give a directory away.
INSTALL = """
if [ "$1" = -d ]; then
  directories=""
  for word; do case $word in /*) directories="$directories $word" ;; esac; done
  mkdir -p $directories
else cp "$3" "$4"; fi
"""


# Whatever site is asked for an archive has those of `install`.
ARCHIVES = {
    "containerd": ["bin/containerd", "bin/containerd-shim-runc-v2", "bin/containerd-stress", "bin/ctr"],
    "cni-plugins": ["bridge", "portmap"],
    "etcd": ["etcd/etcd", "etcd/etcdctl", "etcd/etcdutl"],
}


def install(host: Sandbox, name: str, torn: str = "") -> tuple[int, str]:
    """The exit code and errors of the node's script on a host that has nothing. One archive may be torn, so
    that `tar` ends as on a full disk.
    """
    host.real("gzip", "tar")
    for archive, members in ARCHIVES.items():
        host.path("/site").mkdir(exist_ok=True)
        with tarfile.open(host.path(f"/site/{archive}"), "w:gz") as packed:
            for member in members:
                entry = tarfile.TarInfo(member)
                entry.size, entry.mode = len(member), 0o755
                packed.addfile(entry, io.BytesIO(member.encode()))
        if archive == torn:
            os.truncate(host.path(f"/site/{archive}"), host.path(f"/site/{archive}").stat().st_size - 12)
    copies = "".join(f'*/{name}-*.t*gz) cp {host.path("/site")}/{name} "$2" ;; ' for name in ARCHIVES)
    host.fake("curl", f'{CURL}\nif [ "$1" = --output ]; then case $url in {copies} esac; fi')
    done = host.run(script("node"), files_of(name))
    return done.returncode, done.stderr


def arrange(host: Sandbox) -> Sandbox:
    """A host that passes the preflight, has nothing set up and has runc from its own distribution."""
    host.real("awk", "cat", "chmod", "cmp", "cp", "cut", "find", "grep", "ln", "mkdir", "mktemp", "mv", "rm")
    host.real("ls", "sed", "sh", "sort", "stat", "tail", "touch")
    host.fake("curl", CURL)
    host.fake("df", "echo Avail; echo 20000")
    host.fake("install", INSTALL)
    host.fake("modprobe")
    host.fake("nft")
    host.fake("runc")
    host.fake("sha256sum", 'echo "good  $1"')
    host.fake("sync")
    host.fake("sysctl", SYSCTL)
    host.fake("systemctl", 'echo "$*" >>/var/calls; case $1 in is-active) [ -e /var/active ] ;; esac')
    host.fake("uname", "echo x86_64")
    host.write("/proc/self/status", "CapBnd:\t000001ffffffffff\n")
    host.write("/etc/resolv.conf", "nameserver 192.0.2.1\n")
    host.path("/etc/systemd/system").mkdir(parents=True)
    host.path("/usr/local/bin").mkdir(parents=True)
    host.write("/proc/mounts", "overlay / overlay rw 0 0\n")
    host.write("/proc/sys/kernel/random/boot_id", "first")
    host.write("/proc/sys/kernel/random/uuid", "a-uuid")
    host.write("/var/downloads")
    host.write("/var/calls")
    host.write("/var/kernel", "".join(f"{key} = {value}\n" for key, value in THEIRS.items()))
    return host


@cache
def files_of(name: str) -> dict[str, str]:
    """What the script for node `name` finds beside it."""
    case = load(NODES[name])
    files = node_files(case.cfg, case.machines[name], case.machines, case.texts)
    return {path: file.text for path, file in files.items()} | {"preflight": "echo fine"}


def env_of(name: str) -> dict[str, str]:
    env = files_of(name)["env"].replace("@ARCH@", "amd64")
    return dict(line.split("=", 1) for line in shlex.split(env))


def set_up(host: Sandbox, name: str, *, lacks: str = "", **other: str) -> tuple[int, str]:
    """The exit code and errors of the node's script on a node that has every binary already, but `lacks`."""
    if not host.path(MARK).exists() and "preflight" not in other:
        host.write(MARK, f"{load(NODES[name]).cfg.name}/{name}\n")
    for part in DOWNLOADS - {lacks}:
        host.write(f"/var/lib/kubepivot/{part}", env_of(name)[f"{part.upper()}_URL"])
    if lacks != "rclone":
        host.write("/var/lib/kubepivot/rclone", env_of(name)["RCLONE_IMAGE"])
    done = host.run(script("node"), files_of(name) | other)
    return done.returncode, done.stderr


def reset(host: Sandbox, name: str) -> tuple[int, str]:
    """The exit code and errors of the reset of the host, on which nothing runs."""
    host.real("date", "flock", "readlink", "rmdir", "sleep")
    host.path("/run").mkdir(exist_ok=True)
    machine = load(NODES[name]).machines[name]
    done = host.run(f"NAME={name}\nCLUSTER={load(NODES[name]).cfg.name}\n{reset_script(machine.role)}")
    return done.returncode, done.stderr


def reset_script(role: str) -> str:
    """As `components.reset` puts it together."""
    return "\n".join([f"ROLE={role}", script("lib"), claims_script(), script("reset")])
