"""Who gets a connection at a port that several processes share, by the kernel of this machine."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.programs import reuseport
from components.programs.reuseport import INCUMBENT, NEWCOMER, ask, turn
from tests.sweeps import swept

ELSEWHERE = "127.0.0.9"
"""As any address of the host but those of `localhost`."""
FAMILIES = [*([socket.AF_INET6] if socket.has_dualstack_ipv6() else []), socket.AF_INET]


def _certificate() -> tuple[bytes, bytes]:
    """What a process makes for itself at its start: PEM with its key, and DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "apiserver")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + made.public_bytes(serialization.Encoding.PEM), made.public_bytes(
        serialization.Encoding.DER
    )


class Apiserver:
    """A process that listens at once, serves when it is told to, and says whether it is ready."""

    def __init__(self, family: socket.AddressFamily, port: int, directory: Path, *, shared: bool) -> None:
        pem, self.certificate = _certificate()
        path = directory / f"{len(list(directory.iterdir()))}.pem"
        path.write_bytes(pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(path)
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        if family == socket.AF_INET6:
            self._listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._listener.bind(("", port))
        self._listener.listen(64)
        self._thread: threading.Thread | None = None
        self.ready = False

    def serve(self, *, ready: bool) -> Apiserver:
        self.ready = ready
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(2)
            try:
                with self._context.wrap_socket(connection, server_side=True) as encrypted:
                    encrypted.recv(4096)
                    status = b"200 OK" if self.ready else b"500 Internal Server Error"
                    encrypted.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            except OSError:  # its client has gone
                connection.close()

    def end(self) -> None:
        # To close it would not wake up who waits for a connection.
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._thread:
            self._thread.join(timeout=10)


class Beside:
    """The program, as it runs beside an apiserver."""

    def __init__(self, port: int, begun: Path) -> None:
        self._begun, self._output = begun, begun.with_suffix(".log")
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, reuseport.__file__, str(port), str(begun)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        return self._output.read_text()

    def has_begun(self) -> bool:
        assert self.process.poll() is None, self.output()
        return self._begun.exists()

    def sees_one(self) -> bool:
        """One that serves, and that another may come."""
        lines = self.output().splitlines()
        return lines[-1:] != [] and re.match("1 listen .* number 1 .* number 0 ", lines[-1]) is not None

    def end(self) -> str:
        self.process.terminate()
        assert self.process.wait(timeout=5) == 0, self.output()
        return self.output()


class Port:
    """A free port of this machine, and those that listen there."""

    def __init__(self, family: socket.AddressFamily, directory: Path, clean: ExitStack) -> None:
        self.family, self._directory, self._clean = family, directory, clean
        (directory / "pem").mkdir()
        with socket.socket() as unused:
            unused.bind(("", 0))
            self.number = unused.getsockname()[1]

    def listen(self, *, shared: bool = True) -> Apiserver:
        """One more at the port."""
        server = Apiserver(self.family, self.number, self._directory / "pem", shared=shared)
        self._clean.callback(server.end)
        return server

    def beside(self) -> Beside:
        """The program beside the next one."""
        each = Beside(self.number, self._directory / f"begun-{len(list(self._directory.iterdir()))}")
        self._clean.callback(_end, each.process)
        return each

    def prepare(self) -> Beside:
        each = self.beside()
        eventually(each.has_begun)
        return each

    def counts(self, address: str, *servers: Apiserver) -> list[int]:
        """How many of 20 connections each gets."""
        answers = [ask(address, self.number).certificate for _ in range(20)]
        assert None not in answers
        return [answers.count(server.certificate) for server in servers]

    def reaches(self, server: Apiserver) -> Callable[[], bool]:
        """Whether it gets connections."""
        return lambda: ask(ELSEWHERE, self.number).certificate == server.certificate


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(timeout=5)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(params=swept(FAMILIES), ids=lambda family: family.name)
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Port]:
    with ExitStack() as clean:
        yield Port(request.param, tmp_path, clean)


def test_without_a_filter_a_newcomer_gets_its_share(port: Port) -> None:
    old, new = port.listen().serve(ready=True), port.listen().serve(ready=False)
    eventually(lambda: min(port.counts(ELSEWHERE, old, new)) > 0)


@pytest.mark.parametrize("localhost", swept([NEWCOMER, "::1"]))
def test_a_newcomer_gets_all_connections_as_soon_as_it_is_ready(port: Port, localhost: str) -> None:
    if localhost == "::1" and port.family == socket.AF_INET:
        pytest.skip("who listens for IPv4 has no ::1")
    old = port.listen().serve(ready=True)
    for _ in range(2):
        port.prepare()
        assert port.counts(ELSEWHERE, old) == [20]
        new = port.listen()
        assert port.counts(ELSEWHERE, old) == [20]
        new.serve(ready=False)
        assert port.counts(ELSEWHERE, old, new) == [20, 0]
        # Itself, too: its own client gives up if another one answers.
        assert port.counts(localhost, old, new) == [0, 20]
        assert port.counts(INCUMBENT, old, new) == [20, 0]
        new.ready = True
        eventually(port.reaches(new))
        for address in (ELSEWHERE, INCUMBENT, localhost):
            assert port.counts(address, old, new) == [0, 20]
        old.end()
        assert port.counts(ELSEWHERE, new) == [20]
        old = new


def test_elsewhere_in_ipv6_as_in_ipv4(port: Port) -> None:
    addresses = _global_addresses()
    if port.family == socket.AF_INET or not addresses:
        pytest.skip("no address of IPv6 but ::1")
    old = port.listen().serve(ready=True)
    port.prepare()
    new = port.listen().serve(ready=False)
    assert port.counts(addresses[0], old, new) == [20, 0]


def _global_addresses() -> list[str]:
    """Of this machine, for IPv6: in its table 00 is their scope."""
    table = Path("/proc/net/if_inet6")
    rows = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
    return [socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0])) for row in rows if row[3] == "00"]


def test_a_newcomer_that_crashes_costs_nothing(port: Port) -> None:
    """It starts anew beside the same program. A crash when it was ready is no other thing."""
    old = port.listen().serve(ready=True)
    program = port.prepare()
    for ready in (False, False, True, False):
        new = port.listen().serve(ready=False)
        assert port.counts(ELSEWHERE, old, new) == [20, 0]
        if ready:
            new.ready = True
            eventually(port.reaches(new))
        new.end()
        assert port.counts(ELSEWHERE, old) == [20]
        # Sooner than the next one can listen.
        eventually(program.sees_one, 2 + reuseport.LOOK_SECONDS[ready])


def test_of_three_each_is_told_apart_whoever_ends(port: Port) -> None:
    """After a power cut in a roll: a checkpoint, and two real ones. When one ends numbers change."""
    first, second = port.listen().serve(ready=True), port.listen().serve(ready=True)
    port.prepare()
    serving = ask(ELSEWHERE, port.number).certificate
    third = port.listen().serve(ready=False)
    eventually(lambda: port.counts(NEWCOMER, third) == [20])
    stays, goes = (first, second) if serving == first.certificate else (second, first)
    assert port.counts(ELSEWHERE, stays, goes, third) == [20, 0, 0]
    goes.end()
    eventually(lambda: port.counts(NEWCOMER, third) == [20])
    assert port.counts(ELSEWHERE, stays, third) == [20, 0]
    third.ready = True
    eventually(lambda: port.counts(ELSEWHERE, third) == [20])
    assert port.counts(NEWCOMER, stays, third) == [0, 20]


def test_who_comes_without_a_filter_is_a_newcomer_too(port: Port) -> None:
    """The temporary one, at a recovery."""
    program = port.prepare()
    old = port.listen().serve(ready=True)
    eventually(program.sees_one)
    temporary = port.listen().serve(ready=False)
    eventually(lambda: port.counts(NEWCOMER, old, temporary) == [0, 20])
    assert port.counts(ELSEWHERE, old, temporary) == [20, 0]


def test_those_that_start_do_it_one_after_the_other(port: Port) -> None:
    port.listen().serve(ready=True)
    first, second = port.prepare(), port.beside()
    new = port.listen().serve(ready=False)
    eventually(lambda: port.counts(NEWCOMER, new) == [20])
    assert not second.has_begun()
    new.ready = True
    eventually(second.has_begun)
    # The first one has nothing to do any more, and ends with its pod.
    assert first.end()


def test_the_turn_of_one_that_ends_goes_to_the_next(port: Port) -> None:
    first, second = port.prepare(), port.beside()
    time.sleep(0.5)
    assert not second.has_begun()
    first.end()
    eventually(second.has_begun)


def test_one_that_never_gets_ready_does_not_keep_the_next_one_for_ever(
    port: Port, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reuseport, "TURN_SECONDS", 0.3)
    began = time.monotonic()
    with turn(port.number) as first, turn(port.number) as second:
        assert time.monotonic() - began >= 0.3
        # It would end its turn as soon as it is ready. Until then it looks no more often than before.
        assert first(1)
        began = time.monotonic()
        assert first(0.2)
        assert not second(0.2)
        assert time.monotonic() - began >= 0.4
    assert "went on after 0.3 s" in capsys.readouterr().out


def test_what_two_generations_share_in_a_roll_stays_what_it_is() -> None:
    """A cluster that is taken over has the other one at the same port: both wait for the same turn and ask at
    the same addresses.
    """
    assert (NEWCOMER, INCUMBENT, reuseport.EACH) == ("127.0.0.1", "127.0.0.2", "127.0.64.0")
    assert reuseport.ITSELF == "apiserver-loopback-client"
    assert reuseport.TURN.format(port=6443) == "\0port-steering-6443"


def test_where_nobody_listens_nothing_is_left(port: Port) -> None:
    """Nor does the program listen meanwhile: what it got would be lost."""
    assert port.prepare().end() == ""
    first, second = port.listen().serve(ready=True), port.listen().serve(ready=True)
    eventually(lambda: min(port.counts(ELSEWHERE, first, second)) > 0)


def test_a_port_that_is_not_shared_is_an_error(port: Port) -> None:
    port.listen(shared=False).serve(ready=True)
    each = port.beside()
    assert each.process.wait(timeout=15) == 1
    assert "OSError: [Errno 98]" in each.output()
