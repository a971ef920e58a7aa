"""Removes the temporary control plane once the self-hosted one serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

from components.archive import File
from components.assets.handover import HANDOVER_SECONDS, handover_files
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts.host import Host
from components.pki import Pki
from components.ssh import Payload, RemoteStep

__all__ = ["hand_over"]


def hand_over(
    name: str,
    cfg: ClusterConfig,
    host: Host,
    pki: Pki,
    *,
    workloads: pulumi.Output[str],
    token: pulumi.Output[str],
    after: Sequence[pulumi.Resource],
    gate: pulumi.ResourceOptions,
    opts: pulumi.ResourceOptions,
) -> RemoteStep:
    """Hands over to the self-hosted control plane, takes the temporary one away, and removes what nothing
    mounts any more. Fails closed: the temporary one stays until the other one answers on the shared port and
    its checkpoints are on disk.

    `workloads` is text that changes with any workload, `token` is that of their intents: with another of them
    the step runs again, and with it its `gate`.
    """
    # States made before November 2026 have the step by that name.
    former = pulumi.ResourceOptions(aliases=[pulumi.Alias(name=f"{name}-retire")])
    return RemoteStep(
        f"{name}-handover",
        host,
        pulumi.Output.all(
            pki.read(lambda machines, texts: handover_files(cfg, machines[host.name], machines, texts)),
            workloads,
        ).apply(lambda known: _payload(*known)),
        timeout=HANDOVER_SECONDS,
        token=token,
        depends_on=after,
        opts=pulumi.ResourceOptions.merge(pulumi.ResourceOptions.merge(opts, gate), former),
    )


def _payload(files: Mapping[str, File], workloads: str) -> Payload:
    return Payload(script=script("handover"), files={**files, "workloads": File(workloads)})
