"""Renders the control plane's pods, in both forms, from the rows in `components/tables/components/`."""

from __future__ import annotations

from typing import Any

from components.assets import templates
from components.config import ClusterConfig
from components.config.flags import merged
from components.config.k8s_names import NAME_LABEL
from components.hosts.machine import Machines
from components.programs import reuseport
from components.tables.components import CONTROL_PLANE, SECRETS, ComponentName, Form

__all__ = [
    "BOOTSTRAP_SECRETS",
    "COMPONENTS",
    "FORMER_UID",
    "MANIFESTS",
    "UID",
    "bootstrap_name",
    "bootstrap_pod",
    "pod_spec",
    "secret_files",
]

COMPONENTS = tuple(CONTROL_PLANE)

UID = 60643
"""User of the control plane and of etcd. A listener shares its port only with one of the same user, so it is
one that no image has (many have 65532), and that no host gives away (systemd leaves 60578 to 61183 unused).
"""
FORMER_UID = 65532
"""That of clusters which were made before. They keep it."""

MANIFESTS = "/etc/kubernetes/manifests"
"""Where the kubelet finds its static pods."""
BOOTSTRAP_SECRETS = "/etc/kubernetes/bootstrap-secrets"
FILTER_PROGRAM = "/opt/reuseport"
FILTER_STATE = "/run/reuseport"


def secret_files(component: ComponentName, form: Form) -> dict[str, str]:
    """Names of the files that a component reads, each with the name of its text in PKI or `credentials`."""
    row = CONTROL_PLANE[component]
    return {**row.secrets, **(row.bootstrap_secrets if form == "bootstrap" else {})}


def bootstrap_name(component: ComponentName) -> str:
    """What a component of the temporary control plane is called."""
    return component.replace("kube-", "bootstrap-")


def bootstrap_pod(component: ComponentName, cfg: ClusterConfig, machines: Machines) -> dict[str, Any]:
    """The static pod of the temporary control plane: hostPath only, as it may name no API object."""
    name = bootstrap_name(component)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {NAME_LABEL: name}},
        "spec": pod_spec(
            component,
            cfg,
            machines,
            form="bootstrap",
            volume={"hostPath": {"path": f"{BOOTSTRAP_SECRETS}/{component}", "type": "Directory"}},
        ),
    }


def pod_spec(
    component: ComponentName, cfg: ClusterConfig, machines: Machines, *, form: Form, volume: dict[str, Any]
) -> dict[str, Any]:
    """The pod's spec; `volume` is the source of the directory of secrets.

    No port is declared: on the host's network it would be a host port, and a second pod could not start
    beside the first.
    """
    row = CONTROL_PLANE[component]
    # The API's port is the user's choice, the others are the components' own.
    port = cfg.api.port if component == "kube-apiserver" else row.port
    flags = _flags(component, cfg, machines, form)
    container: dict[str, Any] = {
        "name": component,
        "image": cfg.workload_images[component],
        "command": [component, *(f"--{name}={value}" for name, value in sorted(flags.items()))],
        "resources": {"requests": {"cpu": row.cpu, "memory": row.memory}},
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
    filtered = component == "kube-apiserver" and form == "self-hosted"
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostNetwork": True,
        "priorityClassName": row.priority,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": row.grace_seconds,
        "tolerations": [{"operator": "Exists"}],
        **({"initContainers": [_filter(cfg)]} if filtered else {}),
        "containers": [container],
        "volumes": [
            {"name": "secrets", **volume},
            *(_filter_volumes() if filtered else []),
        ],
    }


def _confined() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def _filter(cfg: ClusterConfig) -> dict[str, Any]:
    """Runs beside kube-apiserver and gives it clients when it is ready: `components.programs.reuseport`."""
    begun = f"{FILTER_STATE}/begun"
    return {
        "name": reuseport.CONTAINER,
        "image": cfg.workload_images["pod-checkpointer"],
        "command": ["python3", f"{FILTER_PROGRAM}/reuseport.py", str(cfg.api.port), begun],
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
        "volumeMounts": [
            {"name": "filter-program", "mountPath": FILTER_PROGRAM, "readOnly": True},
            {"name": "filter-state", "mountPath": FILTER_STATE},
        ],
    }


def _filter_volumes() -> list[dict[str, Any]]:
    return [
        {"name": "filter-program", "configMap": {"name": reuseport.CONTAINER}},
        # After a reboot it has to wait for its turn anew.
        {"name": "filter-state", "emptyDir": {"medium": "Memory"}},
    ]


def _startup_probe(component: ComponentName, port: int) -> dict[str, Any]:
    if component != "kube-apiserver":
        return _probe(component, port, "/livez", periodSeconds=2, failureThreshold=60)
    # By the filter an instance that is new beside another answers there, from when it listens.
    probe = _probe(component, port, "/readyz", initialDelaySeconds=5, periodSeconds=1, failureThreshold=120)
    probe["httpGet"]["host"] = reuseport.NEWCOMER
    return probe


def _probe(component: ComponentName, port: int, path: str, **timing: int) -> dict[str, Any]:
    # Controller manager and scheduler serve probes on the loopback only, and `/healthz` is what the
    # controller manager lets anybody ask.
    http: dict[str, Any] = {"path": path, "port": port, "scheme": "HTTPS"}
    if component != "kube-apiserver":
        http |= {"host": "127.0.0.1", "path": "/healthz"}
    return {"httpGet": http, "timeoutSeconds": 5, **timing}


def _flags(component: ComponentName, cfg: ClusterConfig, machines: Machines, form: Form) -> dict[str, str]:
    rows = CONTROL_PLANE[component].flags
    values = {row.name: row.value for row in rows} | dict(cfg.pod_network.flags.get(component, {}))
    known = _known(cfg, machines, form)
    filled = {name: templates.substitute(value, known) for name, value in values.items()}
    own = {name: value for name, value in filled.items() if value}
    return merged(own, cfg.flags.of(component), {row.name for row in rows if row.is_list})


def _known(cfg: ClusterConfig, machines: Machines, form: Form) -> dict[str, str]:
    """What flags are filled in with."""
    temporary = form == "bootstrap"
    return {
        "api-port": str(cfg.api.port),
        "controller-manager-gates": cfg.release.handover_gates if temporary else "",
        "controller-manager-qps": "200" if temporary else "",
        "domain": cfg.network.domain,
        "endpoint-reconciler": "none" if temporary or cfg.owns_endpoints else "lease",
        "etcd-servers": ",".join(f"https://{machines[name].address}:2379" for name in cfg.controllers),
        "pods": cfg.network.pods,
        "retry-period": "500ms" if temporary else "",
        "services": cfg.network.services,
        "tolerate-lookup-failure": "true" if temporary else "",
    }
