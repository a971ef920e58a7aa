"""Makes a snapshot of etcd before Kubernetes or etcd is upgraded."""

from __future__ import annotations

import pulumi

from components.api import Api
from components.assets.snapshot import about, former_version, snapshot_files
from components.assets.templates import script
from components.config import ClusterConfig
from components.config.releases import numbers_of
from components.hosts.host import Host
from components.ssh import Payload, RemoteStep
from components.upgrade_checks import check
from components.upgrade_path import refuse_path

__all__ = ["snapshot_before_upgrade"]


def snapshot_before_upgrade(
    name: str,
    cfg: ClusterConfig,
    controller: Host,
    api: Api,
    *,
    after: pulumi.Resource,
    opts: pulumi.ResourceOptions,
) -> RemoteStep:
    """Makes a snapshot of etcd on the controller when Kubernetes or etcd is about to become newer.

    It comes before the version is recorded: without a snapshot nothing has begun, and the former version can
    be put back. The cluster is looked at even before, since a run that is refused would leave a snapshot that
    is old when the upgrade begins. On a new host there is nothing to save.
    """

    async def look_first(args: pulumi.ResourceHookArgs) -> None:
        former, version = former_version((args.old_inputs or {})["create"]), cfg.kubernetes_version
        # Back to an earlier version none is made, and what has begun only the record of the version knows.
        if numbers_of(version) <= numbers_of(former):
            return
        await refuse_path(api, former, version)
        await check(api, cfg, former)

    hook = pulumi.ResourceHook("checks before the snapshot", look_first)
    own = pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(before_update=[hook]))
    return RemoteStep(
        f"{name}-{controller.name}-snapshot",
        controller,
        Payload(script=script("snapshot"), files=snapshot_files(cfg, controller.name), about=about(cfg)),
        timeout=3600,
        depends_on=[after],
        opts=pulumi.ResourceOptions.merge(opts, own),
    )
