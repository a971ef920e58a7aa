"""Makes a static pod of a pod: nothing in it needs an API."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.programs.checkpointer.pods import CHECKPOINT_LABEL, Object, Owner


class Refused(Exception):
    """A pod that cannot be a static pod, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A pod without any reference to the API, and the files of the volumes that had one."""

    owner: Owner
    pod: Object
    volumes: Mapping[str, Mapping[str, tuple[int, bytes]]]
    """Mode and content by volume and path."""
    uid: int
    """Who reads the files: a hostPath knows no fsGroup."""

    @property
    def revision(self) -> str:
        """A digest of all that is in it."""
        files = {
            volume: {path: (mode, hashlib.sha256(data).hexdigest()) for path, (mode, data) in files.items()}
            for volume, files in self.volumes.items()
        }
        text = json.dumps([self.pod, files, self.uid], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def manifest(self, directory: Path) -> bytes:
        """The static pod, with its files in `directory`."""
        pod = copy.deepcopy(self.pod)
        pod["spec"]["volumes"] += [
            {"name": name, "hostPath": {"path": str(directory / name), "type": "Directory"}}
            for name in sorted(self.volumes)
        ]
        return json.dumps(pod, sort_keys=True, indent=1).encode()


# What names objects of the API, which a kubelet refuses in a static pod, and what only a scheduler reads.
DROPPED = {
    *("affinity", "nodeName", "nodeSelector", "schedulingGates", "topologySpreadConstraints"),
    *("ephemeralContainers", "imagePullSecrets", "serviceAccount", "serviceAccountName"),
}
LOCAL_VOLUMES = {"downwardAPI", "emptyDir", "hostPath"}


def render(owner: Owner, pod: Object, get: Callable[[str, str], Object | None]) -> Checkpoint:
    """The checkpoint of a pod. `get` gives the Secret or ConfigMap, by resource and name, or None.

    Sidecars and what only they mount are left out: they help in a roll, and without an API there is none.
    Raises Refused for what cannot be had without an API, tokens of service accounts among it.
    """
    spec = {key: value for key, value in copy.deepcopy(pod["spec"]).items() if key not in DROPPED}
    if pod["spec"].get("resourceClaims"):
        raise Refused("it has resource claims")
    spec["automountServiceAccountToken"] = False
    first = spec.pop("initContainers", [])
    before = [each for each in first if each.get("restartPolicy") != "Always"]
    sidecars = [each for each in first if each not in before]
    if before:
        spec["initContainers"] = before
    containers = [*before, *spec["containers"]]
    for container in containers:
        # Without a registry a pod starts from what is there, also where AlwaysPullImages has changed it.
        container["imagePullPolicy"] = "IfNotPresent"
        # On its node the pod would count twice.
        container.pop("resources", None)
        for variable in container.get("env", []):
            if {"secretKeyRef", "configMapKeyRef"} & variable.get("valueFrom", {}).keys():
                raise Refused(f"the variable {variable['name']} comes from the API")
        if container.get("envFrom"):
            raise Refused("variables come from the API")
    unused = _mounts(sidecars) - _mounts(containers)
    kept, volumes = [], {}
    for volume in spec.get("volumes", []):
        if volume["name"] in unused:
            continue
        (kind,) = volume.keys() - {"name"} or {"emptyDir"}
        if kind in ("secret", "configMap"):
            volumes[volume["name"]] = _materialise(volume[kind], kind, get)
        elif kind in LOCAL_VOLUMES:
            kept.append(volume)
        else:
            raise Refused(f"a static pod can have no volume of kind {kind}")
    spec["volumes"] = kept
    metadata = {
        "name": f"{owner.name}-checkpoint",
        "namespace": owner.namespace,
        # None by which its owner would take it for one of its pods.
        "labels": {CHECKPOINT_LABEL: owner.name},
    }
    return Checkpoint(
        owner=owner,
        pod={"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        volumes=volumes,
        uid=_user(spec, containers),
    )


def _mounts(containers: Sequence[Object]) -> set[str]:
    return {mount["name"] for each in containers for mount in each.get("volumeMounts", [])}


def _materialise(
    source: Object, kind: str, get: Callable[[str, str], Object | None]
) -> dict[str, tuple[int, bytes]]:
    """Files of a Secret or ConfigMap volume. Only their owner reads them, whatever mode they had."""
    name = source["secretName"] if kind == "secret" else source["name"]
    found = get("secrets" if kind == "secret" else "configmaps", name)
    if found is None and not source.get("optional"):
        raise Refused(f"{kind} {name} is not there")
    found = found or {}
    plain = {} if kind == "secret" else found.get("data") or {}
    encoded = (found.get("data") if kind == "secret" else found.get("binaryData")) or {}
    content = {key: text.encode() for key, text in plain.items()}
    content |= {key: base64.b64decode(text) for key, text in encoded.items()}
    items = source.get("items") or [{"key": key, "path": key} for key in content]
    files = {}
    for item in items:
        path, mode = item["path"], item.get("mode", source.get("defaultMode", 0o644))
        if path.startswith("/") or ".." in path.split("/") or re.search(r"[\\\n\r]", path):
            raise Refused(f"{path!r} of {kind} {name} is no path for a file")
        if item["key"] in content:
            files[path] = (0o500 if mode & 0o111 else 0o400, content[item["key"]])
        elif not source.get("optional"):
            raise Refused(f"{kind} {name} has no key {item['key']}")
    return files


def _user(spec: Object, containers: Sequence[Object]) -> int:
    default = spec.get("securityContext", {}).get("runAsUser", 0)
    users = {each.get("securityContext", {}).get("runAsUser", default) for each in containers}
    if len(users) > 1:
        raise Refused("its containers run as different users")
    return int(users.pop())
