"""Renders the files of a recovery: every object, the temporary control plane and the hand-over."""

from __future__ import annotations

from collections.abc import Mapping

from components.archive import File
from components.assets import document
from components.assets.bootstrap import bootstrap_files
from components.assets.controlplane import FORMER_UID, UID
from components.assets.credentials import client_kubeconfig, manifest_value
from components.assets.document import env_file
from components.assets.handover import handover_files
from components.assets.manifests import WORKLOAD_KINDS, Object, applied, managed
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts.machine import Machine, Machines
from components.programs.reuseport import EACH, NEWCOMER
from components.tables.components import CHECKPOINTED

__all__ = ["recovery_files"]


def recovery_files(
    cfg: ClusterConfig, machine: Machine, machines: Machines, texts: Mapping[str, str]
) -> dict[str, File]:
    """What a recovery needs: the steps that start and end the temporary control plane, each in a directory of
    its own, and every object of the cluster, since Pulumi does not see which of them are gone.
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
            CHECKPOINTED=" ".join(CHECKPOINTED),
            NODES=" ".join(sorted(cfg.hosts)),
        ),
        "lib.sh": File(script("lib")),
        "ca.crt": File(texts["ca.crt"]),
        "kubeconfig": File(
            # The temporary kube-apiserver, not an old one that listens and does not answer.
            client_kubeconfig(cfg, NEWCOMER, texts, "super-admin"),
            mode=0o600,
        ),
    }
    steps = {
        "bootstrap": bootstrap_files(cfg, machine, machines, texts),
        "handover": handover_files(cfg, machine, machines, texts),
    }
    for step, brought in steps.items():
        files |= {f"{step}/{path}": file for path, file in brought.items()}
        files[f"{step}/run"] = File(script(step))
    for name, manifest in applied(cfg, machines, lambda value: manifest_value(cfg, value, texts)).items():
        files[f"manifests/{name}"] = File(document.dump(managed(manifest)), mode=0o600)
        if manifest["metadata"]["name"] in CHECKPOINTED and manifest["kind"] in WORKLOAD_KINDS:
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
