"""Takes workers that have left the config out of the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pulumi

from components.assets.removal import removal_files, removal_seconds
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts.host import Host
from components.hosts.machine import Machines
from components.pki import Pki, Texts
from components.ssh import Payload, RemoteDeletion, RemoteStep

__all__ = ["remove_workers"]

TURNS = 100
"""Workers that may leave at once. Not how many there are: with one more every worker's step would change."""


def remove_workers(
    name: str,
    cfg: ClusterConfig,
    controller: Host,
    pki: Pki,
    nodes: Mapping[str, RemoteStep],
    *,
    bootstrap: RemoteStep,
    opts: pulumi.ResourceOptions,
) -> None:
    """Makes, for every worker, a step whose deletion drains it and deletes its Node, on a controller.

    Pulumi deletes last what has left the program, and this before the worker's other steps, its reset and its
    machine: by then the cluster makes no Node of that name any more. With the cluster it ends without a
    deletion of its own.
    """
    for worker in cfg.workers:
        RemoteDeletion(
            f"{name}-{worker}-removal",
            controller,
            pki.read(partial(_payload, cfg, worker)),
            timeout=removal_seconds(cfg),
            turns=TURNS,
            opts=pulumi.ResourceOptions.merge(
                opts,
                pulumi.ResourceOptions(depends_on=[nodes[worker], bootstrap], deleted_with=bootstrap),
            ),
        )


def _payload(cfg: ClusterConfig, worker: str, _: Machines, texts: Texts) -> Payload:
    return Payload(script=script("remove"), files=removal_files(cfg, worker, texts))
