"""Recovers a control plane that nothing can start any more."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from components.assets.handover import HANDOVER_SECONDS
from components.assets.recovery import recovery_files
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts.host import Hosts
from components.pki import Pki
from components.ssh import Payload, RemoteStep

__all__ = ["recover"]


def recover(
    name: str,
    cfg: ClusterConfig,
    hosts: Hosts,
    pki: Pki,
    token: pulumi.Output[str],
    *,
    after: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> list[RemoteStep]:
    """Brings the control plane back, once for each generation of the config, and nothing for generation 0.

    A temporary control plane starts on one controller and goes when a new real one serves. The cluster's data
    are those that etcd has, or the snapshot's. The step ends when the API is the real one's again, and every
    workload says which intent it is of, by the `token` of them all.
    """
    if cfg.recovery.generation == 0:
        return []
    host = hosts[cfg.recovery_controller]
    payload = pki.read(
        lambda machines, texts: Payload(
            script=script("recover"), files=recovery_files(cfg, machines[host.name], machines, texts)
        )
    )
    return [
        RemoteStep(
            f"{name}-recover",
            host,
            payload,
            # As with the hand-over, which is the last part of it.
            timeout=1800 + HANDOVER_SECONDS,
            stream_stderr=True,
            token=token,
            depends_on=list(after),
            opts=opts,
        )
    ]
