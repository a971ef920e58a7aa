"""The golden cases: a config each, and certificates that are the same in every run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from components.assets.controlplane import COMPONENTS
from components.assets.credentials import manifest_value, secret_keys
from components.config import ClusterConfig, parse
from components.hosts.machine import Machines, configured_machines

CHECKOUT = Path(__file__).parent.parent
DIRECTORY = Path(__file__).parent / "golden" / "cases"
CASES = tuple(sorted(path.name for path in DIRECTORY.iterdir()))

Raw = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A cluster that the tests look at without making it."""

    name: str
    raw: Raw
    """The stack's config below the project's namespace."""
    cfg: ClusterConfig

    @property
    def machines(self) -> Machines:
        """The hosts as the platform describes them."""
        found = configured_machines(self.cfg)
        nested = self.cfg.platform == "lab"
        return replace(found, by_name={name: replace(each, nested=nested) for name, each in found.items()})

    @property
    def api_endpoint(self) -> str:
        """The URL of its API."""
        return self.cfg.api_endpoint(self.machines.api_host)

    @property
    def texts(self) -> dict[str, str]:
        """A made-up PEM text for every name that the PKI has (test_pki holds the names against it)."""
        return {name: pem(name) for name in pki_names(self.cfg)}


@cache
def load(name: str) -> Case:
    """The case of that name."""
    raw = read(name)
    return Case(name=name, raw=raw, cfg=parse(raw, stack=name))


def read(name: str) -> Raw:
    """A case's config, to be changed at will. Machines that exist already get a key to log in with."""
    raw: Raw = yaml.safe_load((DIRECTORY / name / "config.yaml").read_text())
    for host in raw["hosts"].values():
        if "hostKey" in host:
            host["key"] = login_key()
    return raw


@cache
def login_key() -> str:
    """A private key as ssh-keygen writes it; no golden file has it."""
    return (
        ed25519.Ed25519PrivateKey.generate()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        .decode()
    )


def pem(name: str) -> str:
    """A text in the form of a key or certificate, which says its own name."""
    kind = {"key": "PRIVATE KEY", "pub": "PUBLIC KEY", "crt": "CERTIFICATE"}[name.rpartition(".")[2]]
    return f"-----BEGIN {kind}-----\n{name}\n-----END {kind}-----\n"


def pki_names(cfg: ClusterConfig) -> list[str]:
    """Names of all keys and certificates of a cluster."""
    return sorted(_pki_names(cfg))


def _pki_names(cfg: ClusterConfig) -> Iterator[str]:
    yield from ("service-account.key", "service-account.pub")
    pairs = [
        *("ca", "etcd/ca", "front-proxy-ca"),
        *("apiserver", "bootstrap-apiserver", "apiserver-kubelet-client", "etcd/apiserver-client"),
        *("front-proxy-client", "controller-manager", "scheduler", "admin", "super-admin", "controller"),
        *(f"kubelet-serving-{name}" for name in cfg.hosts),
        *(f"kubelet-client-{name}" for name in cfg.hosts),
        *(f"etcd/{kind}-{name}" for name in cfg.controllers for kind in ("server", "peer")),
    ]
    for pair in pairs:
        yield f"{pair}.crt"
        yield f"{pair}.key"


def manifest_values(cfg: ClusterConfig, texts: Mapping[str, str]) -> dict[str, str]:
    """Every value that manifests ask for, by name."""
    names = [name for each in COMPONENTS for name in (f"{each}.hash", *secret_keys(each).values())]
    return {name: manifest_value(cfg, name, texts) for name in names}
