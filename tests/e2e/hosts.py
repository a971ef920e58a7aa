"""Machines that a test makes beforehand: what `platform: baremetal` finds."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components.archive import File, pack
from components.hosts.lab import RUN_OPTIONS
from lab.engine import docker


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """A key pair in OpenSSH's format."""

    private: str
    public: str

    @classmethod
    def generate(cls) -> KeyPair:
        """A new Ed25519 pair."""
        key = Ed25519PrivateKey.generate()
        encoding, form = serialization.Encoding, serialization.PrivateFormat
        private = key.private_bytes(encoding.PEM, form.OpenSSH, serialization.NoEncryption())
        public = key.public_key().public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return cls(private=private.decode(), public=public.decode())


@dataclass(frozen=True, kw_only=True)
class Box:
    """A container that stands for a machine with an operating system and nothing else."""

    container: str
    name: str
    address: str
    identity: KeyPair
    login: KeyPair

    @classmethod
    def make(cls, cluster: str, name: str, address: str, login: KeyPair) -> Box:
        """Starts the machine and gives it its keys."""
        container, identity = f"{cluster}-{name}", KeyPair.generate()
        docker(
            *("run", "--detach", "--name", container, "--hostname", name),
            *("--network", "kubepivot", "--ip", address, "--label", f"kubepivot.cluster={cluster}"),
            *shlex.split(RUN_OPTIONS),
            "kubepivot/host:latest",
        )
        box = cls(container=container, name=name, address=address, identity=identity, login=login)
        files = {
            "ssh_host_ed25519_key": File(identity.private, mode=0o600),
            "ssh_host_ed25519_key.pub": File(identity.public, mode=0o644),
            "authorized_keys": File(login.public + "\n", mode=0o600),
        }
        docker(
            *("exec", "--interactive", container, "/usr/local/sbin/host-identity"),
            input=pack(files, compress=False),
        )
        return box

    def config(self, role: str, **changes: Any) -> dict[str, Any]:
        """How the stack's config names the machine."""
        return {
            "role": role,
            "address": self.address,
            "key": self.login.private,
            "hostKey": self.identity.public,
            **changes,
        }

    def run(self, command: str, *, stdin: str = "") -> str:
        """What a command on the machine prints."""
        return docker("exec", "--interactive", self.container, "sh", "-ec", command, input=stdin.encode())
