"""Command-line flags that a stack may give to the control plane."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from components.section import Section, component_name

__all__ = ["FlagsConfig"]

_STORE = "it follows from kubepivot:hosts; during a roll another store would answer half of the requests"
_SERVING = "by the name in that certificate the hand-over tells who answers"
_LEASE = "the hand-over waits for the lease of the component's own name"
_PROBED = "probes and the other components ask on the loopback"

_OWN = {
    "advertise-address": "it is the address of the pod",
    "bind-address": _PROBED,
    "client-ca-file": "the components, and Pulumi, log in with certificates of the cluster's authority",
    "endpoint-reconciler-type": "it follows from the number of controllers",
    "etcd-cafile": _STORE,
    "etcd-certfile": _STORE,
    "etcd-keyfile": _STORE,
    "etcd-prefix": _STORE,
    "etcd-servers": _STORE,
    "etcd-servers-overrides": _STORE,
    "leader-elect": _LEASE,
    "leader-elect-resource-name": _LEASE,
    "leader-elect-resource-namespace": _LEASE,
    "permit-port-sharing": "the old and the new one serve at the same port while they hand over",
    "secure-port": "kube-apiserver's is kubepivot:api.port, those of the others are fixed",
    "tls-cert-file": _SERVING,
    "tls-private-key-file": _SERVING,
}
"""What a hand-over without a gap rests on, and why."""


def _flag_name(text: str) -> str:
    """The text itself if it is the name of a flag that may be given; ValueError with the mend if not."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text):
        raise ValueError(
            "write the flag's name without dashes in front and without a value, for example audit-log-maxage"
        )
    if text in _OWN:
        raise ValueError(f"leave this flag out: {_OWN[text]}")
    return text


def _flag_value(value: object) -> str:
    """A flag's value as text; `pulumi config set --path` makes numbers and truth values of what looks so."""
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
        case _:
            raise ValueError("write the flag's value as text; several values are joined as the flag wants it")


FlagName = Annotated[str, AfterValidator(_flag_name)]
FlagValue = Annotated[
    str, BeforeValidator(_flag_value), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
Flags = dict[FlagName, FlagValue]


class FlagsConfig(Section):
    """More command-line flags of the control plane, without dashes in front. They win over our own."""

    model_config = ConfigDict(alias_generator=component_name)

    kube_apiserver: Flags = Field(
        default={}, description="Flags of kube-apiserver.", examples=[{"event-ttl": "2h"}]
    )
    kube_controller_manager: Flags = Field(
        default={},
        description="Flags of kube-controller-manager.",
        examples=[{"terminated-pod-gc-threshold": "500"}],
    )
    kube_scheduler: Flags = Field(
        default={}, description="Flags of kube-scheduler.", examples=[{"kube-api-qps": "100"}]
    )

    def of(self, component: str) -> dict[str, str]:
        """The flags of a component of that name."""
        given: dict[str, dict[str, str]] = self.model_dump(by_alias=True)
        return given[component]
