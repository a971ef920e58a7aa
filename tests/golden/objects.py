"""Finding one's way in the Kubernetes objects of an asset directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.assets.controlplane import COMPONENTS
from components.tables.components import ComponentName

Object = dict[str, Any]

BOOTSTRAP: dict[ComponentName, str] = {
    "kube-apiserver": "bootstrap-manifests/bootstrap-apiserver.yaml",
    "kube-controller-manager": "bootstrap-manifests/bootstrap-controller-manager.yaml",
    "kube-scheduler": "bootstrap-manifests/bootstrap-scheduler.yaml",
}


def below(directory: str, objects: Mapping[str, Object]) -> dict[str, Object]:
    """The objects of a directory."""
    return {path: found for path, found in objects.items() if path.startswith(directory)}


def pod_specs(objects: Mapping[str, Object]) -> Iterator[tuple[str, Object]]:
    """The specs of all pods, those in templates too, each with its path."""
    for path, found in objects.items():
        match found["kind"]:
            case "Pod":
                yield path, found["spec"]
            case "Deployment" | "DaemonSet":
                yield path, found["spec"]["template"]["spec"]


def control_plane(objects: Mapping[str, Object]) -> dict[str, Object]:
    """The specs of the control plane's pods in both forms, the temporary and the self-hosted one."""
    paths = {*BOOTSTRAP.values(), *(f"manifests/{component}.yaml" for component in COMPONENTS)}
    return {path: spec for path, spec in pod_specs(objects) if path in paths}


def flags_of(spec: Object) -> dict[str, str]:
    """The flags of a pod's only container, without dashes in front."""
    (container,) = spec["containers"]
    return dict(flag.removeprefix("--").split("=", 1) for flag in container["command"][1:])
