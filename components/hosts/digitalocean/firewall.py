"""Firewalls of droplets, by tags: who is let in is settled before there is a droplet."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_digitalocean as digitalocean

from components.config import ClusterConfig
from components.hosts.digitalocean.cleanup import Cleanup
from components.tables.ports import SSH

__all__ = ["let_balancer_in", "make_firewalls"]

_ALL = "all"
_ANYWHERE = ["0.0.0.0/0", "::/0"]

Tags = Sequence[pulumi.Input[str]]


def make_firewalls(
    name: str, cfg: ClusterConfig, cleanup: Cleanup, opts: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """Lets in whom `adminCidrs` and `nodePorts` name, and the cluster's hosts, each other: by their private
    addresses and their public ones, which they have on their way to a reserved IP. All is let out.
    """
    section = cfg.digital_ocean
    assert section is not None
    admins, api = list(section.admin_cidrs), str(cfg.api.port)
    ports = f"{cfg.node_ports[0]}-{cfg.node_ports[-1]}"
    hosts = [
        _inbound("tcp", str(SSH.first), addresses=admins),
        *(_inbound(protocol, _ALL, tags=[cleanup.mark]) for protocol in ("tcp", "udp")),
        _inbound("icmp", None, tags=[cleanup.mark]),
        *(
            _inbound(protocol, ports, addresses=list(section.node_ports))
            for protocol in ("tcp", "udp")
            if section.node_ports
        ),
    ]
    out = [
        digitalocean.FirewallOutboundRuleArgs(
            protocol=protocol,
            port_range=None if protocol == "icmp" else _ALL,
            destination_addresses=_ANYWHERE,
        )
        for protocol in ("tcp", "udp", "icmp")
    ]
    return [
        digitalocean.Firewall(
            f"{name}-firewall",
            name=cleanup.mark,
            tags=[cleanup.mark],
            inbound_rules=hosts,
            outbound_rules=out,
            opts=opts,
        ),
        digitalocean.Firewall(
            f"{name}-controllers-firewall",
            name=cleanup.controllers,
            tags=[cleanup.controllers],
            inbound_rules=[_inbound("tcp", api, addresses=admins)],
            opts=opts,
        ),
    ]


def let_balancer_in(
    name: str, cfg: ClusterConfig, cleanup: Cleanup, balancer: digitalocean.LoadBalancer
) -> None:
    """Lets the balancer reach the API; its own firewall says who reaches the balancer."""
    digitalocean.Firewall(
        f"{name}-balancer-firewall",
        name=cleanup.balancer,
        tags=[cleanup.controllers],
        inbound_rules=[_inbound("tcp", str(cfg.api.port), balancers=[balancer.id])],
        opts=cleanup.marked,
    )


def _inbound(
    protocol: str,
    ports: str | None,
    *,
    addresses: Sequence[str] = (),
    tags: Tags = (),
    balancers: Sequence[pulumi.Input[str]] = (),
) -> digitalocean.FirewallInboundRuleArgs:
    return digitalocean.FirewallInboundRuleArgs(
        protocol=protocol,
        port_range=ports,
        source_addresses=list(addresses) or None,
        source_tags=list(tags) or None,
        source_load_balancer_uids=list(balancers) or None,
    )
