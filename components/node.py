"""Hosts become nodes: all of them are looked at, then all download what they lack, then each is set up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import pulumi

from components.assets.node import download_files, node_files
from components.assets.preflight import preflight_files
from components.assets.templates import script
from components.config import ClusterConfig
from components.hosts import Hosts
from components.hosts.machine import Machines
from components.pki import Pki, Texts
from components.ssh import Payload, RemoteStep

__all__ = ["duplicates", "make_nodes"]


def make_nodes(
    name: str,
    cfg: ClusterConfig,
    hosts: Hosts,
    pki: Pki,
    *,
    after: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> dict[str, RemoteStep]:
    """Looks at every host, then installs container runtime, kubelet and, on controllers, etcd.

    Nothing is downloaded to any host before all of them have passed, and nothing is installed on any before
    all have what they need, verified. A host's step ends when its kubelet has been started, not when its
    node is Ready.
    """
    preflights = {
        host.name: RemoteStep(
            f"{name}-{host.name}-preflight",
            host,
            pki.read(partial(_preflight, cfg, host.name)),
            timeout=90,
            opts=opts,
        )
        for host in hosts.values()
    }
    # Known to a preview that knows no facts of a new host: else every node would seem to change.
    passed = pulumi.Output.all(**{n: step.said for n, step in preflights.items()}).apply(
        _refuse_duplicates, run_with_unknowns=True
    )
    downloads = [
        RemoteStep(
            f"{name}-{host.name}-download",
            host,
            _after(passed, pki.read(partial(_download, cfg, host.name))),
            timeout=900,
            depends_on=[*preflights.values(), *after],
            opts=opts,
        )
        for host in hosts.values()
    ]
    return {
        host.name: RemoteStep(
            f"{name}-{host.name}-node",
            host,
            pki.read(partial(_node, cfg, host.name)),
            timeout=900,
            depends_on=downloads,
            opts=opts,
        )
        for host in hosts.values()
    }


def _preflight(cfg: ClusterConfig, name: str, machines: Machines, _: Texts) -> Payload:
    return Payload(script=script("preflight"), files=preflight_files(cfg, machines[name]))


def _download(cfg: ClusterConfig, name: str, machines: Machines, _: Texts) -> Payload:
    return Payload(script=script("download"), files=download_files(cfg, machines[name]))


def _node(cfg: ClusterConfig, name: str, machines: Machines, texts: Texts) -> Payload:
    return Payload(script=script("node"), files=node_files(cfg, machines[name], machines, texts))


def _after(passed: pulumi.Output[None], payload: pulumi.Output[Payload]) -> pulumi.Output[Payload]:
    return pulumi.Output.all(payload, passed).apply(lambda known: known[0])


def _refuse_duplicates(facts: Mapping[str, Any]) -> None:
    # Unknown to a preview; empty if the step is gone.
    found = duplicates({name: text for name, text in facts.items() if isinstance(text, str) and text})
    if found:
        # What a preflight saw is in the state by now, and is not looked at again by itself.
        look_again = "when that is mended, look again: pulumi up --replace '**preflight'"
        raise pulumi.RunError(
            "\n".join(["some hosts cannot be told apart:", *(f"  {line}" for line in found), look_again])
        )


def duplicates(facts: Mapping[str, str]) -> list[str]:
    """What two hosts have in common and should not. `facts` are the outputs of the preflights by host."""
    mends = {
        "machine-id": "one is a clone of the other: run `rm /etc/machine-id; systemd-machine-id-setup` on it",
        "hostname": "rename one with `hostnamectl set-hostname`",
    }
    # A login shell may have printed something of its own first.
    parsed = {
        name: dict(line.split("=", 1) for line in text.splitlines() if line.startswith(tuple(mends)))
        for name, text in facts.items()
    }
    return [
        f"{one} and {other} have the same {fact}, {parsed[one][fact]}: {mend}"
        for one, other in combinations(sorted(parsed), 2)
        for fact, mend in mends.items()
        if parsed[one][fact] == parsed[other][fact]
    ]
