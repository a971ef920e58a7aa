"""Every version and image reference, one row per supported Kubernetes release. Data only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LATEST", "RELEASES", "Release"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """What one Kubernetes release is run with. Versions have no leading "v"."""

    kubernetes: str
    etcd: str
    etcd_image_tag: str
    containerd: str
    cni: str
    runc: str
    """Used on hosts whose distribution has no runc package."""
    flannel: str
    flannel_cni: str
    coredns: str
    pause: str
    python: str
    """Tag of the image that the pod-checkpointer runs on."""
    rclone: str
    """Copies snapshots of etcd to S3-compatible storage."""

    def kubernetes_image(self, component: str) -> str:
        """Image of a component of Kubernetes itself, such as kube-apiserver."""
        return f"registry.k8s.io/{component}:v{self.kubernetes}"

    @property
    def etcd_image(self) -> str:
        """Image of etcd."""
        return f"registry.k8s.io/etcd:{self.etcd_image_tag}"

    @property
    def coredns_image(self) -> str:
        """Image of CoreDNS."""
        return f"registry.k8s.io/coredns/coredns:v{self.coredns}"

    @property
    def pause_image(self) -> str:
        """Image of every pod's sandbox."""
        return f"registry.k8s.io/pause:{self.pause}"

    @property
    def python_image(self) -> str:
        """Image of Python, which runs the pod-checkpointer."""
        return f"docker.io/library/python:{self.python}"

    @property
    def rclone_image(self) -> str:
        """Image that carries rclone's binary."""
        return f"docker.io/rclone/rclone:{self.rclone}"

    @property
    def flannel_image(self) -> str:
        """Image of flanneld."""
        return f"ghcr.io/flannel-io/flannel:v{self.flannel}"

    @property
    def flannel_cni_image(self) -> str:
        """Image that carries flannel's CNI plugin."""
        return f"ghcr.io/flannel-io/flannel-cni-plugin:v{self.flannel_cni}"

    @property
    def workload_images(self) -> dict[str, str]:
        """Images of what runs as a workload of the cluster, by the names that `kubepivot:images` has."""
        components = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
        return {
            **{component: self.kubernetes_image(component) for component in components},
            "coredns": self.coredns_image,
            "flannel": self.flannel_image,
            "flannel-cni": self.flannel_cni_image,
            "pod-checkpointer": self.python_image,
        }


RELEASES: dict[str, Release] = {
    release.kubernetes: release
    for release in (
        Release(
            kubernetes="1.36.3",
            etcd="3.6.8",
            etcd_image_tag="3.6.8-0",
            containerd="2.2.1",
            cni="1.9.1",
            runc="1.3.3",
            flannel="0.26.7",
            flannel_cni="1.6.2-flannel1",
            coredns="1.14.2",
            pause="3.10.2",
            python="3.11-slim-bookworm",
            rclone="1.76.0",
        ),
    )
}
"""Supported releases by Kubernetes version, oldest first."""

LATEST = list(RELEASES)[-1]
"""The newest supported Kubernetes version."""
