"""Renders the files of a node: container runtime, kubelet and, on controllers, etcd."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from components.archive import File
from components.assets import document, templates
from components.assets.backup import backup_files
from components.assets.controlplane import FORMER_UID, MANIFESTS, UID
from components.assets.credentials import kubeconfig
from components.assets.document import env_file
from components.assets.downloads import downloads
from components.assets.etcd import etcd_files
from components.assets.preflight import preflight_files
from components.assets.registration import registration_files
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts.machine import Machine, Machines

__all__ = ["download_files", "node_files"]

MIRRORED_REGISTRIES = ("docker.io", "ghcr.io", "quay.io", "registry.k8s.io")


def download_files(cfg: ClusterConfig, machine: Machine) -> dict[str, File]:
    """Where the host's binaries come from, and the preflight once more."""
    return {
        "env": _node_env(cfg, machine),
        "preflight": File(script("preflight")),
        **preflight_files(cfg, machine),
        "lib.sh": File(script("lib")),
    }


def node_files(
    cfg: ClusterConfig, machine: Machine, machines: Machines, texts: Mapping[str, str]
) -> dict[str, File]:
    """Everything that makes the host a node, below `root/` in the place where it goes."""
    values = {
        "name": machine.name,
        "address": machine.address,
        "pause-image": cfg.release.pause_image,
    }
    placed = {
        "/etc/kubernetes/kubelet.yaml": File(_kubelet_configuration(cfg, machine)),
        "/etc/kubernetes/pki/ca.crt": File(texts["ca.crt"]),
        "/etc/kubernetes/pki/kubelet-serving.crt": File(texts[f"kubelet-serving-{machine.name}.crt"]),
        "/etc/kubernetes/pki/kubelet-serving.key": File(
            texts[f"kubelet-serving-{machine.name}.key"], mode=0o600
        ),
        "/etc/modules-load.d/kubepivot.conf": File(templates.read("files/modules.conf")),
        "/etc/sysctl.d/90-kubepivot.conf": File(templates.read("files/sysctl.conf")),
        "/etc/systemd/system/containerd.service": File(templates.read("files/containerd.service")),
        "/etc/systemd/system/kubelet.service": File(_template("kubelet.service", values)),
        **_mirror_files(cfg),
        **_kubelet_identity(cfg, machine, machines, texts),
        **registration_files(cfg, machine, machines, texts),
    }
    if machine.is_controller:
        placed |= etcd_files(cfg, machine, machines, texts)
        placed |= _checkpoint_files() | backup_files(cfg, machine)
    return {
        **download_files(cfg, machine),
        "download": File(script("download")),
        "stage": File(script("stage")),
        "containerd.toml": File(_template("containerd.toml", values)),
        **{f"root{path}": file for path, file in placed.items()},
    }


def _template(name: str, values: Mapping[str, str]) -> str:
    return templates.substitute(templates.read(f"files/{name}"), values)


def _node_env(cfg: ClusterConfig, machine: Machine) -> File:
    return env_file(
        ADDRESS=machine.address,
        CLUSTER=cfg.name,
        NAME=machine.name,
        ROLE=machine.role,
        CONTROL_PLANE_UID=str(UID),
        FORMER_UID=str(FORMER_UID),
        **downloads(cfg),
        # Those of a control plane, or of a worker's DaemonSets, as archives and unpacked.
        IMAGES_MIB="1000" if machine.is_controller else "500",
        RCLONE_IMAGE=cfg.release.rclone_image if machine.is_controller and cfg.backup.s3 else "",
    )


def _kubelet_configuration(cfg: ClusterConfig, machine: Machine) -> str:
    configuration: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [cfg.dns_ip],
        "clusterDomain": cfg.network.domain,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        # cgroup v1 still works, and 1.36 refuses it unless told otherwise.
        "failCgroupV1": False,
        "readOnlyPort": 0,
        "resolvConf": "/etc/kubernetes/resolv.conf",
        "rotateCertificates": True,
        "serializeImagePulls": False,
        "staticPodPath": MANIFESTS,
        "tlsCertFile": "/etc/kubernetes/pki/kubelet-serving.crt",
        "tlsMinVersion": "VersionTLS12",
        "tlsPrivateKeyFile": "/etc/kubernetes/pki/kubelet-serving.key",
    }
    if machine.is_controller:
        # Bounds how long the control plane waits after a crash; the default grows to 5 minutes.
        configuration["crashLoopBackOff"] = {"maxContainerRestartPeriod": "5s"}
    if machine.nested:
        configuration["failSwapOn"] = False
        configuration["evictionHard"] = {
            "imagefs.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
        }
        configuration["imageGCHighThresholdPercent"] = 100
    return document.dump(configuration)


def _mirror_files(cfg: ClusterConfig) -> dict[str, File]:
    if cfg.mirror is None:
        return {}
    return {
        f"/etc/containerd/certs.d/{registry}/hosts.toml": File(
            _template("hosts.toml", {"registry": registry, "mirror": _served_at(cfg.mirror.images)})
        )
        for registry in MIRRORED_REGISTRIES
    }


def _served_at(registry: str) -> str:
    """Where a registry serves the images below that URL: the API's version comes before their path."""
    url = urlsplit(registry)
    path = re.sub("^/v2(?=/|$)", "", url.path)
    return f"{url.scheme}://{url.netloc}/v2{path}"


def _kubelet_identity(
    cfg: ClusterConfig, machine: Machine, machines: Machines, texts: Mapping[str, str]
) -> dict[str, File]:
    leaf = f"kubelet-client-{machine.name}"
    current = "/var/lib/kubelet/pki/kubelet-client-current.pem"
    return {
        "/var/lib/kubelet/pki/kubelet-client-initial.pem": File(
            texts[f"{leaf}.crt"] + texts[f"{leaf}.key"], mode=0o600
        ),
        "/var/lib/kubelet/kubeconfig": File(
            kubeconfig(
                cfg,
                machines.api_host,
                ca=texts["ca.crt"],
                user="kubelet",
                **{"client-certificate": current, "client-key": current},
            ),
            mode=0o600,
        ),
    }


def _checkpoint_files() -> dict[str, File]:
    """What starts the control plane at boot: see `components.programs.checkpointer`."""
    return {
        "/etc/systemd/system/kubepivot-checkpoints.service": File(
            templates.read("files/kubepivot-checkpoints.service")
        ),
        "/usr/local/libexec/kubepivot/arm-checkpoints": File(script("arm-checkpoints"), mode=0o755),
    }
