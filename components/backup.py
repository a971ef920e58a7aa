"""Makes a snapshot of etcd on every controller when `backup.generation` is raised."""

from __future__ import annotations

from functools import partial

import pulumi

from components.assets.backup import SCRIPT, facts, generation_file
from components.config import ClusterConfig
from components.hosts.host import Hosts
from components.ssh import Payload, RemoteStep

__all__ = ["make_backups"]


def make_backups(
    name: str, cfg: ClusterConfig, hosts: Hosts, *, after: pulumi.Resource, opts: pulumi.ResourceOptions
) -> dict[str, pulumi.Output[dict[str, str]]]:
    """Makes a snapshot on every controller, once for each generation; none with generation 0.

    Gives `path` and `sha256` of each, by controller. The snapshots of the timer are not its concern. With
    `backup.s3` the step fails if a snapshot cannot be copied; it is on the host then.
    """
    if cfg.backup.generation == 0:
        return {}
    steps = {
        host: RemoteStep(
            f"{name}-{host}-backup",
            hosts[host],
            Payload(script=f"exec {SCRIPT}\n", files={"generation": generation_file(cfg)}),
            timeout=3600,
            depends_on=[after],
            opts=opts,
        )
        for host in cfg.controllers
    }
    return {host: step.said.apply(partial(_facts, host)) for host, step in steps.items()}


def _facts(host: str, output: str) -> dict[str, str]:
    if not output:
        return {}  # the step is gone
    try:
        return facts(output)
    except ValueError as error:
        # What the step printed is in the state by now, and is not looked at again by itself.
        raise pulumi.RunError(
            f"the snapshot that {host} made is not told: {error}; let the login shell there print nothing, "
            "then make another: pulumi up --replace '**backup'"
        ) from error
