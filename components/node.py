"""Turns hosts into nodes in three stages, each of which begins when all hosts have ended the one before."""

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
from components.hosts.host import Hosts
from components.hosts.machine import Machines
from components.intent import Intent
from components.pki import Pki, Texts
from components.ssh import Payload, RemoteStep

__all__ = ["duplicates", "make_nodes", "prepare_hosts"]


def prepare_hosts(
    name: str,
    cfg: ClusterConfig,
    hosts: Hosts,
    pki: Pki,
    *,
    after: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> pulumi.Resource:
    """Checks every host, then downloads to each what it needs, verified. Nothing that runs is changed.

    Nothing is downloaded to any host before all of them have passed. What is returned waits for all hosts.
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
    facts = pulumi.Output.all(**{n: step.said for n, step in preflights.items()})
    # A preview with a new host knows the barrier's value all the same: else all behind it would change.
    distinct = facts.apply(_refuse_duplicates, run_with_unknowns=True)
    passed = _Barrier(f"{name}-hosts-passed", distinct, [*preflights.values(), *after], opts)
    downloads = [
        RemoteStep(
            f"{name}-{host.name}-download",
            host,
            pki.read(partial(_download, cfg, host.name)),
            timeout=900,
            depends_on=[passed],
            opts=opts,
        )
        for host in hosts.values()
    ]
    return _Barrier(f"{name}-hosts-downloaded", "every host has its downloads", downloads, opts)


def make_nodes(
    name: str,
    cfg: ClusterConfig,
    hosts: Hosts,
    pki: Pki,
    *,
    after: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> dict[str, RemoteStep]:
    """Installs container runtime, kubelet and, on controllers, etcd, from what has been downloaded.

    A host's step ends when its kubelet has been started, not when its node is Ready.
    """
    steps = {}
    for host in hosts.values():
        step = f"{name}-{host.name}-node"
        payload = pki.read(partial(_node, cfg, host.name))
        digest = pulumi.Output.unsecret(payload.apply(lambda known: known.digest))
        intent = Intent(step, digest, after=after, opts=opts)
        steps[host.name] = RemoteStep(
            step, host, payload, timeout=900, token=intent.token, depends_on=after, opts=opts
        )
    return steps


class _Barrier(pulumi.Stash):
    """Depends on all resources of a stage, so that each of the next one depends on this one only: the graph
    grows with the hosts and not with their square.

    A component would not do, since Pulumi's SDK replaces it by its children. A Stash needs no plugin and no
    process. Its value, `passed`, is the same in every run.
    """

    def __init__(
        self,
        name: str,
        passed: pulumi.Input[str],
        after: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions,
    ) -> None:
        own = pulumi.ResourceOptions(depends_on=list(after))
        super().__init__(name, input=passed, opts=pulumi.ResourceOptions.merge(opts, own))


def _preflight(cfg: ClusterConfig, name: str, machines: Machines, _: Texts) -> Payload:
    return Payload(script=script("preflight"), files=preflight_files(cfg, machines[name]))


def _download(cfg: ClusterConfig, name: str, machines: Machines, _: Texts) -> Payload:
    return Payload(script=script("download"), files=download_files(cfg, machines[name]))


def _node(cfg: ClusterConfig, name: str, machines: Machines, texts: Texts) -> Payload:
    return Payload(script=script("node"), files=node_files(cfg, machines[name], machines, texts))


def _refuse_duplicates(facts: Mapping[str, Any]) -> str:
    # Unknown to a preview; empty if the step is gone.
    found = duplicates({name: text for name, text in facts.items() if isinstance(text, str) and text})
    if found:
        # What a preflight saw is in the state by now, and is not looked at again by itself.
        look_again = "when that is mended, look again: pulumi up --replace '**preflight'"
        raise pulumi.RunError(
            "\n".join(["some hosts cannot be told apart:", *(f"  {line}" for line in found), look_again])
        )
    return "every host has passed the preflight, and no two are the same"


def duplicates(facts: Mapping[str, str]) -> list[str]:
    """Finds hosts with the same machine id or hostname. `facts` are the outputs of the preflights by host."""
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
