"""Files and scripts of a host: container runtime, kubelet, etcd, and the steps that use them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from components import sizes
from components.archive import File
from components.assets import document, templates
from components.assets.backup import backup_files
from components.assets.controlplane import (
    BOOTSTRAP_SECRETS,
    COMPONENTS,
    FORMER_UID,
    MANIFESTS,
    UID,
    bootstrap_pod,
)
from components.assets.etcd import etcd_files
from components.assets.manifests import (
    CONTENT_LABEL,
    WORKLOADS,
    Object,
    manifests,
)
from components.assets.network import network_digest, network_files
from components.assets.overrides import overrides
from components.assets.registration import registration_files, taints
from components.assets.values import (
    client_kubeconfig,
    control_plane_files,
    kubeconfig,
    manifest_value,
)
from components.config import ClusterConfig
from components.machine import Machine
from components.steering import INCUMBENT

__all__ = [
    "bootstrap_files",
    "download_files",
    "node_files",
    "preflight_files",
    "retire_files",
    "retire_seconds",
    "roll_seconds",
    "script",
]

MIRRORED_REGISTRIES = ("docker.io", "ghcr.io", "quay.io", "registry.k8s.io")


def script(name: str) -> str:
    """The text of a script that runs on a host."""
    return templates.read(f"scripts/{name}.sh")


def env_file(**values: str) -> File:
    return File("".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items())))


# -- preflight -----------------------------------------------------------------------------------------------


def preflight_files(cfg: ClusterConfig, machine: Machine) -> dict[str, File]:
    """What the preflight holds the host against."""
    controller = machine.is_controller
    quota = sizes.mebibytes(cfg.etcd.quota)
    ports = [10250, 10256] + ([cfg.api.port, 2379, 2380, 2381, 10257, 10259] if controller else [])
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
            ARTIFACTS_PROBE=f"{_kubernetes_site(cfg)}/@ARCH@/kubelet.sha256",
            ARTIFACTS_KEY="kubepivot:mirror.artifacts",
        ),
        "claims": File(script("claims")),
    }


# -- node ----------------------------------------------------------------------------------------------------


def download_files(cfg: ClusterConfig, machine: Machine) -> dict[str, File]:
    """Where the host's binaries come from, and the preflight once more."""
    return {
        "env": _node_env(cfg, machine),
        "preflight": File(script("preflight")),
        **preflight_files(cfg, machine),
        "lib.sh": File(script("lib")),
    }


def node_files(cfg: ClusterConfig, machine: Machine, texts: Mapping[str, str]) -> dict[str, File]:
    """Everything that makes the host a node, below `root/` in the place where it goes."""
    values = {
        "name": machine.name,
        "address": machine.address,
        "labels": ",".join(f"{key}={value}" for key, value in sorted(machine.labels.items())),
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
        **_kubelet_identity(cfg, machine, texts),
        **registration_files(cfg, machine, texts),
    }
    if machine.is_controller:
        placed |= etcd_files(cfg, machine, texts)
        placed |= _checkpoint_files() | backup_files(cfg, machine)
    return {
        **download_files(cfg, machine),
        "download": File(script("download")),
        "containerd.toml": File(_template("containerd.toml", values)),
        **{f"root{path}": file for path, file in placed.items()},
    }


def _template(name: str, values: Mapping[str, str]) -> str:
    return templates.substitute(templates.read(f"files/{name}"), values)


def _site(cfg: ClusterConfig, host: str) -> str:
    return f"{cfg.mirror.artifacts}/{host}" if cfg.mirror else f"https://{host}"


def _kubernetes_site(cfg: ClusterConfig) -> str:
    return f"{_site(cfg, 'dl.k8s.io')}/v{cfg.release.kubernetes}/bin/linux"


def _node_env(cfg: ClusterConfig, machine: Machine) -> File:
    release = cfg.release
    kubernetes = f"{_kubernetes_site(cfg)}/@ARCH@"
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
    return env_file(
        ADDRESS=machine.address,
        CLUSTER=cfg.name,
        NAME=machine.name,
        ROLE=machine.role,
        CONTROL_PLANE_UID=str(UID),
        FORMER_UID=str(FORMER_UID),
        CONTAINERD_URL=containerd,
        CONTAINERD_SUMS=f"{containerd}.sha256sum",
        CNI_URL=cni,
        CNI_SUMS=f"{cni}.sha256",
        KUBELET_URL=f"{kubernetes}/kubelet",
        KUBELET_SUMS=f"{kubernetes}/kubelet.sha256",
        KUBECTL_URL=f"{kubernetes}/kubectl",
        KUBECTL_SUMS=f"{kubernetes}/kubectl.sha256",
        ETCD_URL=f"{etcd}/etcd-v{release.etcd}-linux-@ARCH@.tar.gz",
        ETCD_SUMS=f"{etcd}/SHA256SUMS",
        RCLONE_IMAGE=release.rclone_image if machine.is_controller and cfg.backup.s3 else "",
        RUNC_URL=f"{runc}/runc.@ARCH@",
        RUNC_SUMS=f"{runc}/runc.sha256sum",
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
        "registerWithTaints": taints(machine),
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


def _kubelet_identity(cfg: ClusterConfig, machine: Machine, texts: Mapping[str, str]) -> dict[str, File]:
    leaf = f"kubelet-client-{machine.name}"
    current = "/var/lib/kubelet/pki/kubelet-client-current.pem"
    return {
        "/var/lib/kubelet/pki/kubelet-client-initial.pem": File(
            texts[f"{leaf}.crt"] + texts[f"{leaf}.key"], mode=0o600
        ),
        "/var/lib/kubelet/kubeconfig": File(
            kubeconfig(
                cfg,
                ca=texts["ca.crt"],
                user="kubelet",
                **{"client-certificate": current, "client-key": current},
            ),
            mode=0o600,
        ),
    }


def _checkpoint_files() -> dict[str, File]:
    """What starts the control plane at boot: see `components.checkpointer`."""
    return {
        "/etc/systemd/system/kubepivot-checkpoints.service": File(
            templates.read("files/kubepivot-checkpoints.service")
        ),
        "/usr/local/libexec/kubepivot/arm-checkpoints": File(script("arm-checkpoints"), mode=0o755),
    }


# -- bootstrap and retirement of the temporary control plane ---------------------------------------------


def bootstrap_files(cfg: ClusterConfig, machine: Machine, texts: Mapping[str, str]) -> dict[str, File]:
    """The temporary control plane: three static pods and the secrets that they mount from the host."""
    files = {
        "env": env_file(
            NAME=machine.name,
            CONTROL_PLANE_UID=str(UID),
            FORMER_UID=str(FORMER_UID),
            CONTROLLERS=" ".join(cfg.controllers),
            API_ENDPOINT=cfg.api_endpoint,
        ),
        "lib.sh": File(script("lib")),
        "ca.crt": File(texts["ca.crt"]),
        "kubeconfig": File(client_kubeconfig(cfg, texts, "super-admin"), mode=0o600),
    }
    for component in COMPONENTS:
        pod = bootstrap_pod(component, cfg)
        manifest = document.dump(pod)
        files[f"root{MANIFESTS}/{pod['metadata']['name']}.yaml"] = File(manifest, mode=0o600)
        for name, text in control_plane_files(component, cfg, texts, "bootstrap").items():
            files[f"root{BOOTSTRAP_SECRETS}/{component}/{name}"] = File(text, mode=0o600, owner=UID)
    return files


def retire_files(cfg: ClusterConfig, machine: Machine, texts: Mapping[str, str]) -> dict[str, File]:
    """What the hand-over needs."""
    objects = manifests(cfg, lambda name: manifest_value(cfg, name, texts)).values()
    mounted = [found for found in objects if CONTENT_LABEL in found["metadata"].get("labels", {})]
    workloads = [found for found in objects if found["kind"] in WORKLOADS]
    given = {found["metadata"]["name"]: overrides(cfg, found["metadata"]["name"]) for found in workloads}
    return {
        "env": env_file(
            NAME=machine.name,
            API_ENDPOINT=cfg.api_endpoint,
            API_PORT=str(cfg.api.port),
            INCUMBENT=INCUMBENT,
            NETWORK=network_digest(cfg, objects),
            NODES=" ".join(f"node/{name}" for name in sorted(cfg.hosts)),
            ROLL_SECONDS=str(roll_seconds(cfg)),
            MOUNTED=_names(mounted),
            MOUNTED_LABEL=CONTENT_LABEL,
            WORKLOADS=_names(workloads),
        ),
        "lib.sh": File(script("lib")),
        "network.sh": File(script("network")),
        "rollout.sh": File(script("rollout")),
        **network_files(cfg),
        "overrides": File("".join(f"{name} {' or '.join(keys)}\n" for name, keys in given.items() if keys)),
        "ca.crt": File(texts["ca.crt"]),
        "kubeconfig": File(client_kubeconfig(cfg, texts, "super-admin", loopback=INCUMBENT), mode=0o600),
    }


def roll_seconds(cfg: ClusterConfig) -> int:
    """How long a roll of all workloads may take. Controllers' pods roll one after another."""
    return 120 + 60 * len(cfg.controllers)


def retire_seconds(cfg: ClusterConfig) -> int:
    """How long a hand-over may take: as long as the deadlines in its script, so that it has the last word."""
    return roll_seconds(cfg) + 1000


def _names(objects: Iterable[Object]) -> str:
    """As kubectl names them."""
    return " ".join(sorted(f"{each['kind'].lower()}/{each['metadata']['name']}" for each in objects))
