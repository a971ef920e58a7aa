"""Download URLs: of the official sites, or of the config's mirror."""

from __future__ import annotations

from components.config import ClusterConfig

__all__ = ["kubernetes_site", "site"]


def site(cfg: ClusterConfig, host: str) -> str:
    """The URL of an official site's tree."""
    return f"{cfg.mirror.artifacts}/{host}" if cfg.mirror else f"https://{host}"


def kubernetes_site(cfg: ClusterConfig) -> str:
    """The URL of the directory that has Kubernetes' binaries by architecture."""
    return f"{site(cfg, 'dl.k8s.io')}/v{cfg.release.kubernetes}/bin/linux"
