"""A kubeconfig's current context: which server, whom it trusts and who asks."""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_CLUSTER_FIELDS = {
    "server",
    "certificate-authority",
    "certificate-authority-data",
    "insecure-skip-tls-verify",
    "tls-server-name",
}
_USER_FIELDS = {"client-certificate", "client-certificate-data", "client-key", "client-key-data", "token"}


class KubeconfigError(Exception):
    """A kubeconfig that cannot be used; the text holds nothing secret."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a client needs to reach one API server."""

    server: str
    server_name: str | None
    tls: ssl.SSLContext
    headers: Mapping[str, str]


def parse(text: str) -> dict[str, Any]:
    """The kubeconfig in `text` (YAML or JSON); never a path to one."""
    try:
        config = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # The exception's own text quotes the line, which may be a key.
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise KubeconfigError(f"kubeconfig is no YAML: {error.problem} in line {line}") from None
    except yaml.YAMLError:
        raise KubeconfigError("kubeconfig is no YAML") from None
    if not isinstance(config, dict):
        raise KubeconfigError("kubeconfig must be the contents of a kubeconfig, not a path or a name")
    return config


def active_cluster(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The current context's cluster, if there is one."""
    context = _named(config, "contexts", "context", config.get("current-context"))
    return _named(config, "clusters", "cluster", context.get("cluster")) if context is not None else None


def access(config: Mapping[str, Any]) -> Access:
    """How to reach the current context's cluster as its user.

    Certificates, keys and tokens are taken as data or from files. Credential plugins are refused.
    """
    context = _named(config, "contexts", "context", config.get("current-context"))
    if context is None:
        raise KubeconfigError(
            f"kubeconfig has no context {config.get('current-context')!r} (current-context)"
        )
    cluster = _named(config, "clusters", "cluster", context.get("cluster"))
    if cluster is None or not cluster.get("server"):
        raise KubeconfigError(f"kubeconfig has no cluster {context.get('cluster')!r} with a server")
    user = _named(config, "users", "user", context.get("user"))
    if user is None:
        raise KubeconfigError(f"kubeconfig has no user {context.get('user')!r}")
    for fields, known, noun in ((cluster, _CLUSTER_FIELDS, "cluster"), (user, _USER_FIELDS, "user")):
        if unknown := sorted(set(fields) - known):
            raise KubeconfigError(
                f"kubeconfig's {noun}: {unknown[0]} is not supported; use certificates or a token"
            )
    token = user.get("token")
    return Access(
        server=str(cluster["server"]).rstrip("/"),
        server_name=cluster.get("tls-server-name"),
        tls=_tls(cluster, user),
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _material(cluster, "certificate-authority")
    certificate, key = _material(user, "client-certificate"), _material(user, "client-key")
    try:
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate and key:
            # The ssl module reads a certificate from files only; mkstemp makes them 0600.
            with tempfile.NamedTemporaryFile(prefix="kubeconfig-") as file:
                file.write(certificate + b"\n" + key)
                file.flush()
                context.load_cert_chain(file.name)
    except (ssl.SSLError, UnicodeDecodeError, ValueError):
        raise KubeconfigError("kubeconfig's certificates or key are no valid PEM, or do not match") from None
    return context


def _material(fields: Mapping[str, Any], name: str) -> bytes | None:
    data, file = fields.get(f"{name}-data"), fields.get(name)
    try:
        return base64.b64decode(data) if data else Path(file).read_bytes() if file else None
    except ValueError:
        raise KubeconfigError(f"kubeconfig's {name}-data is not base64") from None
    except OSError as error:
        raise KubeconfigError(f"kubeconfig's {name}: {file}: {error.strerror}") from None


def _named(config: Mapping[str, Any], plural: str, singular: str, name: Any) -> Mapping[str, Any] | None:
    return next(
        (item.get(singular) or {} for item in config.get(plural) or [] if item.get("name") == name), None
    )
