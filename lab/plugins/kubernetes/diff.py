"""What changes between an object's last state and its new inputs, and what of it needs a new object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pulumi.provider.experimental.provider import PropertyDiff, PropertyDiffKind

from lab.plugins.common import UNKNOWN
from lab.plugins.kubernetes.objects import Object

Path = tuple[str | int, ...]

_IDENTITY = ("metadata.name", "metadata.namespace")
_WORKLOAD = ("spec.selector",)
_ROLE_BINDING = ("roleRef",)
_CONTAINER = (
    *("args", "command", "env", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "ports"),
    *("readinessProbe", "resources", "securityContext", "stdin", "stdinOnce", "terminationMessagePath"),
    *("terminationMessagePolicy", "tty", "volumeDevices", "volumeMounts", "workingDir"),
)
_POD = (
    *("affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks"),
    *("hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostname", "imagePullSecrets", "nodeName"),
    *("nodeSelector", "overhead", "preemptionPolicy", "priority", "priorityClassName", "readinessGates"),
    *("restartPolicy", "runtimeClassName", "schedulerName", "securityContext", "serviceAccount"),
    *("serviceAccountName", "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds", "volumes"),
)

# The official plugin's own list, for the versions that a current API server serves.
_REPLACES: dict[tuple[str, str], Sequence[str]] = {
    ("v1", "ConfigMap"): ("binaryData", "data"),
    ("v1", "Secret"): ("type", "stringData", "data"),
    ("v1", "Service"): ("spec.clusterIP",),
    ("v1", "PersistentVolumeClaim"): (
        "spec.accessModes",
        "spec.selector",
        "spec.storageClassName",
        "spec.volumeName",
    ),
    ("v1", "PersistentVolume"): ("spec.csi", "spec.hostPath", "spec.local", "spec.nfs"),
    ("v1", "Pod"): (
        *(f"spec.{field}" for field in _POD),
        *(f"spec.{group}.*.{field}" for group in ("containers", "initContainers") for field in _CONTAINER),
    ),
    ("v1", "ResourceQuota"): ("spec.scopes",),
    ("apps/v1", "DaemonSet"): _WORKLOAD,
    ("apps/v1", "Deployment"): _WORKLOAD,
    ("apps/v1", "StatefulSet"): (
        "spec.podManagementPolicy",
        "spec.revisionHistoryLimit",
        "spec.selector",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
    ),
    ("batch/v1", "Job"): ("spec.completions", "spec.parallelism", "spec.selector", "spec.template"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): _ROLE_BINDING,
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): _ROLE_BINDING,
    ("storage.k8s.io/v1", "StorageClass"): ("parameters", "provisioner"),
}

_REPLACING = {
    PropertyDiffKind.ADD: PropertyDiffKind.ADD_REPLACE,
    PropertyDiffKind.DELETE: PropertyDiffKind.DELETE_REPLACE,
    PropertyDiffKind.UPDATE: PropertyDiffKind.UPDATE_REPLACE,
}


def detailed(
    old: Object, new: Object, *, patch: bool, ignored: Iterable[str] = ()
) -> dict[str, PropertyDiff]:
    """The differences by property path. A Patch resource is replaced for its identity only."""
    replacing = _IDENTITY if patch else (*_IDENTITY, *_REPLACES.get((new["apiVersion"], new["kind"]), ()))
    patterns = [pattern.split(".") for pattern in replacing]
    hidden = [parse_path(path) for path in ignored]
    diffs = {}
    for path, kind, value in _differences((), old, new):
        if any(_contains(prefix, path) for prefix in hidden):
            continue
        replaces = any(_reaches(path, value, pattern) for pattern in patterns)
        diffs[_text(path)] = PropertyDiff(
            kind=_REPLACING[kind] if replaces else kind, input_diff=kind is PropertyDiffKind.DELETE
        )
    return diffs


def replaces(diffs: dict[str, PropertyDiff]) -> list[str]:
    """The paths that need a new object."""
    return sorted(path for path, diff in diffs.items() if diff.kind in _REPLACING.values())


def _differences(path: Path, old: Any, new: Any) -> Iterator[tuple[Path, PropertyDiffKind, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            if key not in new:
                yield (*path, key), PropertyDiffKind.DELETE, old[key]
            elif key not in old:
                yield (*path, key), PropertyDiffKind.ADD, new[key]
            else:
                yield from _differences((*path, key), old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            if index >= len(new):
                yield (*path, index), PropertyDiffKind.DELETE, old[index]
            elif index >= len(old):
                yield (*path, index), PropertyDiffKind.ADD, new[index]
            else:
                yield from _differences((*path, index), old[index], new[index])
    elif new == UNKNOWN or old != new or isinstance(old, bool) != isinstance(new, bool):
        yield path, PropertyDiffKind.UPDATE, new


def _reaches(path: Path, value: Any, pattern: Sequence[str]) -> bool:
    """Whether the change of `value` at `path` touches `pattern`, from above or from below."""
    for index, part in enumerate(pattern):
        if index < len(path):
            if part != "*" and part != path[index]:
                return False
        elif part == "*":
            rest = pattern[index + 1 :]
            return isinstance(value, list) and any(_reaches((), item, rest) for item in value)
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return False
    return True


def parse_path(text: str) -> Path:
    """A property path of Pulumi's, such as `a.b[0]["c.d"]`."""
    parts: list[str | int] = []
    for index, quoted, name in re.findall(r'\[(\d+|\*)\]|\["((?:[^"\\]|\\.)*)"\]|([^.\[\]"]+)', text):
        parts.append(int(index) if index.isdigit() else index or quoted.replace('\\"', '"') or name)
    return tuple(parts)


def _contains(prefix: Path, path: Path) -> bool:
    return len(prefix) <= len(path) and all(
        part in ("*", item) for part, item in zip(prefix, path, strict=False)
    )


def _text(path: Path) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.search(r'[."\[\]]', part):
            escaped = part.replace('"', '\\"')
            text += f'["{escaped}"]'
        else:
            text += f".{part}" if text else part
    return text
