"""Renders the temporary control plane: static pods, the files that they mount, and a kubeconfig."""

from __future__ import annotations

from collections.abc import Mapping

from components.archive import File
from components.assets import document
from components.assets.controlplane import (
    BOOTSTRAP_SECRETS,
    COMPONENTS,
    FORMER_UID,
    MANIFESTS,
    UID,
    bootstrap_pod,
)
from components.assets.credentials import client_kubeconfig, control_plane_files
from components.assets.document import env_file
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts.machine import Machine, Machines

__all__ = ["BOOTSTRAP_SECONDS", "bootstrap_files"]

BOOTSTRAP_SECONDS = 420


def bootstrap_files(
    cfg: ClusterConfig, machine: Machine, machines: Machines, texts: Mapping[str, str]
) -> dict[str, File]:
    """The temporary control plane: three static pods and the secrets that they mount from the host."""
    files = {
        "env": env_file(
            NAME=machine.name,
            CONTROL_PLANE_UID=str(UID),
            FORMER_UID=str(FORMER_UID),
            CONTROLLERS=" ".join(cfg.controllers),
            FILTER_IMAGE=cfg.workload_images["pod-checkpointer"],
            API_ENDPOINT=cfg.api_endpoint(machines.api_host),
        ),
        "lib.sh": File(script("lib")),
        "ca.crt": File(texts["ca.crt"]),
        "kubeconfig": File(client_kubeconfig(cfg, machines.api_host, texts, "super-admin"), mode=0o600),
    }
    for component in COMPONENTS:
        pod = bootstrap_pod(component, cfg, machines)
        manifest = document.dump(pod)
        files[f"root{MANIFESTS}/{pod['metadata']['name']}.yaml"] = File(manifest, mode=0o600)
        for name, text in control_plane_files(component, cfg, texts, "bootstrap").items():
            files[f"root{BOOTSTRAP_SECRETS}/{component}/{name}"] = File(text, mode=0o600, owner=UID)
    return files
