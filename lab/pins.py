"""Every version that the lab uses, each read from the one place that pins it."""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from lab.errors import LabError

CHECKOUT = Path(__file__).parent.parent
MODULES = Path(__file__).parent / "toolchain"


@dataclass(frozen=True, kw_only=True)
class Release:
    """One Kubernetes release, and what it does not run in the same version as every other."""

    kubernetes: str  # lab/toolchain/kubernetes has a directory of this name, whose go.mod pins it
    etcd: str  # lab/toolchain/etcd too
    coredns: str  # lab/toolchain/coredns too
    pause: str


RELEASES = {
    release.kubernetes: release
    for release in (
        Release(kubernetes="1.35.4", etcd="3.6.16", coredns="1.13.1", pause="3.10.1"),
        Release(kubernetes="1.36.1", etcd="3.6.16", coredns="1.14.2", pause="3.10.2"),
        Release(kubernetes="1.36.3", etcd="3.6.16", coredns="1.14.2", pause="3.10.2"),
        Release(kubernetes="1.37.2", etcd="3.7.3", coredns="1.14.6", pause="3.10.2"),
    )
}
"""What the lab can make, by Kubernetes version, oldest first. It makes what is asked for."""

NEWEST = list(RELEASES.values())[-1]
"""What is made where nobody asks for another one."""

# No Go module pins these.
PYTHON_IMAGE = "3.11-slim-bookworm"  # what Debian bookworm has
FLANNEL_CNI_IMAGE = (
    "v1.6.2-flannel1"  # the official image's tag; what we build is the v0.9.1 of flannel-cni-plugin/go.mod
)

# Go itself, where this machine has none that is new enough. The hashes are the checksum database's.
GO = "1.26.8"
GO_LEAST = (1, 26, 6)  # the newest that a go.mod asks for
GO_MODULE_HASHES = {
    "amd64": "h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=",
    "arm64": "h1:sYL/O6MqS68ML0kjsQ36WoYIpJqkw60TxizWUYUKQMc=",
}


def find_release(kubernetes: str) -> Release:
    """Return the release of this Kubernetes version. Raises LabError if the lab can't make it."""
    try:
        return RELEASES[kubernetes]
    except KeyError as error:
        raise LabError(
            f"the lab has no Kubernetes {kubernetes}", f"name one that it has: {', '.join(RELEASES)}"
        ) from error


@cache
def module_version(name: str, module: str) -> str:
    """Return the version, without v, of `module` in lab/toolchain/<name>/go.mod."""
    text = (MODULES / name / "go.mod").read_text()
    found = re.search(rf"^(?:require)?\s*{re.escape(module)} v(\S+)", text, re.MULTILINE)
    if not found:
        raise LabError(f"{MODULES / name}/go.mod does not require {module}", "restore the file from git")
    return found[1]


@cache
def module_digest(name: str) -> str:
    """Return a digest of all that decides which sources lab/toolchain/<name> builds from."""
    directory = MODULES / name
    first = [directory / "go.mod", directory / "go.sum"]
    others = sorted(file for file in directory.rglob("*") if file.is_file() and file not in first)
    return hashlib.sha256(b"".join(file.read_bytes() for file in (*first, *others))).hexdigest()


def sdk_version(package: str) -> str:
    """Return the installed version of a Pulumi SDK, which requirements.txt pins. Its plugin has the same."""
    return metadata.version(package)


def architecture() -> str:
    """Return this machine's architecture as Go and the download sites name it."""
    machine = platform.machine()
    try:
        return {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    except KeyError as error:
        raise LabError(
            f"no tool is pinned for the architecture {machine}", "use an x86_64 or aarch64 machine"
        ) from error


PULUMI = module_version("pulumi", "github.com/pulumi/pulumi/pkg/v3")
CONTAINERD = module_version("containerd", "github.com/containerd/containerd/v2")
CNI_PLUGINS = module_version("cni-plugins", "github.com/containernetworking/plugins")
FLANNEL = module_version("flannel", "github.com/flannel-io/flannel")
FLANNEL_CNI_PLUGIN = module_version("flannel-cni-plugin", "github.com/containernetworking/plugins")
RCLONE = module_version("rclone", "github.com/rclone/rclone")
VERSITYGW = module_version("versitygw", "github.com/versity/versitygw")

PLUGINS = {name: sdk_version(f"pulumi-{name}") for name in ("command", "digitalocean", "kubernetes", "tls")}
