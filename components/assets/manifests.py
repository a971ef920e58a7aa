"""Renders the cluster's objects, one per file, under bootkube's file names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from components.assets import templates
from components.assets.controlplane import COMPONENTS, pod_spec
from components.assets.credentials import secret_keys
from components.config import ClusterConfig
from components.config.k8s_names import CONTROL_PLANE_ROLE, NAME_LABEL
from components.hosts.machine import Machines
from components.programs import checkpointer, reuseport
from components.tables.components import ComponentName

__all__ = [
    "CONTENT_LABEL",
    "OWNER",
    "WORKLOAD_KINDS",
    "Object",
    "applied",
    "content_name",
    "managed",
    "manifests",
    "role",
]

Object = dict[str, Any]

CONTENT_LABEL = "kubepivot.dev/content"
"""On Secrets and ConfigMaps whose name has a digest of what they hold. The hand-over removes old ones."""

WORKLOAD_KINDS = ("DaemonSet", "Deployment")
"""Kinds of objects that have pods."""

# A creation that was cut short has left fields of a manager with another random name: they are ours as well.
OWNER = {"pulumi.com/patchFieldManager": "kubepivot", "pulumi.com/patchForce": "true"}

# Tells a start from a crash loop: the readiness of a new pod may be answered by the old one.
MIN_READY_SECONDS = 10


def manifests(cfg: ClusterConfig, machines: Machines, value: Callable[[str], str]) -> dict[str, Object]:
    """Every object by file name. `value` gives what is not in the config: see `credentials.manifest_value`.

    With placeholders as values, and as addresses of the machines, the result tells which objects exist
    without any certificate or machine.
    """
    objects = _from_templates(cfg, machines, value)
    for component in COMPONENTS:
        secret = f"{component}-{value(f'{component}.hash')}"
        objects[f"{component}-secret.yaml"] = _secret(component, secret, value)
        objects[f"{component}.yaml"] = _workload(component, cfg, machines, secret)
        if component != "kube-apiserver":
            objects[f"{component}-disruption.yaml"] = _disruption(component)
    objects["pod-checkpointer-config.yaml"]["data"] = _program(*_modules(checkpointer.__path__[0]))
    objects["reuseport-filter-config.yaml"]["data"] = _program(Path(reuseport.__file__))
    _name_config_maps_by_content(objects)
    return dict(sorted(objects.items()))


# What the provider would wait for: workloads, and a service until it has pods.
_AWAITED = (*WORKLOAD_KINDS, "Service")


def applied(cfg: ClusterConfig, machines: Machines, value: Callable[[str], str]) -> dict[str, Object]:
    """Every manifest by file name, with what the provider is told of how to wait for it."""
    found = manifests(cfg, machines, value)
    for manifest in found.values():
        if manifest["kind"] in _AWAITED:
            manifest["metadata"]["annotations"] = {"pulumi.com/skipAwait": "true"}
    return found


def managed(manifest: Mapping[str, Any]) -> Object:
    """The manifest with the annotations that say who applies it."""
    metadata = manifest["metadata"]
    return {
        **manifest,
        "metadata": {**metadata, "annotations": {**OWNER, **metadata.get("annotations", {})}},
    }


def role(name: str) -> Object:
    """What the Node of a controller is given: a kubelet may not set that label itself."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {CONTROL_PLANE_ROLE: ""}},
    }


def _from_templates(cfg: ClusterConfig, machines: Machines, value: Callable[[str], str]) -> dict[str, Object]:
    known = {
        "api-endpoint": cfg.api_endpoint(machines.api_host),
        "api-port": str(cfg.api.port),
        "controller-address": machines[cfg.bootstrap_controller].address,
        "controller-kubelets": _kubelets(cfg.controllers),
        "controllers": json.dumps(cfg.controllers),
        "dns-ip": cfg.dns_ip,
        "domain": cfg.network.domain,
        "hosts": json.dumps(sorted(cfg.hosts)),
        "kubelets": _kubelets(sorted(cfg.hosts)),
        "node-port-addresses": cfg.node_port_addresses,
        "pods": cfg.network.pods,
        "service-ip": cfg.service_ip,
        **{f"{name}-image": image for name, image in cfg.workload_images.items()},
    }
    texts = {name: templates.read(f"manifests/{name}") for name in templates.names("manifests")}
    return {
        name: json.loads(_as_json(templates.substitute(text, _Values(known, value))))
        for name, text in {**texts, **cfg.pod_network.manifests()}.items()
        if cfg.owns_endpoints or not name.startswith("kubernetes-endpoint")
    }


@lru_cache(maxsize=1024)
def _as_json(text: str) -> str:
    """A YAML document, parsed once: a dozen steps of a run read it, which took a third of a preview."""
    # libyaml, eleven times as fast.
    return json.dumps(yaml.load(text, Loader=yaml.CSafeLoader))


def _kubelets(hosts: Iterable[str]) -> str:
    """Subjects of a binding."""
    user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User"}
    return json.dumps([{**user, "name": f"system:node:{name}"} for name in hosts])


class _Values(dict[str, str]):
    """The known values, and the others by asking for them."""

    def __init__(self, known: Mapping[str, str], ask: Callable[[str], str]) -> None:
        super().__init__(known)
        self._ask = ask

    def __missing__(self, name: str) -> str:
        return self._ask(name)


def _labels(component: ComponentName) -> dict[str, str]:
    return {NAME_LABEL: component}


def _secret(component: ComponentName, name: str, value: Callable[[str], str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": "kube-system",
            "labels": {**_labels(component), CONTENT_LABEL: component},
        },
        "type": "Opaque",
        "data": {key: value(source) for key, source in secret_keys(component).items()},
    }


def _workload(component: ComponentName, cfg: ClusterConfig, machines: Machines, secret: str) -> Object:
    """kube-apiserver on every controller; the others as many as there are controllers.

    A roll starts the new pod before the old one ends, on the same host and port.
    """
    spec = pod_spec(
        component,
        cfg,
        machines,
        form="self-hosted",
        # Group-readable, since the files of a volume belong to root and to the pod's fsGroup.
        volume={"secret": {"secretName": secret, "defaultMode": 0o440}},
    )
    spec["nodeSelector"] = {CONTROL_PLANE_ROLE: ""}
    overlap = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    workload: Object = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet" if component == "kube-apiserver" else "Deployment",
        "metadata": {"name": component, "namespace": "kube-system", "labels": _labels(component)},
        "spec": {
            "selector": {"matchLabels": _labels(component)},
            "template": {
                "metadata": {"labels": _labels(component)},
                "spec": spec,
            },
        },
    }
    workload["spec"]["minReadySeconds"] = MIN_READY_SECONDS
    if component == "kube-apiserver":
        workload["spec"] |= {"updateStrategy": overlap}
    else:
        workload["spec"] |= {"replicas": len(cfg.controllers), "strategy": overlap}
        spec["affinity"] = _spread(component)
    return workload


def _program(*modules: Path) -> dict[str, str]:
    """What a ConfigMap has of a program that runs on the cluster."""
    return {path.name: path.read_text() for path in modules}


def _modules(package: str) -> list[Path]:
    """Modules of a package, which find each other by the same names on the cluster as here.

    Without `__init__.py`: Pulumi drops keys that begin so, and Python needs none.
    """
    return sorted(Path(package).glob("[a-z]*.py"))


def _spread(component: ComponentName) -> dict[str, Any]:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": _labels(component)}}
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
        }
    }


def _disruption(component: ComponentName) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": component, "namespace": "kube-system", "labels": _labels(component)},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(component)}},
    }


def content_name(name: str, data: Mapping[str, str]) -> str:
    """The name of a ConfigMap with a digest of what it holds."""
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:10]
    return f"{name}-{digest}"


def _name_config_maps_by_content(objects: Mapping[str, Object]) -> None:
    """Adds a digest to the name of every ConfigMap, so that a change of it rolls the pods that mount it."""
    renamed: dict[str, str] = {}
    for config in objects.values():
        if config["kind"] == "ConfigMap":
            name = config["metadata"]["name"]
            renamed[name] = config["metadata"]["name"] = content_name(name, config["data"])
            config["metadata"].setdefault("labels", {})[CONTENT_LABEL] = name
    for workload in objects.values():
        if workload["kind"] in WORKLOAD_KINDS:
            for volume in workload["spec"]["template"]["spec"]["volumes"]:
                if "configMap" in volume:
                    volume["configMap"]["name"] = renamed[volume["configMap"]["name"]]
