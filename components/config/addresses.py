"""Checks of addresses and ranges, and the fixed addresses in them. IPv4."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from components.config.k8s_names import dns_name

__all__ = [
    "NODE_PREFIX",
    "PODS",
    "SERVICES",
    "Url",
    "endpoint_host",
    "host_address",
    "network",
    "nth",
    "services_network",
]

PODS = "10.2.0.0/16"
SERVICES = "10.3.0.0/16"
NODE_PREFIX = 24
"""Every node gets a pod range of this prefix length."""
# kube-apiserver refuses larger ranges for services.
_SERVICES_LARGEST, _SERVICES_SMALLEST = 12, 24
_NO_HOSTS = {
    "this network": IPv4Network("0.0.0.0/8"),
    "loopback": IPv4Network("127.0.0.0/8"),
    "link-local": IPv4Network("169.254.0.0/16"),
    # flannel's probe takes an address of these, as no host has it.
    "protocol assignments": IPv4Network("192.0.0.0/24"),
    "multicast": IPv4Network("224.0.0.0/4"),
    "broadcast": IPv4Network("255.255.255.255/32"),
}
"""Ranges of which no host that others reach can have an address."""

_URL = re.compile(
    r"https?://(?P<host>[A-Za-z0-9.-]+)(:(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(/([A-Za-z0-9._~+=:@,-]|%[0-9A-Fa-f]{2})+)*)/?"
)


def nth(network: str, number: int) -> str:
    """The nth address of a range; the 0th is the range's own."""
    return str(IPv4Network(network)[number])


def host_address(text: str) -> str:
    """Returns the text if it is an IPv4 address that a node can have; ValueError with the mend if not."""
    try:
        address = IPv4Address(text)
    except ValueError:
        raise ValueError("use an IPv4 address, for example 192.168.1.21") from None
    if kind := _no_host(IPv4Network(address)):
        raise ValueError(f"this is {kind}; use an address by which the other hosts reach this one")
    return text


def _no_host(network: IPv4Network) -> str:
    """What the network has addresses of that are no host's, "" for nothing."""
    return next((f"{kind}, {each}" for kind, each in _NO_HOSTS.items() if network.overlaps(each)), "")


def network(text: str, *, example: str = PODS) -> str:
    """Returns the text if it is an IPv4 range in canonical form; ValueError with the mend if not."""
    try:
        found = IPv4Network(text, strict=False)
    except ValueError:
        found = None
    if found is None or "/" not in text:
        raise ValueError(f"use an IPv4 range in CIDR form, for example {example}")
    if str(found) != text:
        raise ValueError(f"write the range's first address: {found}")
    if kind := _no_host(found):
        raise ValueError(f"choose a range without addresses of {kind}")
    return text


def services_network(text: str) -> str:
    """As `network`, of a size that serves for services."""
    prefix = IPv4Network(network(text)).prefixlen
    if not _SERVICES_LARGEST <= prefix <= _SERVICES_SMALLEST:
        raise ValueError(f"use a range from /{_SERVICES_LARGEST} to /{_SERVICES_SMALLEST}")
    return text


def endpoint_host(text: str) -> str:
    """Returns the text if it is an address or a DNS name by which all hosts can reach the same one.

    ValueError with the mend if not.
    """
    mend = "use an address or a name by which all hosts, and you, reach the API"
    try:
        address = IPv4Address(text)
    except ValueError:
        try:
            name = dns_name(text)
        except ValueError:
            raise ValueError(
                "use an IPv4 address or a DNS name in lower case, without scheme and without port "
                "(the port is kubepivot:api.port)"
            ) from None
        if name.rpartition(".")[2] in ("localhost", "localdomain"):
            raise ValueError(f"this is every host's own name; {mend}") from None
        return name
    if kind := _no_host(IPv4Network(address)):
        raise ValueError(f"this is {kind}; {mend}")
    return text


def _url(text: str) -> str:
    """The text without a slash at its end if it is an http(s) URL; ValueError with the mend if not.

    It goes into scripts and settings of hosts, so every letter of it has to be one that a URL has.
    """
    mend = "use an http:// or https:// URL, for example http://mirror.example.com:8080"
    parts = _URL.fullmatch(text)
    if parts is None:
        around = "@" in text or "?" in text or "#" in text
        raise ValueError(f"{mend}, without user, query and fragment" if around else mend)
    port, path = int(parts["port"] or 80), parts["path"]
    if not 1 <= port <= 65535 or {".", ".."}.intersection(path.split("/")):
        raise ValueError(mend)
    try:
        address = IPv4Address(parts["host"])
    except ValueError:
        try:
            dns_name(parts["host"].lower())
        except ValueError:
            raise ValueError(mend) from None
        return text.rstrip("/")
    # On the loopback every host may have a proxy of its own.
    kind = _no_host(IPv4Network(address))
    if kind and not address.is_loopback:
        raise ValueError(f"this is {kind}; use an address or a name by which all hosts reach the server")
    return text.rstrip("/")


Url = Annotated[str, AfterValidator(_url), WithJsonSchema({"type": "string", "format": "uri"})]
