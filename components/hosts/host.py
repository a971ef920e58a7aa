"""Host: a machine with the way to log in to it, as every platform returns it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.hosts.machine import HostSpec

__all__ = ["Host", "Hosts", "Ssh"]


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
