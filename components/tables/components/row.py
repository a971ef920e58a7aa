"""The types of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["SECRETS", "Component", "ComponentName", "Flag", "Form", "Image", "Workload"]

ComponentName = Literal["kube-apiserver", "kube-controller-manager", "kube-scheduler"]
Form = Literal["bootstrap", "self-hosted"]

SECRETS = "/etc/kubernetes/secrets"
"""Where a component finds its files."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """A container image that `kubepivot:images` may name another one for."""

    key: str
    reference: str
    """The release's; `${name}` is a field of the release."""
    example: str
    title: str = ""
    """What it is of, if that is not its key."""


@dataclass(frozen=True)
class Flag:
    """A command-line flag, without dashes in front. A name that ends with * stands for all that begin so."""

    name: str
    value: str = ""
    """The program's own. Nothing: not set."""
    reserved: str = ""
    """Why the config may not set it. Nothing: it may."""
    is_list: bool = field(default=False, kw_only=True)
    """Whether what the config gives is added to the program's own, instead of taking its place."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A DaemonSet or Deployment of the cluster."""

    name: str
    images: tuple[Image, ...]
    """Those that are its own; the config has a key for each."""
    borrowed: tuple[Image, ...] = ()
    """Those of others that its pods have as well."""


@dataclass(frozen=True, kw_only=True)
class Component(Workload):
    """A part of the control plane: a static pod for a while, then a workload."""

    flags: tuple[Flag, ...]
    flag_example: Mapping[str, str]
    secrets: Mapping[str, str]
    """Names of the files below SECRETS, each with the name of its text in PKI or `credentials`."""
    bootstrap_secrets: Mapping[str, str] = field(default_factory=dict)
    """Where the temporary one has another text."""
    port: int
    """Of an API server's own; `kubepivot:api.port` takes its place."""
    cpu: str
    """Requests are tiny because a roll and a checkpoint count them twice on one node."""
    memory: str
    priority: str
    grace_seconds: int
