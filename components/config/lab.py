"""Config of the containers that are the hosts with platform lab."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated

from pydantic import AfterValidator, Field

from components.config.base import Section
from components.config.images import ImageReference

__all__ = ["NETWORK", "SUBNET", "TAKEN", "LabConfig"]

NETWORK = "kubepivot"
"""The container network that `make up` makes."""
SUBNET = IPv4Network("172.30.0.0/16")
TAKEN = {IPv4Address("172.30.0.1"): "the gateway", IPv4Address("172.30.0.2"): "the mirror"}
"""Its addresses that are no host's, each with whose it is."""

_RESERVED = ("bridge", "default", "host", "none")


def _network(text: str) -> str:
    """Returns the text if it names a network with addresses to choose; ValueError with the mend if not."""
    if not re.fullmatch(r"[a-zA-Z0-9][\w.-]*", text, re.ASCII):
        raise ValueError("use the name of a container network: letters, digits, '_', '.' and '-'")
    if text in _RESERVED:
        raise ValueError("this is the container engine's own; use one that `docker network create` made")
    return text


NetworkName = Annotated[str, AfterValidator(_network)]


class LabConfig(Section):
    """The containers that are the hosts with platform lab. Only there."""

    image: ImageReference = Field(
        default="kubepivot/host:latest",
        description="The container image of a host, with a tag or a digest.",
        examples=["kubepivot/host:dev"],
    )
    network: NetworkName = Field(
        default=NETWORK,
        description="The container network that the hosts join.",
        examples=["kubepivot-test"],
    )
