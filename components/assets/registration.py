"""Renders a host's Node object, and the unit that makes it again if somebody deletes it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from components.archive import File
from components.assets import document, templates
from components.assets.document import env_file
from components.assets.manifests import Object, managed, manifests, role
from components.assets.networks import Network
from components.assets.templates import script
from components.config import ClusterConfig
from components.config.k8s_names import CONTROL_PLANE_ROLE
from components.hosts.machine import HostSpec, Machine, Machines
from components.programs.reuseport import INCUMBENT

__all__ = ["KEEP_NODE", "keep_node_script", "registration_files", "taints"]

KEEP_NODE = "/usr/local/libexec/kubepivot/keep-node"
RESOURCES = {"Node": "nodes", "Endpoints": "endpoints", "EndpointSlice": "endpointslices"}


def taints(host: HostSpec) -> list[dict[str, str]]:
    """Those that its kubelet registers with."""
    # By key and effect, of which the API takes no two: the config may name the control plane's as well.
    found = {(t.key, t.effect): {"key": t.key, "value": t.value, "effect": t.effect} for t in host.taints}
    if host.is_controller:
        found.setdefault(
            (CONTROL_PLANE_ROLE, "NoSchedule"),
            {"key": CONTROL_PLANE_ROLE, "value": "", "effect": "NoSchedule"},
        )
    return list(found.values())


def registration_files(
    cfg: ClusterConfig, machine: Machine, machines: Machines, texts: Mapping[str, str]
) -> dict[str, File]:
    """`keep-node`, the Node that it makes, and on a controller what it keeps and a login for just that."""
    # No certificate names the address where the kube-apiserver of the same host answers.
    beside = {
        "api": f"https://localhost:{cfg.api.port}",
        "through": f"--connect-to ::{INCUMBENT}:{cfg.api.port}",
    }
    elsewhere = {"api": cfg.api_endpoint(machines.api_host), "through": ""}
    values = {
        "name": machine.name,
        **(beside if machine.is_controller else elsewhere),
    }
    settings = templates.substitute(
        templates.read("files/node.env"), {key: shlex.quote(value) for key, value in values.items()}
    )
    files = {
        KEEP_NODE: File(keep_node_script(cfg.pod_network), mode=0o755),
        "/etc/kubernetes/node.env": File(settings),
        "/etc/kubernetes/node.json": _json(_registration(machine)),
        **_kubelet_files(machine),
        "/etc/systemd/system/kubepivot-node.service": File(templates.read("files/kubepivot-node.service")),
    }
    if machine.is_controller:
        files |= {
            "/etc/kubernetes/pki/controller.pem": File(
                texts["controller.crt"] + texts["controller.key"], mode=0o600
            ),
            **{
                f"/etc/kubernetes/kept{_path(each)}": _json(managed(each))
                for each in _kept(cfg, machine, machines)
            },
        }
    return files


def keep_node_script(network: Network) -> str:
    """`keep-node.sh` with the network's part in it."""
    return script("keep-node").replace("# @network@\n", network.keep_node())


def _registration(machine: Machine) -> Object:
    """The Node as its kubelet would register it, a controller's with its role, which no kubelet may give."""
    given = role(machine.name)["metadata"]["labels"] if machine.is_controller else {}
    # A kubelet that finds its Node when it starts takes this for what its host has, and without it would
    # refuse every pod, etcd too. It puts it right within seconds.
    room = {"cpu": "1000", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": machine.name, "labels": {**machine.labels, **given}},
        "spec": {"taints": taints(machine)},
        "status": {"capacity": room, "allocatable": room},
    }


def _kubelet_files(machine: Machine) -> dict[str, File]:
    """What a kubelet registers with that makes its Node itself. They are files of their own, since a kubelet
    that runs need not know of a change.
    """
    labels = ",".join(f"{key}={value}" for key, value in sorted(machine.labels.items()))
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "registerWithTaints": taints(machine),
    }
    return {
        "/etc/kubernetes/kubelet.env": env_file(NODE_LABELS=labels),
        "/etc/kubernetes/kubelet.d/taints.conf": File(document.dump(configuration)),
    }


def _kept(cfg: ClusterConfig, machine: Machine, machines: Machines) -> list[Object]:
    """Objects that the program has made, and that nobody else makes again."""
    objects = manifests(cfg, machines, lambda name: "").values()
    return [role(machine.name), *(each for each in objects if each["kind"] in RESOURCES)]


def _path(manifest: Object) -> str:
    """Where the API has the object."""
    version, metadata = manifest["apiVersion"], manifest["metadata"]
    group = "/api" if version == "v1" else "/apis"
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{group}/{version}{namespace}/{RESOURCES[manifest['kind']]}/{metadata['name']}"


def _json(document: Mapping[str, Any]) -> File:
    return File(json.dumps(document, indent=1, sort_keys=True) + "\n")
