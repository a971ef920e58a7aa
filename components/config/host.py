"""One host: its role, how SSH reaches it, and what its node is given."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema

from components.config import addresses, k8s_names, sshkeys
from components.config.base import DERIVED, Section, Whole
from components.config.digitalocean import Size
from components.config.k8s_names import Taint
from components.tables.ports import SSH

__all__ = ["HostConfig", "HostName", "PlatformName"]

PlatformName = Literal["lab", "baremetal", "digitalocean"]
"""Where the hosts come from."""


def _host_name(text: str) -> str:
    # Its kubelet's certificate is for system:node:<name>, and no common name has more than 64 characters.
    return k8s_names.dns_label(text, longest=64 - len("system:node:"))


def _private_key(value: object) -> object:
    return sshkeys.private_key(value) if isinstance(value, str) else value


def _taint(value: object) -> Taint:
    return Taint.parse(str(value))


Address = Annotated[
    str, AfterValidator(addresses.host_address), WithJsonSchema({"type": "string", "format": "ipv4"})
]
HostKey = Annotated[str, AfterValidator(sshkeys.host_key)]
HostName = Annotated[str, AfterValidator(_host_name)]
LabelKey = Annotated[str, AfterValidator(k8s_names.label_key)]
LabelValue = Annotated[str, AfterValidator(k8s_names.label_value)]
Login = Annotated[str, Field(min_length=1), AfterValidator(sshkeys.login)]
PrivateKey = Annotated[SecretStr, BeforeValidator(_private_key)]
TaintText = Annotated[
    Taint, BeforeValidator(_taint), WithJsonSchema({"type": "string", "pattern": "^[^:]+:[A-Za-z]+$"})
]
Taints = Annotated[tuple[TaintText, ...], AfterValidator(k8s_names.distinct)]


class HostConfig(Section):
    """A machine with systemd, reached over SSH."""

    role: Literal["controller", "worker"] = Field(
        description="Whether etcd and the control plane may run on this host (controller) or not (worker).",
        examples=["controller"],
    )
    address: Address | None = Field(
        default=None,
        description="The IPv4 address at which the other hosts and SSH reach this one. Required with "
        "platforms lab and baremetal, not with digitalocean.",
        examples=["192.168.1.21"],
    )
    user: Login = Field(
        default="root",
        description="Who logs in: root, or a user who may use sudo without a password. "
        "Only with platform baremetal.",
        examples=["admin"],
    )
    port: Whole = Field(
        default=SSH.first,
        ge=1,
        le=65535,
        description="The port of the SSH server. Only with platform baremetal.",
        examples=[2222],
    )
    key: PrivateKey | None = Field(
        default=None,
        description="The private key to log in with, without a passphrase: a path that begins with /, ~ "
        "or ./, or the key's text as a secret (`pulumi config set --secret --path`). "
        "Required with platform baremetal, and only there.",
        examples=["~/.ssh/id_ed25519"],
    )
    host_key: HostKey | None = Field(
        default=None,
        description="The host's public key, ed25519 or ECDSA, as `ssh-keyscan -t ed25519 ADDRESS` prints it "
        "after the host's name. A host that shows another key is refused. Required with platform baremetal, "
        "and only there.",
        examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIArwvbnKlP9VYIeKDcJ3CdSTHv2dbmbL5SL3bd0uNiDd"],
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default={},
        description="Labels of the node. Of kubernetes.io only those that a kubelet may set "
        "itself: node.kubernetes.io/…, kubelet.kubernetes.io/…, topology.kubernetes.io/region and zone.",
        examples=[{"topology.kubernetes.io/zone": "rack-1"}],
    )
    taints: Taints = Field(
        default=(),
        description="Taints of the node, each key[=value]:Effect.",
        examples=[["example.com/gpu=true:NoSchedule"]],
    )
    size: Size | None = Field(
        default=None,
        description="The size of the droplet. Another one powers it off and on. Only with platform "
        "digitalocean.",
        examples=["s-2vcpu-2gb"],
        json_schema_extra={DERIVED: "`digitalOcean.size`"},
    )
    generation: Whole = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Raise it to have the droplet deleted and made anew. Only with platform digitalocean.",
        examples=[1],
    )
