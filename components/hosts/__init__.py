"""Platforms: what makes hosts, or takes existing ones, and which one the config names."""

from __future__ import annotations

from typing import Protocol

import pulumi

from components.config import ClusterConfig
from components.hosts.host import Hosts

__all__ = ["Platform", "create_hosts"]


class Platform(Protocol):
    """Turns the `hosts:` of the config into machines. The name of a host is in every URN."""

    def __call__(
        self, name: str, cfg: ClusterConfig, opts: pulumi.ResourceOptions
    ) -> tuple[Hosts, pulumi.Input[str] | None]:
        """Makes the machines, or only describes them where they exist already. The second is where the API
        is, None if the platform has no endpoint but the machines.
        """
        ...


def create_hosts(cfg: ClusterConfig, opts: pulumi.ResourceOptions) -> tuple[Hosts, pulumi.Input[str]]:
    """Makes the hosts of the platform that the config names. Gives them, and the address or name of the API:
    what the config says, else the platform's, else the only controller's address.
    """
    platform: Platform
    match cfg.platform:
        case "lab":
            from components.hosts.lab import lab_hosts as platform
        case "baremetal":
            from components.hosts.baremetal import baremetal_hosts as platform
        case "digitalocean":
            from components.hosts.digitalocean import digitalocean_hosts as platform
    hosts, endpoint = platform(cfg.name, cfg, opts)
    if cfg.api.host:
        return hosts, cfg.api.host
    return hosts, hosts[cfg.bootstrap_controller].address if endpoint is None else endpoint
