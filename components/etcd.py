"""Swaps etcd on the controllers, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pulumi

from components.assets.etcd import ETCD_SECONDS, swap_files
from components.assets.templates import script
from components.assets.upgrade import FIRST, last_change
from components.config import ClusterConfig
from components.hosts.host import Hosts
from components.hosts.machine import Machines
from components.pki import Pki, Texts
from components.ssh import Payload, RemoteStep

__all__ = ["swap_etcd"]


def swap_etcd(
    name: str,
    cfg: ClusterConfig,
    hosts: Hosts,
    pki: Pki,
    nodes: Mapping[str, RemoteStep],
    *,
    opts: pulumi.ResourceOptions,
) -> Sequence[pulumi.Resource]:
    """Gives etcd another version or other options, and waits on each controller until its member serves.

    The steps of `nodes` start etcd where it is down, and leave alone one that serves. Nothing is done when
    the steps are made.
    """
    steps: list[RemoteStep] = []
    for controller in cfg.controllers:
        steps.append(
            RemoteStep(
                f"{name}-{controller}-etcd",
                hosts[controller],
                pki.read(partial(_payload, cfg, controller)),
                timeout=ETCD_SECONDS,
                change=nodes[controller].said.apply(partial(last_change, of="etcd-change")),
                unchanged=FIRST,
                depends_on=[*nodes.values(), *steps[-1:]],
                opts=opts,
            )
        )
    return [*nodes.values(), *steps]


def _payload(cfg: ClusterConfig, controller: str, machines: Machines, _: Texts) -> Payload:
    return Payload(
        script=script("etcd"),
        files=swap_files(cfg, machines[controller], machines),
        about=f"etcd {cfg.release.etcd}",
    )
