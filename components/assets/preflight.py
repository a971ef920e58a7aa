"""Renders the preflight's requirements for a host: ports, memory, disk, addresses."""

from __future__ import annotations

from components.archive import File
from components.assets.claims import claims_script
from components.assets.document import env_file
from components.assets.downloads import kubernetes_site
from components.config import ClusterConfig, sizes
from components.hosts.machine import Machine
from components.tables.ports import API, PORTS

__all__ = ["preflight_files"]


def preflight_files(cfg: ClusterConfig, machine: Machine) -> dict[str, File]:
    """The preflight's settings, and the paths that have to be free."""
    controller = machine.is_controller
    quota = sizes.mebibytes(cfg.etcd.quota)
    ports = [
        cfg.api.port if port is API else port.first
        for port in (*PORTS, *cfg.pod_network.ports)
        if port.needed and port.protocol == "TCP" and (controller or not port.controllers_only)
    ]
    return {
        "preflight.env": env_file(
            NAME=machine.name,
            ADDRESS=machine.address,
            CLUSTER=cfg.name,
            ROLE=machine.role,
            PODS=cfg.network.pods,
            SERVICES=cfg.network.services,
            SERVICE_IP=cfg.service_ip,
            PORTS=" ".join(map(str, ports)),
            MEMORY_MIB="1700" if controller else "900",
            # Images and binaries, and what etcd may grow to; of a disk of its own, with its log.
            DISK_MIB=str(3000 + quota) if controller else "5000",
            ETCD_MIB=str(512 + quota) if controller else "0",
            NESTED="yes" if machine.nested else "no",
            ARTIFACTS_PROBE=f"{kubernetes_site(cfg)}/@ARCH@/kubelet.sha256",
            ARTIFACTS_KEY="kubepivot:mirror.artifacts",
        ),
        "claims": File(claims_script()),
    }
