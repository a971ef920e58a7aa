"""Hosts: the values that every platform returns, and the choice of platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pulumi

from components.config import ClusterConfig
from components.hosts.machine import HostSpec

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
class Host(HostSpec):
    """A machine with systemd and SSH. A value: it makes nothing and asks nothing of the machine.

    Plain functions take it as a `Machine`, which `Pki.read` makes of it once its address is known.
    """

    address: pulumi.Input[str]
    """As a machine's. An Output where the platform knows it only when the machine is made."""
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


def create_hosts(cfg: ClusterConfig, opts: pulumi.ResourceOptions) -> tuple[Hosts, pulumi.Input[str]]:
    """Makes the hosts of the platform that the config names. Gives them, and the address or name of the API:
    what the config says, else the only controller's address.
    """
    platform: Platform
    match cfg.platform:
        case "lab":
            from components.hosts.lab import lab_hosts as platform
        case "baremetal":
            from components.hosts.baremetal import baremetal_hosts as platform
    hosts = platform(cfg.name, cfg, opts)
    return hosts, cfg.api.host or hosts[cfg.bootstrap_controller].address
