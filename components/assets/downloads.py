"""What a host downloads, and from where: the official sites, or the config's mirror."""

from __future__ import annotations

from components.config import ClusterConfig

__all__ = ["downloads", "kubernetes_site"]


def downloads(cfg: ClusterConfig) -> dict[str, str]:
    """Variables of `download.sh`: each part's URL, and that of its SHA-256 sums. The host fills in @ARCH@."""
    release = cfg.release
    kubernetes = f"{kubernetes_site(cfg)}/@ARCH@"
    github = _site(cfg, "github.com")
    containerd = (
        f"{github}/containerd/containerd/releases/download/v{release.containerd}"
        f"/containerd-{release.containerd}-linux-@ARCH@.tar.gz"
    )
    cni = (
        f"{github}/containernetworking/plugins/releases/download/v{release.cni}"
        f"/cni-plugins-linux-@ARCH@-v{release.cni}.tgz"
    )
    etcd = f"{github}/etcd-io/etcd/releases/download/v{release.etcd}"
    runc = f"{github}/opencontainers/runc/releases/download/v{release.runc}"
    return {
        "CONTAINERD_URL": containerd,
        "CONTAINERD_SUMS": f"{containerd}.sha256sum",
        "CNI_URL": cni,
        "CNI_SUMS": f"{cni}.sha256",
        "KUBELET_URL": f"{kubernetes}/kubelet",
        "KUBELET_SUMS": f"{kubernetes}/kubelet.sha256",
        "KUBECTL_URL": f"{kubernetes}/kubectl",
        "KUBECTL_SUMS": f"{kubernetes}/kubectl.sha256",
        "ETCD_URL": f"{etcd}/etcd-v{release.etcd}-linux-@ARCH@.tar.gz",
        "ETCD_SUMS": f"{etcd}/SHA256SUMS",
        "RUNC_URL": f"{runc}/runc.@ARCH@",
        "RUNC_SUMS": f"{runc}/runc.sha256sum",
    }


def kubernetes_site(cfg: ClusterConfig) -> str:
    """The URL of the directory that has Kubernetes' binaries by architecture."""
    return f"{_site(cfg, 'dl.k8s.io')}/v{cfg.release.kubernetes}/bin/linux"


def _site(cfg: ClusterConfig, host: str) -> str:
    return f"{cfg.mirror.artifacts}/{host}" if cfg.mirror else f"https://{host}"
