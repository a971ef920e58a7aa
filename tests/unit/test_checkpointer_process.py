"""The pod-checkpointer as a process: how it asks the API, that only one works, and that it ends when told."""

from __future__ import annotations

import http.server
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import IO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.programs.checkpointer import checkpointer
from components.programs.checkpointer.checkpointer import LocalApi, Unavailable
from tests.cases import CHECKOUT

ANSWERS = {"/pods": (200, b'{"items": []}'), "/sick": (500, b"etcd is gone"), "/odd": (200, b"<html>")}


@pytest.fixture
def pem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate for 127.0.0.1 that signs itself: authority, server and kubelet in one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = tmp_path / "pem"
    path.write_bytes(
        certificate.public_bytes(encoding) + key.private_bytes(encoding, form, serialization.NoEncryption())
    )
    monkeypatch.setattr(checkpointer, "CA", path)
    monkeypatch.setattr(checkpointer, "CLIENT", path)
    return path


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS.get(self.path, (404, b"none"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def api(pem: Path) -> Iterator[LocalApi]:
    """An API that wants the kubelet's certificate."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pem)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield LocalApi(server.server_address[1])
        server.shutdown()
        thread.join(timeout=10)


def test_objects_are_asked_for_as_the_kubelet(api: LocalApi) -> None:
    assert api.get("/pods") == {"items": []}
    assert api.get("/none") is None
    assert api.answers()


@pytest.mark.parametrize(("path", "reason"), [("/sick", "500 etcd is gone"), ("/odd", "JSONDecodeError")])
def test_an_api_that_does_not_tell_is_no_dead_one(api: LocalApi, path: str, reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        api.get(path)
    assert api.answers()


def test_a_port_where_nobody_listens_is_dead(pem: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        api = LocalApi(held.getsockname()[1])
        with pytest.raises(Unavailable, match="ConnectionRefusedError"):
            api.get("/pods")
        assert not api.answers()


def test_a_port_where_nobody_answers_is_dead(pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kube-apiserver that starts listens long before it serves."""
    monkeypatch.setattr(checkpointer, "REQUEST_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = LocalApi(silent.getsockname()[1])
        assert not api.answers()


def _start(directory: Path) -> tuple[subprocess.Popen[str], IO[str]]:
    program = (
        "from pathlib import Path; from components.programs.checkpointer import checkpointer as c;"
        f"c.DIRECTORY = Path({str(directory)!r}); c.main(['controller-1', '1'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout


def test_one_works_and_the_next_takes_over_when_it_ends(tmp_path: Path) -> None:
    first, of_first = _start(tmp_path)
    assert [of_first.readline() for _ in range(2)] == [
        "waiting for the lock\n",
        "watching the pods of controller-1\n",
    ]
    second, of_second = _start(tmp_path)
    assert of_second.readline() == "waiting for the lock\n"
    assert second.poll() is None
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=10) == 0
    assert of_second.readline() == "watching the pods of controller-1\n"
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=10) == 0
    for output in (of_first, of_second):
        output.close()


def test_one_that_waits_ends_when_told(tmp_path: Path) -> None:
    first, of_first = _start(tmp_path)
    assert of_first.readline() and of_first.readline()
    second, of_second = _start(tmp_path)
    assert of_second.readline() == "waiting for the lock\n"
    for process, output in ((second, of_second), (first, of_first)):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        output.close()
