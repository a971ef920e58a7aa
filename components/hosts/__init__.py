"""Hosts: the values that every platform returns, and the choice of platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pulumi

from components.config import ClusterConfig
from components.hosts.machine import Machine

__all__ = ["Host", "Hosts", "Platform", "Ssh", "create_hosts"]


@dataclass(frozen=True, kw_only=True)
class Ssh:
    """How to log in. The host key is always pinned."""

    host: pulumi.Input[str]
    user: str
    port: int
    private_key: pulumi.Input[str]
    host_key: pulumi.Input[str]
    dial_tries: int
    """Tries until a host counts as dead: more for a machine that is only just being made."""


@dataclass(frozen=True, kw_only=True)
class Host(Machine):
    """A machine with systemd and SSH. A value: it makes nothing and asks nothing of the machine."""

    ssh: Ssh
    instance_id: pulumi.Input[str]
    """Changes when, and only when, the machine is another one; every remote step on it then runs anew."""
    ephemeral: bool
    """True: the machine ends with its resource. False: `destroy` has to clean it."""


Hosts = dict[str, Host]


class Platform(Protocol):
    """Turns the `hosts:` of the config into machines. The name of a host is in every URN."""

    def __call__(self, name: str, cfg: ClusterConfig, opts: pulumi.ResourceOptions) -> Hosts:
        """Makes the machines, or only describes them where they exist already."""
        ...


def create_hosts(cfg: ClusterConfig, opts: pulumi.ResourceOptions) -> Hosts:
    """Makes the hosts of the platform that the config names."""
    platform: Platform
    match cfg.platform:
        case "lab":
            from components.hosts.lab import lab_hosts as platform
        case "baremetal":
            from components.hosts.baremetal import baremetal_hosts as platform
    return platform(cfg.name, cfg, opts)
