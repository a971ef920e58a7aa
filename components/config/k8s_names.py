"""Names that Kubernetes gives, and the rules for names, labels and taints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

__all__ = [
    "CLUSTER_DOMAIN",
    "CONTROL_PLANE_ROLE",
    "LONGEST_DNS_NAME",
    "NAME_LABEL",
    "Taint",
    "distinct",
    "dns_label",
    "dns_name",
    "label_key",
    "label_value",
]

Effect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]

CLUSTER_DOMAIN = "cluster.local"
CONTROL_PLANE_ROLE = "node-role.kubernetes.io/control-plane"
"""What places the control plane, and keeps other pods away. NodeRestriction lets no kubelet set this label.
It does `node.kubernetes.io/*`, by which a worker could give itself the control plane's Secrets.
"""
NAME_LABEL = "app.kubernetes.io/name"
"""The label that has the name of the workload that a pod is of."""
LONGEST_DNS_NAME = 253
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")

# What a kubelet may set on its own node; the API server's NodeRestriction refuses the rest.
_OWN_NAMESPACES = ("node.kubernetes.io", "kubelet.kubernetes.io")
_OWN_KEYS = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")


def dns_label(text: str, *, longest: int = 63) -> str:
    """Returns the text if it is a DNS label (RFC 1123); ValueError with the mend if not."""
    if len(text) > longest or not _DNS_LABEL.fullmatch(text):
        raise ValueError(
            f"use at most {longest} lower-case letters, digits and hyphens, "
            "beginning and ending with a letter or digit"
        )
    return text


def dns_name(text: str, *, longest: int = LONGEST_DNS_NAME) -> str:
    """Returns the text if it is a DNS name of lower-case labels; ValueError with the mend if not."""
    if len(text) > longest:
        raise ValueError(f"use a DNS name of at most {longest} characters")
    labels = text.split(".")
    sound = all(len(label) <= 63 and _DNS_LABEL.fullmatch(label) for label in labels)
    # A name whose last label is a number is a mistyped address (RFC 3696).
    if not sound or labels[-1].isdigit():
        raise ValueError("use a DNS name of lower-case labels joined by dots")
    return text


def label_key(text: str) -> str:
    """Returns the text if a kubelet may label its node with this key; ValueError with the mend if not."""
    namespace = _qualified(text)
    if text == CONTROL_PLANE_ROLE:
        raise ValueError("leave it out: it follows from the host's role")
    if not _is_under(namespace, ("kubernetes.io", "k8s.io")):
        return text
    if text in _OWN_KEYS or _is_under(namespace, _OWN_NAMESPACES):
        return text
    raise ValueError(
        "a kubelet may not set this label; use a key of your own domain, of node.kubernetes.io/, "
        "or topology.kubernetes.io/region or zone"
    )


def label_value(text: str) -> str:
    """Returns the text if it is a label's value; ValueError with the mend if not."""
    if text and not (len(text) <= 63 and _NAME.fullmatch(text)):
        raise ValueError(
            "use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
        )
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Taint:
    """A taint of a node. Text form: key[=value]:Effect."""

    key: str
    value: str = ""
    effect: Effect

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"

    @classmethod
    def parse(cls, text: str) -> Taint:
        """The taint that the text says; ValueError with the mend if it says none."""
        spec, colon, effect = text.rpartition(":")
        if not colon or effect not in get_args(Effect):
            raise ValueError(
                f"write key[=value]:Effect with one of the effects {', '.join(get_args(Effect))}, "
                "for example example.com/gpu=true:NoSchedule"
            )
        key, _, value = spec.partition("=")
        _qualified(key)
        return cls(key=key, value=label_value(value), effect=cast(Effect, effect))


def distinct(taints: tuple[Taint, ...]) -> tuple[Taint, ...]:
    """Returns the taints if no key has an effect twice; ValueError with the mend if one has."""
    seen: set[tuple[str, str]] = set()
    for taint in taints:
        if (taint.key, taint.effect) in seen:
            raise ValueError(f"{taint.key} has the effect {taint.effect} twice; leave one out")
        seen.add((taint.key, taint.effect))
    return taints


def _qualified(text: str) -> str:
    """The namespace of a qualified name ([namespace/]name), "" for none."""
    namespace, slash, name = text.rpartition("/")
    if not (len(name) <= 63 and _NAME.fullmatch(name)):
        raise ValueError(
            "use a key [domain/]name, the name of at most 63 letters, digits, '-', '_' and '.', "
            "beginning and ending with a letter or digit"
        )
    if slash:
        try:
            dns_name(namespace)
        except ValueError:
            raise ValueError("use a key [domain/]name whose domain is a DNS name in lower case") from None
    return namespace


def _is_under(namespace: str, domains: tuple[str, ...]) -> bool:
    return any(namespace == domain or namespace.endswith(f".{domain}") for domain in domains)
