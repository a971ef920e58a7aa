"""Applies the cluster's objects, the control plane among them, through the Kubernetes provider."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from components.assets.controlplane import COMPONENTS
from components.assets.credentials import client_kubeconfig, manifest_value
from components.assets.manifests import (
    CONTENT_LABEL,
    WORKLOAD_KINDS,
    Object,
    applied,
    content_name,
    managed,
    role,
)
from components.assets.upgrade_plan import workload_tiers
from components.config import ClusterConfig
from components.hosts.host import Hosts
from components.hosts.machine import Machines
from components.intent import Intent
from components.pki import Pki, Texts
from components.rollout import Rollout
from components.ssh import RemoteStep

__all__ = ["Intents", "Manifest", "SelfHosted"]


MOUNTED = ("ConfigMap", "Secret", "ServiceAccount")
INTENT = "kubepivot.dev/intent"
# A cluster keeps the user that it was made with: a kube-apiserver shares its port only with one of the same.
USER = [f"spec.template.spec.securityContext.{key}" for key in ("runAsUser", "runAsGroup", "fsGroup")]


class Manifest(pulumi.CustomResource):
    """One Kubernetes object of any kind. With `patch`, only the given fields of an object that others own."""

    def __init__(
        self, name: str, manifest: Mapping[str, Any], opts: pulumi.ResourceOptions, *, patch: bool = False
    ) -> None:
        version = manifest["apiVersion"]
        group = "core/" if version == "v1" else ""
        token = f"kubernetes:{group}{version}:{manifest['kind']}{'Patch' if patch else ''}"
        super().__init__(token, name, managed(manifest), opts)


class Intents:
    """What every workload is about to become, recorded before any of them changes.

    Its token is an annotation of the workload, so that the provider applies it again; the pods have none.
    """

    token: pulumi.Output[str]
    """A line for each workload with its intent's. A recovery, which applies them without Pulumi, sets the
    annotation by it.
    """

    def __init__(
        self,
        name: str,
        cfg: ClusterConfig,
        hosts: Hosts,
        pki: Pki,
        *,
        after: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions,
    ) -> None:
        self.values = _Values(cfg, hosts, pki)
        workloads = {file: m for file, m in self.values.unfilled.items() if m["kind"] in WORKLOAD_KINDS}
        self._of = {
            file: Intent(_resource(name, file), self.values.digest({file: each}), after=after, opts=opts)
            for file, each in workloads.items()
        }
        lines = [
            pulumi.Output.concat(f"{each['kind']}/{each['metadata']['name']} ", self._of[file].token, "\n")
            for file, each in workloads.items()
        ]
        self.token = pulumi.Output.concat(*lines)

    def annotated(self, file: str, manifest: Object) -> Object:
        """The manifest, a workload with its intent."""
        if file not in self._of:
            return manifest
        metadata = manifest["metadata"]
        annotations = {**metadata.get("annotations", {}), INTENT: self._of[file].token}
        return {**manifest, "metadata": {**metadata, "annotations": annotations}}


class SelfHosted(pulumi.ComponentResource):
    """Applies every object in `manifests/` of the asset directory to the API that `bootstrap` started.

    What is made waits for no pod: the rollout before the hand-over waits for all of them, within one
    deadline, and tells what the containers said. What is changed does: see `_apply_workloads`.
    """

    objects: list[pulumi.Resource]
    workloads: pulumi.Output[str]
    """Digest of everything that has pods."""

    def __init__(
        self,
        name: str,
        cfg: ClusterConfig,
        pki: Pki,
        intents: Intents,
        bootstrap: RemoteStep,
        rollout: Rollout,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("kubepivot:selfhosted:SelfHosted", f"{name}-self-hosted", None, opts)
        self._name = name
        self.provider = kubernetes.Provider(
            f"{name}-cluster",
            kubeconfig=pki.read(
                lambda machines, texts: client_kubeconfig(cfg, machines.api_host, texts, "super-admin")
            ),
            # Without it another kubeconfig, a renewed certificate say, would replace every object.
            cluster_identifier=cfg.name,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[bootstrap]),
        )
        self._opts = pulumi.ResourceOptions(
            parent=self,
            provider=self.provider,
            # They end with the cluster; deleting them one by one would take the API from under the rest.
            deleted_with=bootstrap,
        )
        values = intents.values
        unfilled = values.unfilled
        lifted = {file: intents.annotated(file, values.lift(each)) for file, each in unfilled.items()}
        # What pods mount comes first, and goes last: neither the old nor the new ones of a roll lack it.
        mounted = [self._apply(file, m) for file, m in lifted.items() if m["kind"] in MOUNTED]
        # The control plane's pods go where the role is.
        before = [*mounted, *self._label_roles(cfg)]
        rest = {file: m for file, m in lifted.items() if m["kind"] not in (*MOUNTED, *WORKLOAD_KINDS)}
        workloads = {file: m for file, m in lifted.items() if m["kind"] in WORKLOAD_KINDS}
        tiers = self._apply_workloads(cfg, workloads, before, rollout)
        # Pulumi makes a few at a time; kube-apiserver takes longest to start, and needs nothing of the rest.
        self.objects = [*before, *next(tiers)]
        self.objects += (self._apply(file, m, before) for file, m in rest.items())
        self.objects += chain.from_iterable(tiers)
        self.workloads = values.digest({f: m for f, m in unfilled.items() if m["kind"] in WORKLOAD_KINDS})
        self.register_outputs({})

    def _apply_workloads(
        self,
        cfg: ClusterConfig,
        manifests: Mapping[str, Object],
        before: Sequence[pulumi.Resource],
        rollout: Rollout,
    ) -> Iterator[list[Manifest]]:
        """Made all together, they are changed tier by tier: none is newer than a kube-apiserver it asks."""
        done: list[Manifest] = []
        earlier: list[str] = []
        for tier in ([workload.name for workload in each] for each in workload_tiers(cfg)):
            gate = rollout.of_workloads(*earlier) if earlier else pulumi.ResourceOptions()
            made = [
                self._apply(file, manifest, [*before, *done], gate)
                for file, manifest in manifests.items()
                if manifest["metadata"]["name"] in tier
            ]
            yield made
            done += made
            earlier += tier

    def _apply(
        self,
        file: str,
        manifest: Object,
        after: Sequence[pulumi.Resource] = (),
        gate: pulumi.ResourceOptions | None = None,
    ) -> Manifest:
        name = manifest["metadata"]["name"]
        own = pulumi.ResourceOptions(
            depends_on=list(after),
            ignore_changes=USER if manifest["kind"] in WORKLOAD_KINDS and name in COMPONENTS else None,
            # Pulumi deletes a replaced object by its name at the end of the next run that succeeds. If that
            # run took the change back, it is the newest one's name. The hand-over removes what is not used.
            retain_on_delete=CONTENT_LABEL in manifest["metadata"].get("labels", {}),
        )
        opts = pulumi.ResourceOptions.merge(pulumi.ResourceOptions.merge(self._opts, gate), own)
        return Manifest(_resource(self._name, file), manifest, opts)

    def _label_roles(self, cfg: ClusterConfig) -> list[pulumi.Resource]:
        """Gives controllers the role that places the control plane: no kubelet may set that label itself."""
        return [
            Manifest(f"{self._name}-{host}-role", role(host), self._opts, patch=True)
            for host in cfg.controllers
        ]


def _resource(cluster: str, file: str) -> str:
    return f"{cluster}-{file.removesuffix('.yaml')}"


_PLACEHOLDER = re.compile(r"⟦([^⟧]+)⟧")


def _placeholder(name: str) -> str:
    return f"⟦{name}⟧"


_API_HOST = "api-host"
_ADDRESS = "address/"


class _Values:
    """Replaces placeholders by Outputs, each of which depends on the addresses and PEM texts it needs.

    An address has a placeholder even where the config says it, so that all platforms take the same way.
    """

    def __init__(self, cfg: ClusterConfig, hosts: Hosts, pki: Pki) -> None:
        self._cfg, self._pki = cfg, pki
        machines = Machines(
            by_name={name: host.at(_placeholder(f"{_ADDRESS}{name}")) for name, host in hosts.items()},
            api_host=_placeholder(_API_HOST),
        )
        self.unfilled = applied(cfg, machines, _placeholder)
        # Their names have a digest of placeholders, where that of the content belongs.
        self._config_maps = {
            manifest["metadata"]["name"]: manifest
            for manifest in self.unfilled.values()
            if manifest["kind"] == "ConfigMap" and any(map(_PLACEHOLDER.search, manifest["data"].values()))
        }

    def lift(self, manifest: Object) -> dict[str, Any]:
        """The manifest with every placeholder as an Output; all else stays plain and known to a preview."""
        secret = manifest["kind"] == "Secret"
        return {key: self._lift(child, secret and key == "data") for key, child in manifest.items()}

    def _lift(self, node: Any, secret: bool) -> Any:
        match node:
            case dict():
                return {key: self._lift(child, secret) for key, child in node.items()}
            case list():
                return [self._lift(child, secret) for child in node]
            case str() if node in self._config_maps or _PLACEHOLDER.search(node):
                filled = self._pki.read(lambda machines, texts: self._fill(node, machines, texts))
                return filled if secret else pulumi.Output.unsecret(filled)
            case _:
                return node

    def digest(self, manifests: Mapping[str, Object]) -> pulumi.Output[str]:
        """The digest of manifests, which is no secret, with every placeholder filled in."""

        def digest(machines: Machines, texts: Texts) -> str:
            text = json.dumps(self._fill(manifests, machines, texts), sort_keys=True)
            return hashlib.sha256(text.encode()).hexdigest()

        return pulumi.Output.unsecret(self._pki.read(digest))

    def _fill(self, node: Any, machines: Machines, texts: Texts) -> Any:
        match node:
            case dict():
                return {key: self._fill(child, machines, texts) for key, child in node.items()}
            case list():
                return [self._fill(child, machines, texts) for child in node]
            case str() if node in self._config_maps:
                config = self._config_maps[node]
                data = self._fill(config["data"], machines, texts)
                return content_name(config["metadata"]["labels"][CONTENT_LABEL], data)
            case str():
                return _PLACEHOLDER.sub(lambda match: self._value(match[1], machines, texts), node)
            case _:
                return node

    def _value(self, name: str, machines: Machines, texts: Texts) -> str:
        if name == _API_HOST:
            return machines.api_host
        if name.startswith(_ADDRESS):
            return machines[name.removeprefix(_ADDRESS)].address
        return manifest_value(self._cfg, name, texts)
