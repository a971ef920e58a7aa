"""Config of the control plane's command-line flags, and values that are refused.

Which flags are the program's own stands in `components.tables.components`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, create_model

from components.config.base import ByComponent
from components.tables.components import CONTROL_PLANE, Component
from components.tables.feature_gates import GONE, NEW

__all__ = ["FlagsConfig", "merged", "refusal", "unknown_gates"]

_RESERVED = {flag.name: flag.reserved for component in CONTROL_PLANE.values() for flag in component.flags}
"""Why a flag may not be given, to whichever component; nothing if it may."""

_ADMISSION = {
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "NamespaceLifecycle",
    "NodeRestriction",
    "PodSecurity",
    "Priority",
    "ServiceAccount",
    "TaintNodesByCondition",
    "ValidatingAdmissionPolicy",
}
"""Plugins that keep nodes and users to their rights, or without which pods do not come up."""

_AUTHORIZERS = {"Node", "RBAC", "ABAC", "Webhook"}

_CONTROLLERS = {
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-signing-controller",
    "clusterrole-aggregation-controller",
    "csrapproving",
    "csrsigning",
    "clusterrole-aggregation",
    "daemonset",
    "daemonset-controller",
    "deployment",
    "deployment-controller",
    "endpointslice",
    "endpointslice-controller",
    "garbage-collector-controller",
    "garbagecollector",
    "namespace",
    "namespace-controller",
    "node-ipam-controller",
    "node-lifecycle-controller",
    "nodeipam",
    "nodelifecycle",
    "pod-garbage-collector-controller",
    "podgc",
    "replicaset",
    "replicaset-controller",
    "root-ca-cert-publisher",
    "root-ca-certificate-publisher-controller",
    "serviceaccount",
    "serviceaccount-controller",
    "serviceaccount-token",
    "serviceaccount-token-controller",
    "taint-eviction-controller",
}
"""Controllers that the cluster itself needs, by each of their names."""

_GATES = {
    "AllBeta": True,
    "AllowInsecureKubeletCertificateSigningRequests": False,
    "AnonymousAuthConfigurableEndpoints": True,
    "AuthorizeNodeWithSelectors": True,
    "AuthorizeWithSelectors": True,
    "ServiceAccountNodeAudienceRestriction": True,
    "ServiceAccountTokenJTI": True,
    "ServiceAccountTokenNodeBinding": True,
    "ServiceAccountTokenNodeBindingValidation": True,
    "ServiceAccountTokenPodNodeInfo": True,
    "StructuredAuthenticationConfiguration": True,
}
"""Gates by which kubelets, tokens and the anonymous are kept within their bounds, and whether on or off."""

_STABLE_API = "api/(all|ga)|([a-z0-9.-]+/)?v1(/[a-z]+)?"
"""All of them, a version of a group, or one resource of it."""
_TLS_VERSIONS = ("VersionTLS12", "VersionTLS13")


def refusal(flag: str, value: str) -> str | None:
    """Why a flag of the control plane may not have that value, with the mend; None if it may."""
    parts = _parts(value)
    match flag:
        case "authorization-mode":
            return _without(set(parts) - _AUTHORIZERS, "Node and RBAC have to decide who may do what")
        case "controllers":
            off = {part for part in parts if part.startswith("-") and part[1:] in _CONTROLLERS}
            return _without(off, "the cluster itself needs this controller")
        case "disable-admission-plugins":
            return _without(_ADMISSION.intersection(parts), "the cluster's security, or its pods, rest on it")
        case "enable-admission-plugins":
            return _without({"AlwaysDeny"}.intersection(parts), "it denies every request")
        case "feature-gates":
            unsafe = {gate for gate, on in _switches(parts) if gate in _GATES and on != _GATES[gate]}
            return _without(unsafe, "the cluster's security rests on what it is by itself")
        case "runtime-config":
            off = {api for api, on in _switches(parts) if not on and re.fullmatch(_STABLE_API, api)}
            return _without(off, "the cluster itself needs the stable APIs")
        case "tls-min-version":
            return None if value in _TLS_VERSIONS else f"use {' or '.join(_TLS_VERSIONS)}"
        case _:
            return None


def unknown_gates(value: str, minor: int) -> str | None:
    """Why a minor may not have these feature gates, with the mend; None if it may.

    A component that is given a gate which it does not know ends as soon as it starts.
    """
    given = {gate for gate, _ in _switches(_parts(value))}
    gone = {gate for gate in given if gate in GONE and GONE[gate] <= minor}
    early = {gate for gate in given if gate in NEW and NEW[gate] > minor}
    mends = (
        _without(gone, f"1.{minor} does not have it any more"),
        _without(early, f"1.{minor} does not have it yet"),
    )
    return "; ".join(filter(None, mends)) or None


def _without(parts: set[str], reason: str) -> str | None:
    return f"leave out {', '.join(sorted(parts))}: {reason}" if parts else None


def _switches(parts: list[str]) -> Iterator[tuple[str, bool]]:
    for part in parts:
        name, _, value = part.partition("=")
        # A gate may be told with its component, kube:Gate=true.
        yield name.rpartition(":")[2].strip(), value.strip().lower() in ("", "1", "t", "true")


def merged(own: Mapping[str, str], given: Mapping[str, str], lists: Container[str]) -> dict[str, str]:
    """The program's own flags of a component, and over them those given; of lists both.

    Of what stands there twice, the program's own counts for `controllers` and the given for `feature-gates`,
    since the components see it so.
    """
    joined = {
        flag: ",".join(dict.fromkeys(_parts(own[flag]) + _parts(given[flag])))
        for flag in own
        if flag in given and flag in lists
    }
    return {**own, **given, **joined}


def _parts(value: str) -> list[str]:
    # The components read lists as CSV, with quotes.
    return [part.strip(' "') for part in value.split(",") if part.strip(' "')]


def _flag_name(text: str) -> str:
    """Returns the text if it is the name of a flag that may be given; ValueError with the mend if not."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text):
        raise ValueError(
            "write the flag's name without dashes in front and without a value, for example audit-log-maxage"
        )
    if reason := _reason(text):
        raise ValueError(f"leave this flag out: {reason}")
    return text


def _reason(flag: str) -> str:
    families = (f"{flag[:end]}*" for end in range(len(flag), 0, -1))
    return next((_RESERVED[name] for name in (flag, *families) if name in _RESERVED), "")


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


class _FlagsConfig(ByComponent):
    """More command-line flags of the control plane, without dashes in front. They win over our own; lists
    (admission plugins, authorizers, controllers, feature gates) are added to ours.
    """

    def of(self, component: str) -> dict[str, str]:
        """The flags of a component of that name."""
        given: dict[str, dict[str, str]] = self.model_dump(by_alias=True)
        return given[component]


def _field(component: Component) -> tuple[Any, Any]:
    return Flags, Field(
        default={}, description=f"Flags of {component.name}.", examples=[dict(component.flag_example)]
    )


# To a type checker a model that is made is a value, not a type.
if TYPE_CHECKING:
    FlagsConfig = _FlagsConfig
else:
    FlagsConfig = create_model(
        "FlagsConfig",
        __base__=_FlagsConfig,
        __doc__=_FlagsConfig.__doc__,
        **{each.name.replace("-", "_"): _field(each) for each in CONTROL_PLANE.values()},
    )
