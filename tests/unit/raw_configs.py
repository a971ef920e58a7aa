"""Raw configs, as a stack's file has them, and what is wrong with them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from components.config import ConfigError, parse
from components.config.releases import LATEST, RELEASES, minor_of

Raw = dict[str, Any]

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIArwvbnKlP9VYIeKDcJ3CdSTHv2dbmbL5SL3bd0uNiDd"
LEFT_OUT = object()

EARLIER = next(version for version in reversed(RELEASES) if minor_of(version) < minor_of(LATEST))
"""The newest version of the minor before the newest."""


S3 = {
    "endpoint": "https://s3.example.com",
    "bucket": "backups",
    "accessKey": "AKIAIOSFODNN7EXAMPLE",
    "secretKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "encryptionKey": "correct horse battery staple".replace(" ", "-"),
}


def lab() -> Raw:
    return {
        "platform": "lab",
        "hosts": {
            "controller-1": {"role": "controller", "address": "172.30.0.11"},
            "worker-1": {"role": "worker", "address": "172.30.0.21"},
        },
    }


def baremetal() -> Raw:
    login = {"key": "~/.ssh/id_ed25519", "hostKey": HOST_KEY}
    return {
        "platform": "baremetal",
        "hosts": {
            "controller-1": {"role": "controller", "address": "192.168.1.11", **login},
            "worker-1": {"role": "worker", "address": "192.168.1.21", **login},
        },
    }


def droplets() -> Raw:
    return {
        "platform": "digitalocean",
        "digitalOcean": {"region": "fra1", "adminCidrs": ["203.0.113.0/24"], "protect": False},
        "hosts": {
            "controller-1": {"role": "controller"},
            "worker-1": {"role": "worker", "size": "s-2vcpu-2gb"},
        },
    }


OF_PLATFORM: dict[str, Callable[[], Raw]] = {"lab": lab, "baremetal": baremetal, "digitalocean": droplets}


def with_value(raw: Raw, path: str, value: object) -> Raw:
    """The config with another value at a path of keys joined by spaces, or without it."""
    raw = copy.deepcopy(raw)
    *parents, last = path.split()
    part = raw
    for parent in parents:
        part = part.setdefault(parent, {})
    if value is LEFT_OUT:
        del part[last]
    else:
        part[last] = value
    return raw


def errors(raw: Raw) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(raw, stack="dev")
    return caught.value
