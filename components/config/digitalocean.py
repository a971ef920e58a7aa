"""Config of platform digitalocean: where droplets are, what they are, and who may reach them."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from components.config.addresses import host_address, network
from components.config.base import Section, Truth
from components.config.k8s_names import dns_name
from components.config.sshkeys import public_key

__all__ = ["ANYWHERE", "LONGEST_NAME", "RESERVED", "DigitalOceanConfig", "Size", "is_private"]

ANYWHERE = "0.0.0.0/0"
LONGEST_NAME = 63
"""Of a droplet, which is its host name as well."""
RESERVED = tuple(map(IPv4Network, ("10.229.0.0/16", "10.244.0.0/16", "10.245.0.0/16", "10.246.0.0/24")))
"""Ranges that no VPC may have."""
_VPC_LARGEST, _VPC_SMALLEST = 16, 28
_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))  # RFC 1918


def is_private(text: str) -> bool:
    """Whether no address of the range is reached from elsewhere."""
    return any(IPv4Network(text).subnet_of(each) for each in _PRIVATE)


def _slug(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text):
        raise ValueError("use its name in DigitalOcean's API: lower-case letters, digits, '-', '_' and '.'")
    return text


def _sources(text: str) -> str:
    if text == ANYWHERE:
        return text
    if re.fullmatch(r"[0-9]+(-[0-9]+)?", text):
        raise ValueError(
            "use an IPv4 range of those who may ask, for example 203.0.113.0/24; the ports are "
            "kubepivot:flags.kube-apiserver.service-node-port-range"
        )
    try:
        host_address(text)
    except ValueError:
        return network(text, example="203.0.113.0/24")
    raise ValueError(f"write {text}/32")


def _vpc_range(text: str) -> str:
    found = IPv4Network(network(text))
    if not (is_private(text) and _VPC_LARGEST <= found.prefixlen <= _VPC_SMALLEST):
        raise ValueError(f"use a private range from /{_VPC_LARGEST} to /{_VPC_SMALLEST}")
    for reserved in RESERVED:
        if found.overlaps(reserved):
            raise ValueError(f"DigitalOcean keeps {reserved} for itself; choose another range")
    return text


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError("use the id, a UUID, as `doctl` and the API show it; a name will not do") from None


def _tag(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_:-]{1,255}", text):
        raise ValueError("use letters, digits, '_', ':' and '-', at most 255")
    return text


def _distinct(tags: tuple[str, ...]) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    for tag in tags:
        # Case does not count.
        if other := seen.get(tag.lower()):
            raise ValueError(f"{other} and {tag} are the same tag; leave one out")
        seen[tag.lower()] = tag
    return tags


def _domain(text: str) -> str:
    if "." not in dns_name(text):
        raise ValueError("use a domain with a dot, for example example.com")
    return text


Id = Annotated[str, AfterValidator(_uuid)]
PublicKey = Annotated[str, AfterValidator(public_key)]
Size = Annotated[str, AfterValidator(_slug)]
Slug = Annotated[str, AfterValidator(_slug)]
Sources = Annotated[str, AfterValidator(_sources)]
Tag = Annotated[str, AfterValidator(_tag)]
Tags = Annotated[tuple[Tag, ...], AfterValidator(_distinct)]
VpcRange = Annotated[str, AfterValidator(_vpc_range)]
Zone = Annotated[str, AfterValidator(_domain)]


class DigitalOceanConfig(Section):
    """Droplets and what belongs to them. Required with platform digitalocean, and only there. The token is
    not here: it is `digitalocean:token`, a secret, or the environment variable DIGITALOCEAN_TOKEN.
    """

    region: Slug = Field(
        description="The region of droplets, network and load balancer. A living cluster keeps it.",
        examples=["fra1"],
    )
    admin_cidrs: tuple[Sources, ...] = Field(
        min_length=1,
        description="The ranges from which SSH and the API answer: the machine that runs Pulumi is in one of "
        "them.",
        examples=[["203.0.113.0/24"]],
    )
    size: Size = Field(
        default="s-2vcpu-4gb",
        description="The size of a droplet whose host names none.",
        examples=["s-4vcpu-8gb"],
    )
    image: Slug = Field(
        default="debian-12-x64",
        description="The image of new droplets, one with systemd, cloud-init and Linux 5.14 or newer. "
        "Those that are there keep theirs.",
        examples=["ubuntu-24-04-x64"],
    )
    vpc_cidr: VpcRange | None = Field(
        default=None,
        description="The range of the cluster's own VPC, from /16 to /28. Left out: DigitalOcean chooses a "
        "/20. A living cluster keeps it.",
        examples=["10.120.0.0/20"],
    )
    vpc: Id | None = Field(
        default=None,
        description="The id of a VPC that exists, in place of one of the cluster's own. A living cluster "
        "keeps it.",
        examples=["5a4981aa-9653-4bd1-bef5-d6bff52042e4"],
    )
    load_balancer: Truth | None = Field(
        default=None,
        description="Whether a load balancer is before the API. With one controller and none, a reserved IP "
        "is. A living cluster keeps it.",
        examples=[True],
    )
    domain: Zone | None = Field(
        default=None,
        description="A domain whose DNS is at DigitalOcean: the API is then at a name in it, that of the "
        "cluster. A living cluster keeps it.",
        examples=["example.com"],
    )
    node_ports: tuple[Sources, ...] = Field(
        default=(),
        description="The ranges from which the node ports of services answer.",
        examples=[["0.0.0.0/0"]],
    )
    ssh_keys: tuple[PublicKey, ...] = Field(
        default=(),
        description="Public keys of people who may log in to the hosts as root, beside the cluster's own. "
        "No droplet is made anew for them.",
        examples=[["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIArwvbnKlP9VYIeKDcJ3CdSTHv2dbmbL5SL3bd0uNiDd ada"]],
    )
    tags: Tags = Field(
        default=(),
        description="Tags of the droplets, beside the cluster's own. They outlive the cluster.",
        examples=[["team-a"]],
    )
    project: Id | None = Field(
        default=None,
        description="The id of the project that all of it is shown in. Left out: the default project.",
        examples=["4e1bfbc3-dc3e-41f2-a18f-1b4d7ba71679"],
    )
    monitoring: Truth = Field(
        default=False,
        description="Whether DigitalOcean's metrics agent is on new droplets. Those that are there stay as "
        "they are.",
        examples=[True],
    )
    backups: Truth = Field(
        default=False,
        description="Whether DigitalOcean backs the droplets' disks up, at a price.",
        examples=[True],
    )
    pods_read_metadata: Truth = Field(
        default=False,
        description="Whether pods reach the droplet's metadata, 169.254.169.254. Nothing of value is in it.",
        examples=[True],
    )
    protect: Truth = Field(
        default=True,
        description="Whether Pulumi refuses to delete or replace the controllers' droplets. Set it to false, "
        "and run `pulumi up`, before a `pulumi destroy`.",
        examples=[False],
    )
