"""Renders the files of the hand-over from the temporary control plane to the self-hosted one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from components.archive import File
from components.assets.credentials import client_kubeconfig, manifest_value
from components.assets.document import env_file
from components.assets.manifests import CONTENT_LABEL, Object, manifests
from components.assets.network_check import network_digest, network_files
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts.machine import Machine, Machines
from components.programs.reuseport import INCUMBENT

__all__ = ["HANDOVER_SECONDS", "handover_files"]

HANDOVER_SECONDS = 900
"""How long a hand-over may take: longer than the deadlines in its script, which has the last word."""


def handover_files(
    cfg: ClusterConfig, machine: Machine, machines: Machines, texts: Mapping[str, str]
) -> dict[str, File]:
    """What the hand-over needs."""
    objects = manifests(cfg, machines, lambda name: manifest_value(cfg, name, texts)).values()
    mounted = [found for found in objects if CONTENT_LABEL in found["metadata"].get("labels", {})]
    return {
        "env": env_file(
            NAME=machine.name,
            API_ENDPOINT=cfg.api_endpoint(machines.api_host),
            API_PORT=str(cfg.api.port),
            INCUMBENT=INCUMBENT,
            NETWORK=network_digest(cfg, machines, objects),
            NODES=" ".join(sorted(cfg.hosts)),
            MOUNTED=_names(mounted),
            MOUNTED_LABEL=CONTENT_LABEL,
        ),
        "lib.sh": File(script("lib")),
        "network-check.sh": File(script("network-check")),
        "prune.sh": File(script("prune")),
        **network_files(cfg),
        "ca.crt": File(texts["ca.crt"]),
        "kubeconfig": File(client_kubeconfig(cfg, INCUMBENT, texts, "super-admin"), mode=0o600),
    }


def _names(objects: Iterable[Object]) -> str:
    """As kubectl names them."""
    return " ".join(sorted(f"{each['kind'].lower()}/{each['metadata']['name']}" for each in objects))
