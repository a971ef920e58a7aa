"""Every version, one row per supported Kubernetes release, and what differs between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["LATEST", "RELEASES", "Release", "minor_of", "numbers_of"]


def minor_of(version: str) -> int:
    """36 of 1.36.3, with or without a "v" before it."""
    return int(version.split(".")[1])


def numbers_of(version: str) -> tuple[int, ...]:
    """(1, 36, 3) of 1.36.3, which sort as versions do."""
    return tuple(map(int, version.split(".")))


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """What one Kubernetes release is run with. Versions have no leading "v"."""

    kubernetes: str
    etcd: str
    containerd: str
    cni: str
    runc: str
    """Used on hosts whose distribution has no runc package."""
    flannel: str
    flannel_cni: str
    coredns: str
    pause: str
    python: str
    """Tag of the image that the pod-checkpointer, and the filter beside kube-apiserver, run on."""
    rclone: str
    """Copies snapshots of etcd to S3-compatible storage."""

    @property
    def etcd_image(self) -> str:
        """Image of etcd: the project's own, for Kubernetes' registry does not have every patch."""
        return f"quay.io/coreos/etcd:v{self.etcd}"

    @property
    def pause_image(self) -> str:
        """Image of every pod's sandbox."""
        return f"registry.k8s.io/pause:{self.pause}"

    @property
    def rclone_image(self) -> str:
        """Image that carries rclone's binary."""
        return f"docker.io/rclone/rclone:{self.rclone}"

    @property
    def minor(self) -> int:
        """36 of 1.36.3."""
        return minor_of(self.kubernetes)

    @property
    def handover_gates(self) -> str:
        """Feature gates of the temporary kube-controller-manager: that it gives its lease back when it ends.

        Without, the real one waits for 15 s. Alpha from 1.36, and unknown before.
        """
        return "ControllerManagerReleaseLeaderElectionLockOnExit=true" if self.minor >= 36 else ""


_NEWEST = Release(
    kubernetes="1.37.2",
    etcd="3.7.3",
    containerd="2.2.1",
    cni="1.9.1",
    runc="1.3.3",
    flannel="0.26.7",
    flannel_cni="1.6.2-flannel1",
    coredns="1.14.6",
    pause="3.10.2",
    python="3.11-slim-bookworm",
    rclone="1.76.0",
)

RELEASES: dict[str, Release] = {
    release.kubernetes: release
    for release in (
        # etcd 3.7 wants every member to have been at 3.6.11 or newer.
        replace(_NEWEST, kubernetes="1.35.4", etcd="3.6.16", coredns="1.13.1", pause="3.10.1"),
        replace(_NEWEST, kubernetes="1.36.1", etcd="3.6.16", coredns="1.14.2"),
        replace(_NEWEST, kubernetes="1.36.3", etcd="3.6.16", coredns="1.14.2"),
        _NEWEST,
    )
}
"""Supported releases by Kubernetes version, oldest first."""

LATEST = list(RELEASES)[-1]
"""The newest supported Kubernetes version."""
