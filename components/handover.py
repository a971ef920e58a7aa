"""Removes the temporary control plane once the self-hosted one serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

from components.archive import File
from components.assets.handover import retire_files, retire_seconds
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts import Host
from components.pki import Pki
from components.ssh import Payload, RemoteStep

__all__ = ["retire_bootstrap"]


def retire_bootstrap(
    name: str,
    cfg: ClusterConfig,
    host: Host,
    pki: Pki,
    *,
    workloads: pulumi.Output[str],
    after: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> RemoteStep:
    """Hands over to the self-hosted control plane and takes the temporary one away. Fails closed: the
    temporary one stays until the other one answers on the shared port and all nodes and workloads are ready.

    `workloads` is text that changes with any workload: the step then waits until all have rolled, and tells
    why one has not.
    """
    return RemoteStep(
        f"{name}-retire",
        host,
        pulumi.Output.all(pki.read(lambda texts: retire_files(cfg, host, texts)), workloads).apply(
            lambda known: _retire(*known)
        ),
        timeout=retire_seconds(cfg),
        depends_on=after,
        opts=opts,
    )


def _retire(files: Mapping[str, File], workloads: str) -> Payload:
    return Payload(script=script("retire"), files={**files, "workloads": File(workloads)})
