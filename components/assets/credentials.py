"""Renders what comes from keys and certificates: kubeconfigs, Secrets and digests of their content."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

from components.assets import document
from components.assets.controlplane import COMPONENTS, secret_files
from components.config import ClusterConfig
from components.programs.reuseport import INCUMBENT, NEWCOMER
from components.tables.components import ComponentName, Form

__all__ = ["client_kubeconfig", "control_plane_files", "kubeconfig", "manifest_value", "secret_keys"]

LOOPBACK = (INCUMBENT, NEWCOMER)


def kubeconfig(cfg: ClusterConfig, host: str, *, ca: str, user: str, **credentials: str) -> str:
    """A kubeconfig with one context. `credentials` are fields of its user; `host` is the API's, or one of the
    loopback's addresses for the kube-apiserver of the same host.
    """
    cluster = {"server": cfg.api_endpoint(host), "certificate-authority-data": _base64(ca)}
    if host in LOOPBACK:
        # No certificate names them all.
        cluster["tls-server-name"] = "localhost"
    return document.dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cfg.name, "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": cfg.name, "context": {"cluster": cfg.name, "user": user}}],
            "current-context": cfg.name,
        }
    )


def client_kubeconfig(cfg: ClusterConfig, host: str, texts: Mapping[str, str], leaf: str) -> str:
    """A kubeconfig whose user is the leaf of that name. `host`: see `kubeconfig`."""
    return kubeconfig(
        cfg,
        host,
        ca=texts["ca.crt"],
        user=leaf,
        **{
            "client-certificate-data": _base64(texts[f"{leaf}.crt"]),
            "client-key-data": _base64(texts[f"{leaf}.key"]),
        },
    )


def control_plane_files(
    component: ComponentName, cfg: ClusterConfig, texts: Mapping[str, str], form: Form
) -> dict[str, str]:
    """Name and text of every file in a component's directory of secrets."""

    def text(source: str) -> str:
        if source == "authentication.yaml":
            return AUTHENTICATION
        if source.endswith(".kubeconfig"):
            # Both of them speak to the apiserver beside them, whatever balances the others.
            return client_kubeconfig(cfg, INCUMBENT, texts, source.removesuffix(".kubeconfig"))
        return texts[source]

    return {name: text(source) for name, source in secret_files(component, form).items()}


# Nobody is anonymous but those who ask for health; `--anonymous-auth=false` would lock the probes out.
AUTHENTICATION = document.dump(
    {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": {
            "enabled": True,
            "conditions": [{"path": path} for path in ("/livez", "/readyz", "/healthz")],
        },
    }
)


def secret_keys(component: ComponentName) -> dict[str, str]:
    """Keys of a component's Secret, each with the name of its `manifest_value`."""
    return {name: f"{component}/{name}" for name in secret_files(component, "self-hosted")}


def manifest_value(cfg: ClusterConfig, name: str, texts: Mapping[str, str]) -> str:
    """A value that `manifests` asks for: `<component>.hash` or `<component>/<file>`.

    It reads no more of `texts` than its component needs.
    """
    for component in COMPONENTS:
        if name == f"{component}.hash":
            # Secrets are named by content: a change rolls the pods, and old pods keep the old one.
            files = control_plane_files(component, cfg, texts, "self-hosted")
            return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:10]
        if name.startswith(f"{component}/"):
            files = control_plane_files(component, cfg, texts, "self-hosted")
            return _base64(files[name.removeprefix(f"{component}/")])
    raise KeyError(name)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
