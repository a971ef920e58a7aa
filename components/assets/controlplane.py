"""Renders the control plane's pods. Temporary and self-hosted form take their flags from one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.config import ClusterConfig
from components.config.flags import merged
from components.programs import reuseport
from components.programs.checkpointer.pods import STEERING

__all__ = ["COMPONENTS", "MANIFESTS", "UID", "Component", "Form", "bootstrap_pod", "pod_spec", "secret_files"]

Component = Literal["kube-apiserver", "kube-controller-manager", "kube-scheduler"]
Form = Literal["bootstrap", "self-hosted"]
COMPONENTS: tuple[Component, ...] = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")

UID = 60643
"""User of the control plane and of etcd. A listener shares its port only with one of the same user, so it is
one that no image has (many have 65532), and that no host gives away (systemd leaves 60578 to 61183 unused).
"""
FORMER_UID = 65532
"""That of clusters which were made before. They keep it."""

MANIFESTS = "/etc/kubernetes/manifests"
"""Where the kubelet finds its static pods."""
SECRETS = "/etc/kubernetes/secrets"
BOOTSTRAP_SECRETS = "/etc/kubernetes/bootstrap-secrets"
STEERING_STATE = "/run/port-steering"


@dataclass(frozen=True, kw_only=True)
class _Process:
    """How a component is run, apart from its flags."""

    port: int
    cpu: str
    memory: str
    priority: str


# Requests are tiny because a roll and a checkpoint count them twice on one node.
_PROCESSES: dict[Component, _Process] = {
    "kube-apiserver": _Process(port=6443, cpu="50m", memory="128Mi", priority="system-node-critical"),
    "kube-controller-manager": _Process(
        port=10257, cpu="20m", memory="32Mi", priority="system-cluster-critical"
    ),
    "kube-scheduler": _Process(port=10259, cpu="10m", memory="32Mi", priority="system-cluster-critical"),
}


def secret_files(component: Component, form: Form) -> dict[str, str]:
    """Names of the files that a component reads, each with the name of its text in PKI or `values`."""
    match component:
        case "kube-apiserver":
            serving = "bootstrap-apiserver" if form == "bootstrap" else "apiserver"
            return {
                "apiserver.crt": f"{serving}.crt",
                "apiserver.key": f"{serving}.key",
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
            }
        case "kube-controller-manager":
            return {
                "ca.crt": "ca.crt",
                "ca.key": "ca.key",
                "kubeconfig": "controller-manager.kubeconfig",
                "service-account.key": "service-account.key",
            }
        case "kube-scheduler":
            return {"kubeconfig": "scheduler.kubeconfig"}


def bootstrap_pod(component: Component, cfg: ClusterConfig) -> dict[str, Any]:
    """The static pod of the temporary control plane: hostPath only, as it may name no API object."""
    name = component.replace("kube-", "bootstrap-")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"app.kubernetes.io/name": name}},
        "spec": pod_spec(
            component,
            cfg,
            form="bootstrap",
            volume={"hostPath": {"path": f"{BOOTSTRAP_SECRETS}/{component}", "type": "Directory"}},
        ),
    }


def pod_spec(
    component: Component, cfg: ClusterConfig, *, form: Form, volume: dict[str, Any]
) -> dict[str, Any]:
    """The pod's spec; `volume` is the source of the directory of secrets.

    No port is declared: on the host's network it would be a host port, and a second pod could not start
    beside the first.
    """
    process = _PROCESSES[component]
    # The API's port is the user's choice, the others are the components' own.
    port = cfg.api.port if component == "kube-apiserver" else process.port
    flags = _flags(component, cfg, form)
    container: dict[str, Any] = {
        "name": component,
        "image": cfg.workload_images[component],
        "command": [component, *(f"--{name}={value}" for name, value in sorted(flags.items()))],
        "resources": {"requests": {"cpu": process.cpu, "memory": process.memory}},
        "securityContext": _confined(),
        "startupProbe": _startup_probe(component, port),
        # Lenient, because another instance on the same port may answer.
        "livenessProbe": _probe(component, port, "/livez", periodSeconds=10, failureThreshold=8),
        "readinessProbe": _probe(component, port, "/readyz", periodSeconds=2, failureThreshold=3),
        "volumeMounts": [{"name": "secrets", "mountPath": SECRETS, "readOnly": True}],
    }
    if component == "kube-apiserver":
        container["env"] = [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    # The temporary one is the first at the port.
    steered = component == "kube-apiserver" and form == "self-hosted"
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostNetwork": True,
        "priorityClassName": process.priority,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 75 if component == "kube-apiserver" else 30,
        "tolerations": [{"operator": "Exists"}],
        **({"initContainers": [_steering(cfg)]} if steered else {}),
        "containers": [container],
        "volumes": [
            {"name": "secrets", **volume},
            # After a reboot it has to wait for its turn anew.
            *([{"name": STEERING, "emptyDir": {"medium": "Memory"}}] if steered else []),
        ],
    }


def _confined() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def _steering(cfg: ClusterConfig) -> dict[str, Any]:
    """Runs beside kube-apiserver and gives it clients when it is ready: `components.programs.reuseport`."""
    begun = f"{STEERING_STATE}/begun"
    return {
        "name": STEERING,
        "image": cfg.workload_images["pod-checkpointer"],
        "command": ["python3", "-c", Path(reuseport.__file__).read_text(), str(cfg.api.port), begun],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "restartPolicy": "Always",
        "securityContext": _confined(),
        # kube-apiserver starts after that.
        "startupProbe": {
            "exec": {"command": ["python3", "-c", f"open('{begun}')"]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 2 * reuseport.TURN_SECONDS,
        },
        "volumeMounts": [{"name": STEERING, "mountPath": STEERING_STATE}],
    }


def _startup_probe(component: Component, port: int) -> dict[str, Any]:
    if component != "kube-apiserver":
        return _probe(component, port, "/livez", periodSeconds=2, failureThreshold=60)
    # By steering an instance that is new beside another answers there, from when it listens.
    probe = _probe(component, port, "/readyz", initialDelaySeconds=5, periodSeconds=2, failureThreshold=60)
    probe["httpGet"]["host"] = reuseport.NEWCOMER
    return probe


def _probe(component: Component, port: int, path: str, **timing: int) -> dict[str, Any]:
    # Controller manager and scheduler serve probes on the loopback only, and `/healthz` is what the
    # controller manager lets anybody ask.
    http: dict[str, Any] = {"path": path, "port": port, "scheme": "HTTPS"}
    if component != "kube-apiserver":
        http |= {"host": "127.0.0.1", "path": "/healthz"}
    return {"httpGet": http, "timeoutSeconds": 5, **timing}


def _flags(component: Component, cfg: ClusterConfig, form: Form) -> dict[str, str]:
    return merged(_own_flags(component, cfg, form), cfg.flags.of(component))


def _own_flags(component: Component, cfg: ClusterConfig, form: Form) -> dict[str, str]:
    match component:
        case "kube-apiserver":
            return _apiserver_flags(cfg, form)
        case "kube-controller-manager":
            return _controller_manager_flags(cfg, form)
        case "kube-scheduler":
            return {**_leader_flags(), "leader-elect": "true"}


def _apiserver_flags(cfg: ClusterConfig, form: Form) -> dict[str, str]:
    return {
        "advertise-address": "$(POD_IP)",
        "allow-privileged": "true",
        "authentication-config": f"{SECRETS}/authentication.yaml",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": f"{SECRETS}/ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "endpoint-reconciler-type": endpoint_reconciler(cfg, form),
        "etcd-cafile": f"{SECRETS}/etcd-ca.crt",
        "etcd-certfile": f"{SECRETS}/etcd-client.crt",
        "etcd-keyfile": f"{SECRETS}/etcd-client.key",
        "etcd-servers": ",".join(f"https://{cfg.hosts[name].address}:2379" for name in cfg.controllers),
        "kubelet-certificate-authority": f"{SECRETS}/ca.crt",
        "kubelet-client-certificate": f"{SECRETS}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{SECRETS}/apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP",
        "permit-port-sharing": "true",
        "profiling": "false",
        "proxy-client-cert-file": f"{SECRETS}/front-proxy-client.crt",
        "proxy-client-key-file": f"{SECRETS}/front-proxy-client.key",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": f"{SECRETS}/front-proxy-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": str(cfg.api.port),
        "service-account-issuer": f"https://kubernetes.default.svc.{cfg.network.domain}",
        "service-account-key-file": f"{SECRETS}/service-account.pub",
        "service-account-signing-key-file": f"{SECRETS}/service-account.key",
        "service-cluster-ip-range": cfg.network.services,
        # Without it an apiserver that ends holds its watchers, and so its port, for a minute.
        "shutdown-watch-termination-grace-period": "5s",
        "tls-cert-file": f"{SECRETS}/apiserver.crt",
        "tls-min-version": "VersionTLS12",
        "tls-private-key-file": f"{SECRETS}/apiserver.key",
    }


def endpoint_reconciler(cfg: ClusterConfig, form: Form) -> str:
    """Who keeps the `kubernetes` EndpointSlice: `lease` (the apiservers) or `none` (a manifest of ours).

    The lease reconciler takes an address away when an apiserver starts and when it ends, 2 to 7 s of an
    empty service on a single controller; with several the others fill the gap.
    """
    return "lease" if form == "self-hosted" and len(cfg.controllers) > 1 else "none"


def _controller_manager_flags(cfg: ClusterConfig, form: Form) -> dict[str, str]:
    flags = {
        **_leader_flags(),
        "allocate-node-cidrs": "true",
        "client-ca-file": f"{SECRETS}/ca.crt",
        "cluster-cidr": cfg.network.pods,
        "cluster-signing-cert-file": f"{SECRETS}/ca.crt",
        "cluster-signing-key-file": f"{SECRETS}/ca.key",
        # What the config turns on or off is added to it.
        "controllers": "*",
        "leader-elect": "true",
        "root-ca-file": f"{SECRETS}/ca.crt",
        "service-account-private-key-file": f"{SECRETS}/service-account.key",
        "service-cluster-ip-range": cfg.network.services,
        "use-service-account-credentials": "true",
    }
    if form == "bootstrap":
        # Alpha in 1.36, and only for this temporary process: the real one would wait 15 s for the lease.
        flags["feature-gates"] = "ControllerManagerReleaseLeaderElectionLockOnExit=true"
    return flags


def _leader_flags() -> dict[str, str]:
    kubeconfig = f"{SECRETS}/kubeconfig"
    return {
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "kubeconfig": kubeconfig,
        "permit-port-sharing": "true",
        "profiling": "false",
    }
