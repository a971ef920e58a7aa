"""A SO_REUSEPORT filter: new connections at a shared port go to the process that serves, until the newest one
is ready.

The kernel gives every process that shares a port (SO_REUSEPORT) connections from when it listens until it
closes. But a kube-apiserver listens before it has read the cluster's roles, so that for a second it answers
403 to whom it would let in later, and one that ends refuses requests for a moment before it closes. With this
a newcomer gets no connection until its `/readyz` says 200, and from then on all of them.

Not so at `localhost`, 127.0.0.1 and ::1. There the newcomer answers from the start, since a kube-apiserver
that starts asks itself, and ends if another one answers. So those that start do it one after the other.

Standard library only: `python3 reuseport.py PORT BEGUN` runs beside each process that is about to share the
port, as the same user. It makes the file BEGUN when that process may start. An older and a newer version of
it share the port during a roll: the addresses, TURN and what the filter does stay what they are.
"""

import ctypes
import http.client
import select
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

NEWCOMER, INCUMBENT = "127.0.0.1", "127.0.0.2"
"""Addresses where the newest answers, and the one that serves, to those on the same host."""
EACH = "127.0.64.0"
"""The first of 256 addresses: the process with that number answers, counted from 0."""
ITSELF = "apiserver-loopback-client"
"""Asked for this name, each process shows a certificate that it has made for itself at its start."""
TURN = "\0port-steering-{port}"
"""The socket of the process whose turn it is to start: of the host's network, and gone with the process."""
CONTAINER = "reuseport-filter"
"""The container beside kube-apiserver in which this runs, and the ConfigMap that brings it."""
TURN_SECONDS = 60
"""How long one that starts keeps the next one from it. A kube-apiserver is ready in 10 s, or not at all."""
ASK_SECONDS = 2.0
LOOK_SECONDS = {False: 0.1, True: 0.5}
"""How often it looks before its process is ready, and after. One that starts anew takes longer to listen."""

BYTE, WORD, AND, SUBTRACT = 0x30, 0x20, 0x54, 0x14
IF_EQUAL, IF_NOT_LESS, RETURN, RETURN_VALUE = 0x15, 0x35, 0x06, 0x16
"""Of classic BPF: what is at an address, arithmetic, jumps, ends."""
HEADER = 0x100000000 - 0x100000
"""SKF_NET_OFF: of IPv4 or IPv6, by the first four bits."""
SO_ATTACH_REUSEPORT_CBPF = 51
TABLES = {socket.AF_INET6: "/proc/net/tcp6", socket.AF_INET: "/proc/net/tcp"}
"""Programs in Go listen at [::] for IPv4 too, unless the host has no IPv6."""


class Choice(NamedTuple):
    """The numbers of those who answer. When a process ends, the last one gets its number.

    As long as nobody has that number, anybody answers.
    """

    newcomer: int
    incumbent: int

    def program(self) -> tuple[tuple[int, int, int, int], ...]:
        """The filter in classic BPF: what to do, how far to jump if so and if not, a value."""
        return (
            (BYTE, 0, 0, HEADER),
            (AND, 0, 0, 0xF0),
            (IF_EQUAL, 0, 2, 6 << 4),
            (WORD, 0, 0, HEADER + 24),  # the destination in IPv6; only ::1 begins with zeros
            (IF_EQUAL, 5, 6, 0),
            (WORD, 0, 0, HEADER + 16),  # the destination in IPv4
            (IF_EQUAL, 3, 0, _number(NEWCOMER)),
            (SUBTRACT, 0, 0, _number(EACH)),
            (IF_NOT_LESS, 2, 0, 256),
            (RETURN_VALUE, 0, 0, 0),
            (RETURN, 0, 0, self.newcomer),
            (RETURN, 0, 0, self.incumbent),
        )


def _number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address), "big")


class Process(NamedTuple):
    """One that listens, known by its certificate. That is None as long as it has not answered."""

    certificate: bytes | None
    ready: bool


def ask(address: str, port: int) -> Process:
    """Who answers there, and whether it is ready, over one connection."""
    certificate = None
    # Signed by itself, it tells one process from the others, and nothing else.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        suppress(OSError, http.client.HTTPException),
        socket.create_connection((address, port), ASK_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=ITSELF) as encrypted,
    ):
        certificate = encrypted.getpeercert(binary_form=True)
        client = http.client.HTTPConnection("localhost")
        client.sock = encrypted
        client.request("GET", "/readyz")
        return Process(certificate, client.getresponse().status == 200)
    return Process(certificate, ready=False)


def listeners(family: socket.AddressFamily, port: int) -> int:
    """How many sockets of that family listen at the port on this host."""
    count, table = 0, Path(TABLES[family])
    if table.exists():
        with table.open() as rows:
            next(rows)
            for row in map(str.split, rows):
                if row[3] != "0A":  # those that listen come first
                    break
                count += int(row[1].rpartition(":")[2], 16) == port
    return count


def attach(family: socket.AddressFamily, port: int, choice: Choice) -> None:
    """Leaves the filter with the sockets of that family at the port. There has to be one.

    OSError if they do not share it with this process.
    """
    code = b"".join(struct.pack("HBBI", *step) for step in choice.program())
    kept = ctypes.create_string_buffer(code, len(code))
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("", port))
        # Those that share a port are one group, with one filter, and one joins by listening.
        listener.listen()
        program = struct.pack("HP", len(code) // 8, ctypes.addressof(kept))
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)


class PortFilter:
    """Keeps the filter of a port right. It knows the processes there: its own one, those that were there
    before, and any that come later.
    """

    def __init__(self, port: int) -> None:
        """Whoever serves goes on to, and the next one will be the newcomer."""
        self._port = port
        self._own: bytes | None = None
        self._applied: tuple[int, Choice] | None = None
        self._settled = False
        self.ready = False
        """Whether its own process is ready, or was when it went."""
        self._serving = ask(INCUMBENT, port).certificate
        # Where no filter was left before, it takes one to have them answer by number.
        for _ in range(2):
            found = self._processes()
            self._apply(len(found), Choice(len(found), _index(found, self._serving)))
        self._before = {process.certificate for process in self._processes()} - {None}

    def look(self) -> None:
        """Sees who is there now, and sets the filter accordingly."""
        if self._settled and self._applied is not None and self._count() == self._applied[0]:
            return
        found = self._processes()
        certificates = [process.certificate for process in found]
        if self._own not in certificates:
            if self._own and None in certificates:
                return  # one did not answer in time: which one?
            self._own = next((each for each in certificates if each and each not in self._before), None)
            self._settled = False
        own = certificates.index(self._own) if self._own else None
        if own is not None and found[own].ready:
            self._settled = self.ready = True
        newcomers = [i for i, each in enumerate(certificates) if each not in self._before]
        alone = self._settled and len(found) == 1
        self._apply(
            len(found),
            Choice(
                newcomer=newcomers[-1] if newcomers and not alone else len(found),
                incumbent=own if own is not None and self._settled else _index(found, self._serving),
            ),
        )

    def _apply(self, count: int, choice: Choice) -> None:
        # With the last one the filter goes, too, and where nobody listens there is nobody to choose from.
        if count and (count, choice) != self._applied:
            attach(self._family(), self._port, choice)
            print(
                f"{count} listen at port {self._port}: number {choice.newcomer} answers at localhost,"
                f" number {choice.incumbent} elsewhere",
                flush=True,
            )
        self._applied = (count, choice) if count else None

    def _family(self) -> socket.AddressFamily:
        return next((family for family in TABLES if listeners(family, self._port)), socket.AF_INET)

    def _count(self) -> int:
        return listeners(self._family(), self._port)

    def _processes(self) -> list[Process]:
        first = _number(EACH)
        return [
            ask(socket.inet_ntoa((first + number).to_bytes(4, "big")), self._port)
            for number in range(self._count())
        ]


def _index(processes: list[Process], certificate: bytes | None) -> int:
    """The number of that one; if it is gone, of the one that is ready, or else of the oldest."""
    certificates = [process.certificate for process in processes]
    if certificate in certificates:
        return certificates.index(certificate)
    return next((i for i, process in enumerate(processes) if process.ready), 0)


@contextmanager
def turn(port: int) -> Iterator[Callable[[float], bool]]:
    """Waits until no other process is about to start at the port, at most for TURN_SECONDS.

    Gives a function that tells within so many seconds whether the next one has asked for its turn.
    """
    name = TURN.format(port=port)
    deadline = time.monotonic() + TURN_SECONDS
    with socket.socket(socket.AF_UNIX) as place:
        waits_at = [place]
        while True:
            try:
                place.bind(name)
                place.listen()
                break
            except OSError:
                if (left := deadline - time.monotonic()) <= 0:
                    print(f"went on after {TURN_SECONDS} s, while another one was not ready", flush=True)
                    waits_at = []
                    break
                _wait_for_end(name, left)
        asked = False

        def has_asked(seconds: float) -> bool:
            nonlocal asked
            asked = bool(select.select([] if asked else waits_at, [], [], seconds)[0]) or asked
            return asked

        yield has_asked


def _wait_for_end(name: str, seconds: float) -> None:
    """Until whoever listens there closes."""
    with socket.socket(socket.AF_UNIX) as other, suppress(OSError):
        other.settimeout(seconds)
        other.connect(name)
        other.recv(1)


def main(port: int, begun: Path) -> None:
    """Keeps the filter right until the next one takes over, and ends by SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with turn(port) as asked:
        port_filter = PortFilter(port)
        begun.touch()
        while not (asked(LOOK_SECONDS[port_filter.ready]) and port_filter.ready):
            port_filter.look()
    # Its own process runs on, and a container that ended would start anew.
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
