"""A control plane that nothing can start any more comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

from components.archive import File
from components.assets import document
from components.assets.controlplane import COMPONENTS, FORMER_UID, UID
from components.assets.manifests import WORKLOADS, Object, owned
from components.assets.node import bootstrap_files, env_file, retire_files, retire_seconds, script
from components.assets.values import client_kubeconfig, manifest_value
from components.config import ClusterConfig
from components.hosts import Hosts
from components.machine import Machine
from components.pki import Pki
from components.selfhosted import objects
from components.ssh import Payload, RemoteStep
from components.steering import EACH, NEWCOMER

__all__ = ["recover", "recovery_files"]


def recover(
    name: str,
    cfg: ClusterConfig,
    hosts: Hosts,
    pki: Pki,
    *,
    after: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> list[RemoteStep]:
    """Brings the control plane back, once for each generation of the config, and nothing for generation 0.

    A temporary control plane starts on one controller and goes when a new real one serves. The cluster's data
    are those that etcd has, or the snapshot's. The step ends when the API is the real one's again.
    """
    if cfg.recovery.generation == 0:
        return []
    host = hosts[cfg.recovery_controller]
    payload = pki.read(
        lambda texts: Payload(script=script("recover"), files=recovery_files(cfg, host, texts))
    )
    return [
        RemoteStep(
            f"{name}-recover",
            host,
            payload,
            # As with the hand-over, which is the last part of it.
            timeout=1800 + retire_seconds(cfg),
            told=True,
            depends_on=list(after),
            opts=opts,
        )
    ]


def recovery_files(cfg: ClusterConfig, machine: Machine, texts: Mapping[str, str]) -> dict[str, File]:
    """What a recovery needs: the steps that start and retire the temporary control plane, each in a directory
    of its own, and every object of the cluster, since Pulumi does not see which of them are gone.
    """
    files = {
        "env": env_file(
            NAME=machine.name,
            CLUSTER=cfg.name,
            GENERATION=str(cfg.recovery.generation),
            SNAPSHOT=cfg.recovery.snapshot or "",
            PEER_URL=f"https://{machine.address}:2380",
            API_PORT=str(cfg.api.port),
            EACH=EACH,
            CONTROL_PLANE_UID=str(UID),
            FORMER_UID=str(FORMER_UID),
            CONTROLLERS=" ".join(cfg.controllers),
            NODES=" ".join(sorted(cfg.hosts)),
        ),
        "lib.sh": File(script("lib")),
        "ca.crt": File(texts["ca.crt"]),
        "kubeconfig": File(
            # The temporary kube-apiserver, not an old one that listens and does not answer.
            client_kubeconfig(cfg, texts, "super-admin", loopback=NEWCOMER),
            mode=0o600,
        ),
    }
    steps = {
        "bootstrap": bootstrap_files(cfg, machine, texts),
        "retire": retire_files(cfg, machine, texts),
    }
    for step, brought in steps.items():
        files |= {f"{step}/{path}": file for path, file in brought.items()}
        files[f"{step}/run"] = File(script(step))
    for name, manifest in objects(cfg, lambda value: manifest_value(cfg, value, texts)).items():
        files[f"manifests/{name}"] = File(document.dump(owned(manifest)), mode=0o600)
        placed = (*COMPONENTS, "pod-checkpointer")
        if manifest["metadata"]["name"] in placed and manifest["kind"] in WORKLOADS:
            files[f"pods/{name}"] = File(document.dump(_pod(manifest)), mode=0o600)
    return files


def _pod(workload: Object) -> Object:
    """A pod of the workload, to ask the API whether one may be made."""
    meta, template = workload["metadata"], workload["spec"]["template"]
    identity = {"generateName": f"{meta['name']}-", "namespace": meta["namespace"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], **identity},
        "spec": template["spec"],
    }
