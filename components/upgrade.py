"""Upgrades containerd and kubelets, a host or `maxUnavailable` of them at a time."""

from __future__ import annotations

from asyncio import Lock
from collections.abc import Mapping

import httpx
import pulumi

from components.api import Api, ask
from components.assets.drain import takes_over
from components.assets.templates import script
from components.assets.upgrade import FIRST, UPGRADE_SECONDS, kubelet_version, last_change, upgrade_files
from components.assets.upgrade_plan import host_order, how_far
from components.config import ClusterConfig
from components.drain import cordon, drain
from components.hosts.host import Host, Hosts
from components.ssh import Payload, RemoteStep

__all__ = ["upgrade_hosts"]


def upgrade_hosts(
    name: str,
    cfg: ClusterConfig,
    hosts: Hosts,
    api: Api,
    nodes: Mapping[str, RemoteStep],
    *,
    after: RemoteStep,
    opts: pulumi.ResourceOptions,
) -> None:
    """Swaps in what the step of `nodes` has staged on a host that serves: controllers first, as many hosts at
    once as the config says. The first that fails stops the rest.

    A host whose kubelet becomes another version is drained before. Nothing is done when the steps are made:
    a new host has nothing staged.
    """
    steps: list[RemoteStep] = []
    at_once = cfg.upgrade.max_unavailable
    looking = Lock()
    payload = Payload(
        script=script("upgrade"),
        files=upgrade_files(cfg),
        about=f"kubelet {cfg.release.kubernetes}, containerd {cfg.release.containerd}",
    )
    for host in map(hosts.__getitem__, host_order(cfg)):
        change = nodes[host.name].said.apply(last_change)
        hook = _drained_before(cfg, host, api, change, looking)
        steps.append(
            RemoteStep(
                f"{name}-{host.name}-upgrade",
                host,
                payload,
                timeout=UPGRADE_SECONDS,
                change=change,
                unchanged=FIRST,
                depends_on=[after, *([steps[-at_once]] if len(steps) >= at_once else [])],
                opts=pulumi.ResourceOptions.merge(opts, hook),
            )
        )


def _drained_before(
    cfg: ClusterConfig, host: Host, api: Api, change: pulumi.Output[str], looking: Lock
) -> pulumi.ResourceOptions:
    """Options of a step before which the host is drained, if its kubelet becomes another version, and whose
    failure tells what is upgraded by then.
    """

    async def drain_first(_: pulumi.ResourceHookArgs) -> None:
        if await change.future() == FIRST:
            return
        async with api.connect() as client:
            problems = await _drain(client, cfg, host.name, looking)
            if problems:
                raise pulumi.RunError("\n".join([*problems, await _how_far(cfg, client), _MEND]))

    async def tell(_: pulumi.ErrorHookArgs) -> bool:
        async with api.connect() as client:
            pulumi.log.error(await _how_far(cfg, client))
        return False  # what a script has waited for is not tried again by itself

    hook = pulumi.ResourceHook(f"drain of {host.name}", drain_first)
    failed = pulumi.ErrorHook(f"failure of {host.name}", tell)
    return pulumi.ResourceOptions(
        hooks=pulumi.ResourceHookBinding(before_create=[hook], before_update=[hook], on_error=[failed])
    )


async def _how_far(cfg: ClusterConfig, api: httpx.AsyncClient) -> str:
    """Which hosts have their new kubelet by now, and which do not."""
    try:
        nodes = (await ask(api, "/api/v1/nodes"))["items"]
    except pulumi.RunError as error:
        return f"which hosts are upgraded is not known: {error}"
    return how_far(
        cfg, {each["metadata"]["name"]: each["status"]["nodeInfo"]["kubeletVersion"] for each in nodes}
    )


_MEND = (
    "No other host is begun. Mend that and run 'pulumi up' again; or, within a minor, put the former values "
    "back in the config and run it: it takes back what has been upgraded."
)


async def _drain(api: httpx.AsyncClient, cfg: ClusterConfig, name: str, looking: Lock) -> list[str]:
    """Drains the node unless its kubelet stays what it is: what is only restarted leaves the pods alone.

    Only one host looks for nodes to take its pods at a time, so that no two rely on each other.
    """
    async with looking:
        listed = await ask(api, "/api/v1/nodes")
        nodes = {node["metadata"]["name"]: node for node in listed["items"]}
        node = nodes.get(name)
        if node is None or node["status"]["nodeInfo"]["kubeletVersion"] == kubelet_version(cfg):
            return []
        if not takes_over(node, list(nodes.values())):
            pulumi.log.info(f"{name} is not drained, for no other node could take its pods: they stay on it")
            return []
        problems = await cordon(api, name)
    return problems or await drain(
        api, name, cfg.upgrade.drain, lambda text: pulumi.log.info(text, ephemeral=True)
    )
