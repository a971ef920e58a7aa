"""A real API of processes on this machine."""

from __future__ import annotations

import datetime
import json
import ssl
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from time import monotonic, sleep
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab import toolchain

START_SECONDS = 60

Json = dict[str, Any]


@dataclass
class Api:
    """etcd and kube-apiserver as processes of this machine."""

    directory: Path
    etcd_port: int
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def kubeconfig(self, port: int | None = None) -> str:
        """The administrator's, for another port if one is given."""
        user = {"client-certificate": self._file("admin.crt"), "client-key": self._file("admin.key")}
        cluster = {
            "server": f"https://127.0.0.1:{port or self.port}",
            "certificate-authority": self._file("apiserver.crt"),
        }
        return json.dumps(
            {
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        answer = httpx.request(method, f"https://127.0.0.1:{self.port}{path}", json=body, verify=self._tls())
        assert answer.is_success, answer.text
        found: Json = answer.json()
        return found

    def start(self) -> None:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        self._run(
            "etcd",
            f"--data-dir={self._file('etcd')}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        )
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.directory}",
            f"--client-ca-file={self._file('admin.crt')}",
            f"--service-account-key-file={self._file('admin.key')}",
            f"--service-account-signing-key-file={self._file('admin.key')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.3.0.0/24",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
        )
        self._wait_until_ready()

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(timeout=10)

    def _run(self, name: str, *arguments: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            command = [str(toolchain.ensure(name)), *arguments]
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _wait_until_ready(self) -> None:
        end = monotonic() + START_SECONDS
        while monotonic() < end:
            try:
                if httpx.get(f"https://127.0.0.1:{self.port}/readyz", verify=self._tls()).is_success:
                    return
            except (FileNotFoundError, httpx.TransportError):  # its certificate is made when it starts
                assert self.processes["kube-apiserver"].poll() is None, self._file("kube-apiserver.log")
            sleep(0.1)
        raise AssertionError(f"no answer in {START_SECONDS} s, see {self._file('kube-apiserver.log')}")

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._file("apiserver.crt"))
        context.load_cert_chain(self._file("admin.crt"), self._file("admin.key"))
        return context

    def _file(self, name: str) -> str:
        return str(self.directory / name)


def free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_admin(directory: Path) -> None:
    """A key and a certificate of an administrator that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"),
            x509.NameAttribute(NameOID.COMMON_NAME, "admin"),
        ]
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "admin.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "admin.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
