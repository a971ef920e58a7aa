"""Renders the asset directory in bootkube's layout."""

from __future__ import annotations

from collections.abc import Mapping

from components.archive import File
from components.assets import document
from components.assets.controlplane import COMPONENTS, bootstrap_pod
from components.assets.credentials import client_kubeconfig, manifest_value
from components.assets.etcd import etcd_config, etcd_pod
from components.assets.manifests import manifests
from components.config import ClusterConfig
from components.hosts.machine import Machines

__all__ = ["render"]


def render(cfg: ClusterConfig, machines: Machines, texts: Mapping[str, str]) -> dict[str, File]:
    """Every asset by its path in the directory: `auth/`, `bootstrap-manifests/`, `manifests/`,
    `static-manifests/`, `etcd/`, `tls/` and `tls/etcd/`.

    `texts` are the PEM texts of the PKI. Whatever holds a secret has mode 0600.
    """
    files = {"auth/kubeconfig": File(client_kubeconfig(cfg, machines.api_host, texts, "admin"), mode=0o600)}
    for name in cfg.hosts:
        kubelet = client_kubeconfig(cfg, machines.api_host, texts, f"kubelet-client-{name}")
        files[f"auth/kubeconfig-kubelet-{name}"] = File(kubelet, mode=0o600)
    for name, text in texts.items():
        files[f"tls/{name}"] = File(text, mode=0o600 if name.endswith(".key") else 0o644)
    for component in COMPONENTS:
        pod = bootstrap_pod(component, cfg, machines)
        files[f"bootstrap-manifests/{pod['metadata']['name']}.yaml"] = _yaml(pod)
    files["static-manifests/etcd.yaml"] = _yaml(etcd_pod(cfg))
    for name in cfg.controllers:
        files[f"etcd/{name}.conf.yml"] = File(document.dump(etcd_config(cfg, machines[name], machines)))
    for name, manifest in manifests(cfg, machines, lambda name: manifest_value(cfg, name, texts)).items():
        files[f"manifests/{name}"] = _yaml(manifest)
    return files


def _yaml(content: Mapping[str, object]) -> File:
    mode = 0o600 if content["kind"] == "Secret" else 0o644
    return File(document.dump(content), mode=mode)
