"""Starts the temporary control plane on one controller."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from components.assets.bootstrap import BOOTSTRAP_SECONDS, bootstrap_files
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts.host import Host
from components.living_cluster import record_values, refuse_changes
from components.pki import Pki
from components.ssh import Payload, RemoteStep

__all__ = ["start_bootstrap"]


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
    payload = pki.read(
        lambda machines, texts: Payload(
            script=script("bootstrap"), files=bootstrap_files(cfg, machines[host.name], machines, texts)
        )
    )
    step = RemoteStep(
        f"{name}-bootstrap",
        host,
        payload,
        timeout=BOOTSTRAP_SECONDS,
        depends_on=after,
        opts=pulumi.ResourceOptions.merge(opts, refuse_changes(cfg, pki)),
    )
    record_values(cfg, pki, after=step, opts=opts)
    return step
