"""Recovers a control plane that nothing can start any more."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from components.assets.handover import HANDOVER_SECONDS
from components.assets.recovery import recovery_files
from components.assets.templates import script
from components.config import ClusterConfig, Problem
from components.hosts.host import Hosts
from components.lasting import refuse
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
    record = _Recovery(f"{name}-recovery", cfg, after, opts)
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
            depends_on=[*after, record],
            opts=opts,
        )
    ]


class _Recovery(pulumi.Stash):
    """Records the generation with its controller, and refuses another one for it, in previews too: a host on
    which it was not carried out would do it again, to a cluster that lives.
    """

    def __init__(
        self, name: str, cfg: ClusterConfig, after: Sequence[pulumi.Resource], opts: pulumi.ResourceOptions
    ) -> None:
        generation, controller = cfg.recovery.generation, cfg.recovery_controller

        async def look(args: pulumi.ResourceHookArgs) -> None:
            former = (args.old_inputs or {})["input"]
            if generation <= former["generation"] and controller != former["controller"]:
                mend = (
                    f"generation {former['generation']:.0f} was carried out on {former['controller']}: put "
                    "that there, or raise kubepivot:recovery.generation beyond it to recover once more"
                )
                refuse([Problem.at(["recovery", "controller"], controller, mend)])

        hook = pulumi.ResourceHook("recovery", look, pulumi.ResourceHookOptions(on_dry_run=True))
        own = pulumi.ResourceOptions(
            depends_on=list(after), hooks=pulumi.ResourceHookBinding(before_update=[hook])
        )
        super().__init__(
            name,
            input={"generation": generation, "controller": controller},
            opts=pulumi.ResourceOptions.merge(opts, own),
        )
