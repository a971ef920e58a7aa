"""The temporary control plane: started on one controller, and retired once the real one serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

from components.archive import File
from components.assets.node import bootstrap_files, retire_files, retire_seconds, script
from components.config import ClusterConfig
from components.hosts import Host
from components.lasting import refuse_changes
from components.pki import Pki
from components.ssh import Payload, RemoteStep

__all__ = ["retire_bootstrap", "start_bootstrap"]


def start_bootstrap(
    name: str,
    cfg: ClusterConfig,
    host: Host,
    pki: Pki,
    *,
    after: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> RemoteStep:
    """Starts apiserver, controller manager and scheduler as static pods. Ends when the API is ready at its
    endpoint. On a cluster that has taken over already it starts nothing, and what the cluster was made with
    can't be changed by it.
    """
    return RemoteStep(
        f"{name}-bootstrap",
        host,
        pki.read(lambda texts: Payload(script=script("bootstrap"), files=bootstrap_files(cfg, host, texts))),
        timeout=300,
        depends_on=after,
        opts=pulumi.ResourceOptions.merge(opts, refuse_changes(cfg)),
    )


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
