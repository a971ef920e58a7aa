"""Renders etcd: a static pod on every controller, with TLS for clients and peers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.archive import File
from components.assets import document
from components.assets.controlplane import MANIFESTS, UID
from components.config import ClusterConfig, sizes
from components.config.etcd import DEFAULT_QUOTA
from components.hosts.machine import Machine, Machines

__all__ = ["etcd_files", "etcd_pod"]

DATA = "/var/lib/etcd"
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
    pod = document.dump(etcd_pod(cfg, machine, machines))
    return {**files, f"{MANIFESTS}/etcd.yaml": File(pod, mode=0o600)}


def etcd_pod(cfg: ClusterConfig, machine: Machine, machines: Machines) -> dict[str, Any]:
    """The static pod of a controller's etcd member, with TLS for clients and peers."""
    address = machine.address
    flags = {
        "advertise-client-urls": f"https://{address}:2379",
        "cert-file": "/pki/server.crt",
        "client-cert-auth": "true",
        "data-dir": DATA,
        "initial-advertise-peer-urls": f"https://{address}:2380",
        "initial-cluster": ",".join(
            f"{peer}=https://{machines[peer].address}:2380" for peer in cfg.controllers
        ),
        "initial-cluster-state": "new",
        "initial-cluster-token": cfg.name,
        "key-file": "/pki/server.key",
        "listen-client-urls": f"https://127.0.0.1:2379,https://{address}:2379",
        "listen-metrics-urls": "http://127.0.0.1:2381",
        "listen-peer-urls": f"https://{address}:2380",
        "name": machine.name,
        "peer-cert-file": "/pki/peer.crt",
        "peer-client-cert-auth": "true",
        "peer-key-file": "/pki/peer.key",
        "peer-trusted-ca-file": "/pki/ca.crt",
        "snapshot-count": "10000",
        "trusted-ca-file": "/pki/ca.crt",
    }
    if cfg.etcd.quota != DEFAULT_QUOTA:
        # Not for nothing: another manifest takes etcd of a living cluster away for most of a minute.
        flags["quota-backend-bytes"] = str(sizes.in_bytes(cfg.etcd.quota))
    health = {"host": "127.0.0.1", "port": 2381, "scheme": "HTTP"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "etcd",
            "namespace": "kube-system",
            "labels": {"app.kubernetes.io/name": "etcd"},
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
                    "command": ["etcd", *(f"--{flag}={value}" for flag, value in sorted(flags.items()))],
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
                        {"name": "data", "mountPath": DATA},
                        {"name": "member", "mountPath": f"{DATA}/member"},
                        {"name": "pki", "mountPath": "/pki", "readOnly": True},
                    ],
                }
            ],
            "volumes": [
                {"name": "data", "hostPath": {"path": DATA, "type": "Directory"}},
                # So that it doesn't start either when all in the directory is lost.
                {"name": "member", "hostPath": {"path": f"{DATA}/member", "type": "Directory"}},
                {"name": "pki", "hostPath": {"path": PKI, "type": "Directory"}},
            ],
        },
    }
