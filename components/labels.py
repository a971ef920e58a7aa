"""Has labels and taints of the config on nodes that have registered already."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi

from components.api import Api, try_to_change
from components.assets.labels import NONE, labels_of, labels_patch
from components.hosts.host import Host, Hosts
from components.ssh import RemoteStep

__all__ = ["label_nodes"]

SECONDS = 60


def label_nodes(
    name: str,
    hosts: Hosts,
    api: Api,
    nodes: Mapping[str, RemoteStep],
    *,
    bootstrap: RemoteStep,
    opts: pulumi.ResourceOptions,
) -> None:
    """Records each host's labels and taints, and changes its Node through the API when they change.

    A kubelet gives them only to a Node that it makes, and may not change taints. It is not restarted. Without
    a Node there is nothing to do: whoever makes it takes what the host's step in `nodes` has placed.
    """
    for host in hosts.values():
        own = pulumi.ResourceOptions(depends_on=[nodes[host.name], bootstrap])
        pulumi.Stash(
            f"{name}-{host.name}-labels",
            input=labels_of(host),
            opts=pulumi.ResourceOptions.merge(pulumi.ResourceOptions.merge(opts, own), _follow(host, api)),
        )


def _follow(host: Host, api: Api) -> pulumi.ResourceOptions:
    """Options of the record before which the Node is changed."""

    async def follow(args: pulumi.ResourceHookArgs) -> None:
        before = args.old_inputs["input"] if args.old_inputs else NONE
        if before == labels_of(host) == NONE:
            return
        async with api.connect() as client:
            trouble = await try_to_change(
                client, f"/api/v1/nodes/{host.name}", lambda node: labels_patch(node, host, before), SECONDS
            )
        if trouble:
            raise pulumi.RunError(
                f"node {host.name} may lack labels or taints of the config, for {trouble}; when that is "
                "mended, run 'pulumi up' again"
            )

    hook = pulumi.ResourceHook(f"labels of {host.name}", follow)
    return pulumi.ResourceOptions(
        hooks=pulumi.ResourceHookBinding(before_create=[hook], before_update=[hook])
    )
