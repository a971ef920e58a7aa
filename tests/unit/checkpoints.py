"""Pods as the API would tell of them, and checkpoints made from them."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.programs.checkpointer.checkpoint import Checkpoint, render
from components.programs.checkpointer.pods import APISERVER, SCHEDULER, SELF, Owner
from components.programs.checkpointer.store import Store

OWNERS = (APISERVER, SCHEDULER, SELF)
SECRET = {"data": {name: base64.b64encode(name.encode()).decode() for name in ("a.crt", "a.key")}}
START = datetime(2026, 1, 1, tzinfo=UTC)

Object = dict[str, Any]


def pod(owner: Owner = APISERVER, uid: str = "1", **changes: Any) -> Object:
    """A pod as the API has it: defaulted, bound, Ready."""
    replica_set = owner.kind == "Deployment"
    reference = {
        "kind": "ReplicaSet" if replica_set else owner.kind,
        "name": f"{owner.name}-5c8f" if replica_set else owner.name,
        "controller": True,
        "uid": "7",
    }
    return {
        "metadata": {
            "name": f"{owner.name}-{uid}",
            "namespace": owner.namespace,
            "uid": uid,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"pod-template-hash": "5c8f"} if replica_set else {"controller-revision-hash": "x"},
            "ownerReferences": [reference],
        },
        "spec": {
            "nodeName": "controller-1",
            "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
            "affinity": {"nodeAffinity": {}},
            "serviceAccountName": "default",
            "serviceAccount": "default",
            "imagePullSecrets": [{"name": "registry"}],
            "automountServiceAccountToken": False,
            "hostNetwork": True,
            "priority": 2000001000,
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"runAsUser": os.getuid(), "fsGroup": os.getgid()},
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example/main:1",
                    "command": ["main", "--flag=1"],
                    "resources": {"requests": {"cpu": "50m"}},
                    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "volumeMounts": [{"name": "secrets", "mountPath": "/secrets"}],
                }
            ],
            "volumes": [
                {"name": "secrets", "secret": {"secretName": "main-1", "defaultMode": 0o440}},
                {"name": "modules", "hostPath": {"path": "/lib/modules"}},
            ],
            **changes,
        },
        "status": status(),
    }


def status(*, ready: bool = True, started: datetime = START, container: str = "c1") -> Object:
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [
            {
                "containerID": f"containerd://{container}",
                "state": {"running": {"startedAt": started.strftime("%Y-%m-%dT%H:%M:%SZ")}},
            }
        ],
    }


def secret(resource: str, name: str) -> Object | None:
    return SECRET if (resource, name) == ("secrets", "main-1") else None


def checkpoint(owner: Owner = APISERVER, flag: str = "--flag=1") -> Checkpoint:
    made = pod(owner)
    made["spec"]["containers"][0]["command"] = ["main", flag]
    return render(owner, made, secret)


def directory_of(store: Store, owner: Owner = APISERVER) -> Path:
    return store.checkpoints / str(owner)
