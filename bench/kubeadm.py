"""A control plane by kubeadm, on a host like those of the lab and with the same files on it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import pins, toolchain
from lab.engine import docker
from lab.progress import Progress
from tests.e2e.hosts import Box, KeyPair

INIT_SECONDS = 240
COPY_SECONDS = 60
CONFIG = Path(__file__).parent / "kubeadm.yaml"
KUBELET_UNIT = Path(__file__).parent / "kubelet.service"

# What kubepivot has put on its controller and what every node needs, whoever runs the control plane.
SETTINGS = (
    *("etc/containerd", "etc/systemd/system/containerd.service"),
    *("etc/sysctl.d/90-kubepivot.conf", "etc/modules-load.d/kubepivot.conf"),
    "etc/kubernetes/resolv.conf",  # Docker's resolver is on the loopback, and sends CoreDNS its own questions
)
BINARIES = ("usr/local/bin", "opt/cni/bin")


@dataclass(frozen=True, kw_only=True)
class KubeadmHost:
    """A container with a control plane that `kubeadm init` has made, without a network for pods."""

    container: str

    @classmethod
    def make(cls, cluster: str, address: str, *, like: str, progress: Progress) -> KubeadmHost:
        """Starts a host, gives it the runtime and the binaries of the host `like`, and runs kubeadm."""
        box = Box.make(cluster, "kubeadm", address, KeyPair.generate())
        _copy(like, box.container, *BINARIES, *SETTINGS)
        program = toolchain.ensure("kubeadm", progress, installed=False)
        docker("cp", str(program), f"{box.container}:/usr/local/bin/kubeadm")
        docker("cp", str(KUBELET_UNIT), f"{box.container}:/etc/systemd/system/kubelet.service")
        box.run(
            "sysctl --quiet --load /etc/sysctl.d/90-kubepivot.conf; systemctl daemon-reload;"
            "systemctl enable --quiet containerd kubelet; systemctl start containerd"
        )
        # What it holds against a container: swap, the cgroup version, the kernel's config.
        docker(
            *("exec", "--interactive", box.container),
            *("kubeadm", "init", "--config=/dev/stdin", "--ignore-preflight-errors=all"),
            input=configuration(address, pins.NEWEST.kubernetes, {}).encode(),
            timeout=INIT_SECONDS,
        )
        return cls(container=box.container)


def configuration(address: str, version: str, flags: Mapping[str, str]) -> str:
    """What `kubeadm init` is told of the controller at that address. `flags` are more of kube-apiserver's."""
    values = {
        "@ADDRESS@": address,
        "@VERSION@": version,
        "@ETCD@": f"v{pins.find_release(version).etcd}",
        "@FLAGS@": json.dumps([{"name": name, "value": value} for name, value in flags.items()]),
    }
    text = CONFIG.read_text()
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _copy(source: str, target: str, *paths: str) -> None:
    """Copies files between containers, as they are."""
    pack = ["docker", "exec", source, "tar", "--create", "--directory=/", *paths]
    unpack = ["docker", "exec", "--interactive", target, "tar", "--extract", "--directory=/"]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        subprocess.run(unpack, stdin=packing.stdout, check=True, timeout=COPY_SECONDS)
    if packing.returncode:
        raise subprocess.CalledProcessError(packing.returncode, pack)
