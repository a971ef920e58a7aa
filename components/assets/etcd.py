"""Renders etcd: a static pod on every controller, with TLS for clients and peers, and what swaps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.archive import File
from components.assets import document
from components.assets.controlplane import FORMER_UID, MANIFESTS, UID
from components.assets.document import env_file
from components.assets.templates import script
from components.config import ClusterConfig, sizes
from components.config.etcd import DATA
from components.config.k8s_names import NAME_LABEL
from components.hosts.machine import Machine, Machines

__all__ = ["ETCD_SECONDS", "etcd_config", "etcd_files", "etcd_pod", "swap_files"]

ETCD_SECONDS = 900
"""How long a swap may take: longer than its script's deadlines, or what is taken back would be cut off."""

CONFIG = "/etc/kubernetes/etcd.conf.yml"
PKI = "/etc/kubernetes/pki/etcd"


def etcd_files(
    cfg: ClusterConfig, machine: Machine, machines: Machines, texts: Mapping[str, str]
) -> dict[str, File]:
    """The static pod of the host's member and its certificates, by the place where they go."""
    certificates = {
        "ca.crt": "etcd/ca.crt",
        "server.crt": f"etcd/server-{machine.name}.crt",
        "server.key": f"etcd/server-{machine.name}.key",
        "peer.crt": f"etcd/peer-{machine.name}.crt",
        "peer.key": f"etcd/peer-{machine.name}.key",
    }
    files = {
        f"{PKI}/{name}": File(texts[source], mode=0o600, owner=UID) for name, source in certificates.items()
    }
    return {**files, **_pod_files(cfg, machine, machines)}


def swap_files(cfg: ClusterConfig, machine: Machine, machines: Machines) -> dict[str, File]:
    """What `etcd.sh` finds beside it."""
    files = _pod_files(cfg, machine, machines)
    return {
        "env": env_file(
            NAME=machine.name,
            ADDRESS=machine.address,
            ETCD_IMAGE=cfg.release.etcd_image,
            ETCD_VERSION=cfg.release.etcd,
            CONTROL_PLANE_UID=str(UID),
            FORMER_UID=str(FORMER_UID),
        ),
        "lib.sh": File(script("lib")),
        **{f"root{path}": file for path, file in files.items()},
    }


def _pod_files(cfg: ClusterConfig, machine: Machine, machines: Machines) -> dict[str, File]:
    return {
        CONFIG: File(document.dump(etcd_config(cfg, machine, machines))),
        f"{MANIFESTS}/etcd.yaml": File(document.dump(etcd_pod(cfg)), mode=0o600),
    }


def etcd_config(cfg: ClusterConfig, machine: Machine, machines: Machines) -> dict[str, Any]:
    """etcd's options. With a file another option does not make another pod, which takes a kubelet most of a
    minute: the container alone is started anew.
    """
    address = machine.address
    return {
        "advertise-client-urls": f"https://{address}:2379",
        "client-transport-security": {
            "cert-file": "/pki/server.crt",
            "client-cert-auth": True,
            "key-file": "/pki/server.key",
            "trusted-ca-file": "/pki/ca.crt",
        },
        "data-dir": DATA,
        "initial-advertise-peer-urls": f"https://{address}:2380",
        "initial-cluster": ",".join(
            f"{peer}=https://{machines[peer].address}:2380" for peer in cfg.controllers
        ),
        "initial-cluster-state": "new",
        "initial-cluster-token": cfg.name,
        "listen-client-urls": f"https://127.0.0.1:2379,https://{address}:2379",
        "listen-metrics-urls": "http://127.0.0.1:2381",
        "listen-peer-urls": f"https://{address}:2380",
        "name": machine.name,
        "peer-transport-security": {
            "cert-file": "/pki/peer.crt",
            "client-cert-auth": True,
            "key-file": "/pki/peer.key",
            "trusted-ca-file": "/pki/ca.crt",
        },
        "quota-backend-bytes": sizes.in_bytes(cfg.etcd.quota),
        "snapshot-count": 10000,
    }


def etcd_pod(cfg: ClusterConfig) -> dict[str, Any]:
    """The static pod of a controller's etcd member."""
    health = {"host": "127.0.0.1", "port": 2381, "scheme": "HTTP"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "etcd",
            "namespace": "kube-system",
            "labels": {NAME_LABEL: "etcd"},
        },
        "spec": {
            "hostNetwork": True,
            "priorityClassName": "system-node-critical",
            "priority": 2000001000,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": UID,
                "runAsGroup": UID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "etcd",
                    "image": cfg.release.etcd_image,
                    "command": ["etcd", f"--config-file={CONFIG}"],
                    "resources": {"requests": {"cpu": "50m", "memory": "100Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                    },
                    "startupProbe": {
                        "httpGet": {**health, "path": "/readyz"},
                        "periodSeconds": 2,
                        "failureThreshold": 60,
                    },
                    "livenessProbe": {
                        "httpGet": {**health, "path": "/livez"},
                        "periodSeconds": 10,
                        "timeoutSeconds": 15,
                        "failureThreshold": 8,
                    },
                    "readinessProbe": {"httpGet": {**health, "path": "/readyz"}, "timeoutSeconds": 15},
                    "volumeMounts": [
                        {"name": "config", "mountPath": CONFIG, "readOnly": True},
                        {"name": "data", "mountPath": DATA},
                        {"name": "member", "mountPath": f"{DATA}/member"},
                        {"name": "pki", "mountPath": "/pki", "readOnly": True},
                    ],
                }
            ],
            "volumes": [
                {"name": "config", "hostPath": {"path": CONFIG, "type": "File"}},
                {"name": "data", "hostPath": {"path": DATA, "type": "Directory"}},
                # So that it doesn't start either when all in the directory is lost.
                {"name": "member", "hostPath": {"path": f"{DATA}/member", "type": "Directory"}},
                {"name": "pki", "hostPath": {"path": PKI, "type": "Directory"}},
            ],
        },
    }
