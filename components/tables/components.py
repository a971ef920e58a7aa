"""What runs as a workload of the cluster: one row per component, with its images, flags, port and files.

Data only. `${name}` is filled in: in flags by `components.assets.controlplane`, in images from the release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "CONTROL_PLANE",
    "SECRETS",
    "WORKLOADS",
    "Component",
    "ComponentName",
    "Flag",
    "Form",
    "Image",
    "Workload",
]

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


# -- why a flag is the program's -----------------------------------------------------------------------------
# A hand-over without a gap rests on it, it guards the cluster, a key of the config says the same, or the
# component would not start.

_ACCOUNTS = "every controller has the rights of an account of its own"
_AUDIENCE = "pods ask with tokens for the cluster's own audience: with another one all would be refused"
_AUTHORITY = "the components, and Pulumi, log in with certificates of the cluster's authority"
_DOMAIN = "it follows from kubepivot:network.domain"
_ENDPOINTS = "it follows from the number of controllers"
_GARBAGE = "without the garbage collector the pods of what is deleted go on"
_KUBELETS = "kube-apiserver knows kubelets by the cluster's authority, at the addresses of kubepivot:hosts"
_LEASE = "the hand-over waits for the lease of the component's own name"
_OWN_HOST = "the component asks the kube-apiserver of its own host, with the certificate made for it"
_PODS = "the pods' range is kubepivot:network.pods, and every node gets a /24 of it"
_PORT = "kube-apiserver's is kubepivot:api.port, those of the others are fixed"
_PROBED = "probes and the other components ask on the loopback"
_PROXY = "whoever may act as a front proxy can act as any user"
_RENEWALS = "by the usual times between renewals of a lease the pod-checkpointer tells whether anybody leads"
_RIGHTS = "rights follow from the authorizers Node and RBAC; others can be added with authorization-mode"
_SERVICES = "it is kubepivot:network.services"
_SERVING = "by the name in that certificate the hand-over tells who answers"
_SHARED = "the old and the new one serve at the same port while they hand over"
_SIGNING = "kubelets' certificates are signed by the cluster's authority"
_STORE = "it follows from kubepivot:hosts; during a roll another store would answer half of the requests"
_TOKENS = "tokens of service accounts are signed, and checked, with the cluster's own key"
_USERS = (
    "who logs in without a certificate or a token is nobody, but for asking after health: that is in the "
    "program's own authentication config, beside which kube-apiserver takes no other"
)

# -- the control plane ---------------------------------------------------------------------------------------

_KUBECONFIG = f"{SECRETS}/kubeconfig"

_SERVER_FLAGS = (
    Flag("authorization-always-allow-paths", reserved=_PROBED),
    Flag("permit-port-sharing", "true", _SHARED),
    Flag("profiling", "false"),
    Flag("tls-sni-cert-key", reserved=_SERVING),
)
"""Of all three."""

_LEADER_FLAGS = (
    *_SERVER_FLAGS,
    Flag("authentication-kubeconfig", _KUBECONFIG, _OWN_HOST),
    Flag("authorization-kubeconfig", _KUBECONFIG, _OWN_HOST),
    Flag("bind-address", "127.0.0.1", _PROBED),
    Flag("kubeconfig", _KUBECONFIG, _OWN_HOST),
    Flag("leader-elect", "true", _LEASE),
    Flag("leader-elect-*", reserved=_RENEWALS),
    # The temporary ones start before the API, and would look for it every 2 s.
    Flag("leader-elect-retry-period", "${retry-period}", _RENEWALS),
    Flag("leader-elect-resource-*", reserved=_LEASE),
    Flag("master", reserved=_OWN_HOST),
    Flag("requestheader-*", reserved=_PROXY),
    Flag("secure-port", reserved=_PORT),
    Flag("tls-cert-file", reserved=_SERVING),
    Flag("tls-private-key-file", reserved=_SERVING),
)
"""Of those of which one leads."""


def _kubernetes_image(name: str) -> Image:
    return Image(
        key=name,
        reference=f"registry.k8s.io/{name}:v${{kubernetes}}",
        example=f"registry.example.com/{name}:v1.37.2-fix1",
    )


_PYTHON_IMAGE = Image(
    key="pod-checkpointer",
    title="the pod-checkpointer, any with Python 3.11 or newer",
    reference="docker.io/library/python:${python}",
    example="docker.io/library/python:3.12-slim-bookworm",
)

KUBE_APISERVER = Component(
    name="kube-apiserver",
    images=(_kubernetes_image("kube-apiserver"),),
    # The filter beside it is a program in Python.
    borrowed=(_PYTHON_IMAGE,),
    port=6443,
    cpu="50m",
    memory="128Mi",
    priority="system-node-critical",
    grace_seconds=75,
    flag_example={"event-ttl": "2h"},
    flags=(
        *_SERVER_FLAGS,
        Flag("admission-control", reserved="use enable-admission-plugins"),
        Flag("admission-control-config-file", reserved="it could exempt from NodeRestriction and the like"),
        Flag("advertise-address", "$$(POD_IP)", "it is the address of the pod"),
        Flag("allow-privileged", "true", "kube-proxy is privileged"),
        Flag("anonymous-auth", reserved=_USERS),
        Flag("api-audiences", reserved=_AUDIENCE),
        Flag("authentication-config", f"{SECRETS}/authentication.yaml", _USERS),
        Flag("authentication-token-webhook-config-file", reserved=_USERS),
        Flag("authorization-config", reserved=_RIGHTS),
        Flag("authorization-mode", "Node,RBAC", is_list=True),
        Flag("bind-address", reserved=_PROBED),
        Flag("client-ca-file", f"{SECRETS}/ca.crt", _AUTHORITY),
        Flag("enable-admission-plugins", "NodeRestriction", is_list=True),
        Flag("enable-garbage-collector", reserved=_GARBAGE),
        Flag("endpoint-reconciler-type", "${endpoint-reconciler}", _ENDPOINTS),
        Flag("etcd-cafile", f"{SECRETS}/etcd-ca.crt", _STORE),
        Flag("etcd-certfile", f"{SECRETS}/etcd-client.crt", _STORE),
        Flag("etcd-keyfile", f"{SECRETS}/etcd-client.key", _STORE),
        Flag("etcd-prefix", reserved=_STORE),
        Flag("etcd-servers", "${etcd-servers}", _STORE),
        Flag("etcd-servers-overrides", reserved=_STORE),
        Flag("kubelet-certificate-authority", f"{SECRETS}/ca.crt", _KUBELETS),
        Flag("kubelet-client-certificate", f"{SECRETS}/apiserver-kubelet-client.crt", _KUBELETS),
        Flag("kubelet-client-key", f"{SECRETS}/apiserver-kubelet-client.key", _KUBELETS),
        Flag("kubelet-preferred-address-types", "InternalIP", _KUBELETS),
        Flag("oidc-*", reserved=_USERS),
        Flag("proxy-client-cert-file", f"{SECRETS}/front-proxy-client.crt", _PROXY),
        Flag("proxy-client-key-file", f"{SECRETS}/front-proxy-client.key", _PROXY),
        Flag("requestheader-*", reserved=_PROXY),
        Flag("requestheader-allowed-names", "front-proxy-client", _PROXY),
        Flag("requestheader-client-ca-file", f"{SECRETS}/front-proxy-ca.crt", _PROXY),
        Flag("requestheader-extra-headers-prefix", "X-Remote-Extra-", _PROXY),
        Flag("requestheader-group-headers", "X-Remote-Group", _PROXY),
        Flag("requestheader-username-headers", "X-Remote-User", _PROXY),
        Flag("secure-port", "${api-port}", _PORT),
        Flag("service-account-issuer", "https://kubernetes.default.svc.${domain}", _DOMAIN),
        Flag("service-account-key-file", f"{SECRETS}/service-account.pub", _TOKENS),
        Flag("service-account-lookup", reserved="the token of a service account has to end with it"),
        Flag("service-account-signing-endpoint", reserved=_TOKENS),
        Flag("service-account-signing-key-file", f"{SECRETS}/service-account.key", _TOKENS),
        Flag("service-cluster-ip-range", "${services}", _SERVICES),
        # Without it an apiserver that ends holds its watchers, and so its port, for a minute.
        Flag("shutdown-watch-termination-grace-period", "5s"),
        Flag("tls-cert-file", f"{SECRETS}/apiserver.crt", _SERVING),
        Flag("tls-min-version", "VersionTLS12"),
        Flag("tls-private-key-file", f"{SECRETS}/apiserver.key", _SERVING),
        Flag("token-auth-file", reserved=_USERS),
    ),
    secrets={
        "apiserver.crt": "apiserver.crt",
        "apiserver.key": "apiserver.key",
        "apiserver-kubelet-client.crt": "apiserver-kubelet-client.crt",
        "apiserver-kubelet-client.key": "apiserver-kubelet-client.key",
        "authentication.yaml": "authentication.yaml",
        "ca.crt": "ca.crt",
        "etcd-ca.crt": "etcd/ca.crt",
        "etcd-client.crt": "etcd/apiserver-client.crt",
        "etcd-client.key": "etcd/apiserver-client.key",
        "front-proxy-ca.crt": "front-proxy-ca.crt",
        "front-proxy-client.crt": "front-proxy-client.crt",
        "front-proxy-client.key": "front-proxy-client.key",
        "service-account.key": "service-account.key",
        "service-account.pub": "service-account.pub",
    },
    bootstrap_secrets={
        "apiserver.crt": "bootstrap-apiserver.crt",
        "apiserver.key": "bootstrap-apiserver.key",
    },
)

KUBE_CONTROLLER_MANAGER = Component(
    name="kube-controller-manager",
    images=(_kubernetes_image("kube-controller-manager"),),
    port=10257,
    cpu="20m",
    memory="32Mi",
    priority="system-cluster-critical",
    grace_seconds=30,
    flag_example={"terminated-pod-gc-threshold": "500"},
    flags=(
        *_LEADER_FLAGS,
        # The temporary one starts beside its kube-apiserver: it would end, and come back up to 10 s later.
        Flag("authentication-tolerate-lookup-failure", "${tolerate-lookup-failure}"),
        # What these four are is the network's to say.
        Flag("allocate-node-cidrs", reserved=_PODS),
        Flag("cidr-allocator-type", reserved=_PODS),
        Flag("cluster-cidr", reserved=_PODS),
        Flag("node-cidr-mask-size*", reserved=_PODS),
        Flag("client-ca-file", f"{SECRETS}/ca.crt", _AUTHORITY),
        Flag("cluster-signing-*", reserved=_SIGNING),
        Flag("cluster-signing-cert-file", f"{SECRETS}/ca.crt", _SIGNING),
        Flag("cluster-signing-duration"),
        Flag("cluster-signing-key-file", f"{SECRETS}/ca.key", _SIGNING),
        Flag("controllers", "*", is_list=True),
        Flag("enable-garbage-collector", reserved=_GARBAGE),
        Flag("feature-gates", "${controller-manager-gates}", is_list=True),
        # The temporary one makes an account for each controller before any begins: 5 s at the usual rate.
        Flag("kube-api-burst", "${controller-manager-qps}"),
        Flag("kube-api-qps", "${controller-manager-qps}"),
        Flag("root-ca-file", f"{SECRETS}/ca.crt", _AUTHORITY),
        Flag("service-account-private-key-file", f"{SECRETS}/service-account.key", _TOKENS),
        Flag("service-cluster-ip-range", "${services}", _SERVICES),
        Flag("use-service-account-credentials", "true", _ACCOUNTS),
    ),
    secrets={
        "ca.crt": "ca.crt",
        "ca.key": "ca.key",
        "kubeconfig": "controller-manager.kubeconfig",
        "service-account.key": "service-account.key",
    },
)

KUBE_SCHEDULER = Component(
    name="kube-scheduler",
    images=(_kubernetes_image("kube-scheduler"),),
    port=10259,
    cpu="10m",
    memory="32Mi",
    priority="system-cluster-critical",
    grace_seconds=30,
    flag_example={"kube-api-qps": "100"},
    flags=(
        *_LEADER_FLAGS,
        Flag("config", reserved="a file of settings would take the place of the flags"),
    ),
    secrets={"kubeconfig": "scheduler.kubeconfig"},
)

CONTROL_PLANE: dict[ComponentName, Component] = {
    "kube-apiserver": KUBE_APISERVER,
    "kube-controller-manager": KUBE_CONTROLLER_MANAGER,
    "kube-scheduler": KUBE_SCHEDULER,
}

LEADERS = tuple(
    name for name, row in CONTROL_PLANE.items() if any(f.name == "leader-elect" for f in row.flags)
)
"""Those of which one leads, each with a lease of its name."""

# -- the others ----------------------------------------------------------------------------------------------

KUBE_PROXY = Workload(name="kube-proxy", images=(_kubernetes_image("kube-proxy"),))

COREDNS = Workload(
    name="coredns",
    images=(
        Image(
            key="coredns",
            title="CoreDNS",
            reference="registry.k8s.io/coredns/coredns:v${coredns}",
            example="registry.example.com/coredns:v1.14.2",
        ),
    ),
)

POD_CHECKPOINTER = Workload(name="pod-checkpointer", images=(_PYTHON_IMAGE,))

WORKLOADS: tuple[Workload, ...] = (*CONTROL_PLANE.values(), KUBE_PROXY, COREDNS, POD_CHECKPOINTER)
"""All but the network's."""
