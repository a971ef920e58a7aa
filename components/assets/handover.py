"""Renders the files of the hand-over from the temporary control plane to the self-hosted one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from components.archive import File
from components.assets.credentials import client_kubeconfig, manifest_value
from components.assets.document import env_file
from components.assets.manifests import CONTENT_LABEL, WORKLOADS, Object, manifests
from components.assets.network import network_digest, network_files
from components.assets.overrides import overrides
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts.machine import Machine
from components.programs.reuseport import INCUMBENT

__all__ = ["retire_files", "retire_seconds", "roll_seconds"]


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
