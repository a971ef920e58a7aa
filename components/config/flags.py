"""Config of the control plane's command-line flags, and which of them are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from components.config.base import Section, component_name

__all__ = ["FlagsConfig", "merged", "refusal"]

_STORE = "it follows from kubepivot:hosts; during a roll another store would answer half of the requests"
_SERVING = "by the name in that certificate the hand-over tells who answers"
_LEASE = "the hand-over waits for the lease of the component's own name"
_PROBED = "probes and the other components ask on the loopback"
_AUTHORITY = "the components, and Pulumi, log in with certificates of the cluster's authority"
_USERS = (
    "who logs in without a certificate or a token is nobody, but for asking after health: that is in the "
    "program's own authentication config, beside which kube-apiserver takes no other"
)
_RIGHTS = "rights follow from the authorizers Node and RBAC; others can be added with authorization-mode"
_PROXY = "whoever may act as a front proxy can act as any user"
_KUBELETS = "kube-apiserver knows kubelets by the cluster's authority, at the addresses of kubepivot:hosts"
_TOKENS = "tokens of service accounts are signed, and checked, with the cluster's own key"
_SIGNING = "kubelets' certificates are signed by the cluster's authority"
_SERVICES = "it is kubepivot:network.services"
_PODS = "the pods' range is kubepivot:network.pods, and every node gets a /24 of it"
_OWN_HOST = "the component asks the kube-apiserver of its own host, with the certificate made for it"

_OWN = {
    "admission-control": "use enable-admission-plugins",
    "admission-control-config-file": "it could exempt from NodeRestriction and the like",
    "advertise-address": "it is the address of the pod",
    "allocate-node-cidrs": _PODS,
    "allow-privileged": "kube-proxy is privileged",
    "anonymous-auth": _USERS,
    "authentication-config": _USERS,
    "authentication-kubeconfig": _OWN_HOST,
    "authentication-token-webhook-config-file": _USERS,
    "authorization-always-allow-paths": _PROBED,
    "authorization-config": _RIGHTS,
    "authorization-kubeconfig": _OWN_HOST,
    "bind-address": _PROBED,
    "cidr-allocator-type": _PODS,
    "client-ca-file": _AUTHORITY,
    "cluster-cidr": _PODS,
    "config": "a file of settings would take the place of the flags",
    "endpoint-reconciler-type": "it follows from the number of controllers",
    "etcd-cafile": _STORE,
    "etcd-certfile": _STORE,
    "etcd-keyfile": _STORE,
    "etcd-prefix": _STORE,
    "etcd-servers": _STORE,
    "etcd-servers-overrides": _STORE,
    "kubeconfig": _OWN_HOST,
    "kubelet-certificate-authority": _KUBELETS,
    "kubelet-client-certificate": _KUBELETS,
    "kubelet-client-key": _KUBELETS,
    "kubelet-preferred-address-types": _KUBELETS,
    "leader-elect": _LEASE,
    "leader-elect-resource-lock": _LEASE,
    "leader-elect-resource-name": _LEASE,
    "leader-elect-resource-namespace": _LEASE,
    "master": _OWN_HOST,
    "permit-port-sharing": "the old and the new one serve at the same port while they hand over",
    "proxy-client-cert-file": _PROXY,
    "proxy-client-key-file": _PROXY,
    "root-ca-file": _AUTHORITY,
    "secure-port": "kube-apiserver's is kubepivot:api.port, those of the others are fixed",
    "service-account-issuer": "it follows from kubepivot:network.domain",
    "service-account-key-file": _TOKENS,
    "service-account-lookup": "the token of a service account has to end with it",
    "service-account-private-key-file": _TOKENS,
    "service-account-signing-endpoint": _TOKENS,
    "service-account-signing-key-file": _TOKENS,
    "service-cluster-ip-range": _SERVICES,
    "tls-cert-file": _SERVING,
    "tls-private-key-file": _SERVING,
    "tls-sni-cert-key": _SERVING,
    "token-auth-file": _USERS,
    "use-service-account-credentials": "every controller has the rights of an account of its own",
}
"""Flags that may not be given, and why: a hand-over without a gap rests on them, they guard the cluster, a
key of the config says the same, or the component would not start."""

_OWN_FAMILIES = {
    "cluster-signing-": _SIGNING,
    "node-cidr-mask-size": _PODS,
    "oidc-": _USERS,
    "requestheader-": _PROXY,
}
"""The same for all flags that begin so."""

_NO_OWN = ("cluster-signing-duration",)
"""Flags of those families that may be given."""

_MERGED = ("authorization-mode", "controllers", "enable-admission-plugins", "feature-gates")
"""Lists to which what is given is added. Of what stands there twice, the program's own counts for
`controllers` and the given for `feature-gates`: so do the components."""

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

_STABLE_API = "api/(all|ga)|([a-z0-9.]+/)?v1"
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


def _without(parts: set[str], reason: str) -> str | None:
    return f"leave out {', '.join(sorted(parts))}: {reason}" if parts else None


def _switches(parts: list[str]) -> Iterator[tuple[str, bool]]:
    for part in parts:
        name, _, value = part.partition("=")
        # A gate may be told with its component, kube:Gate=true.
        yield name.rpartition(":")[2].strip(), value.strip().lower() in ("", "1", "t", "true")


def merged(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The program's own flags of a component, and over them those given; of lists both."""
    lists = {
        flag: ",".join(dict.fromkeys(_parts(own[flag]) + _parts(given[flag])))
        for flag in _MERGED
        if flag in own and flag in given
    }
    return {**own, **given, **lists}


def _parts(value: str) -> list[str]:
    # The components read lists as CSV, with quotes.
    return [part.strip(' "') for part in value.split(",") if part.strip(' "')]


def _flag_name(text: str) -> str:
    """Returns the text if it is the name of a flag that may be given; ValueError with the mend if not."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text):
        raise ValueError(
            "write the flag's name without dashes in front and without a value, for example audit-log-maxage"
        )
    family = next((family for family in _OWN_FAMILIES if text.startswith(family)), "")
    reason = _OWN.get(text) or ("" if text in _NO_OWN else _OWN_FAMILIES.get(family))
    if reason:
        raise ValueError(f"leave this flag out: {reason}")
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
    """More command-line flags of the control plane, without dashes in front. They win over our own; lists
    (admission plugins, authorizers, controllers, feature gates) are added to ours.
    """

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
