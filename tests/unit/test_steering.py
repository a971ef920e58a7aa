"""Who gets a connection at a port that several processes share, by the kernel of this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from components.steering import steer

ELSEWHERE = "127.0.0.9"
"""As any address of the host: not one of the two that are special."""


class Port:
    """A free port of this machine, and those that listen there for IPv4."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self._family, self._open = family, ExitStack()
        with socket.socket() as unused:
            unused.bind(("", 0))
            self.number = unused.getsockname()[1]

    def listen(self) -> socket.socket:
        """One more that shares the port."""
        listener = self._open.enter_context(socket.socket(self._family))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self._family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("", self.number))
        listener.listen(64)
        listener.setblocking(False)
        return listener

    def counts(self, address: str, *listeners: socket.socket) -> list[int]:
        """How many of 40 connections each gets."""
        with ExitStack() as clients:
            for _ in range(40):
                clients.enter_context(socket.create_connection((address, self.number), timeout=5))
            return [len(list(_accepted(listener))) for listener in listeners]

    def close(self) -> None:
        self._open.close()


def _accepted(listener: socket.socket) -> Iterator[None]:
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return
        yield


FAMILIES = [socket.AF_INET, *([socket.AF_INET6] if socket.has_dualstack_ipv6() else [])]


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def port(request: pytest.FixtureRequest) -> Iterator[Port]:
    port = Port(request.param)
    yield port
    port.close()


def test_without_steering_a_newcomer_gets_its_share(port: Port) -> None:
    old, new = port.listen(), port.listen()
    assert min(port.counts(ELSEWHERE, old, new)) > 0


def test_a_newcomer_gets_connections_when_its_predecessor_has_ended(port: Port) -> None:
    old = port.listen()
    steer(port.number)
    assert port.counts(ELSEWHERE, old) == [40]
    new = port.listen()
    assert port.counts(ELSEWHERE, old, new) == [40, 0]
    old.close()
    assert port.counts(ELSEWHERE, new) == [40]
    # And so on, whether or not each one steers.
    newest = port.listen()
    assert port.counts(ELSEWHERE, new, newest) == [40, 0]
    steer(port.number)
    assert port.counts(ELSEWHERE, new, newest) == [40, 0]


def test_a_newcomer_that_crashes_costs_nothing(port: Port) -> None:
    old = port.listen()
    steer(port.number)
    for _ in range(3):
        new = port.listen()
        assert port.counts(ELSEWHERE, old, new) == [40, 0]
        new.close()
        assert port.counts(ELSEWHERE, old) == [40]


def test_the_newcomer_alone_answers_its_probe(port: Port) -> None:
    old = port.listen()
    steer(port.number)
    assert port.counts("127.0.0.2", old) == [40]
    new = port.listen()
    assert port.counts("127.0.0.2", old, new) == [0, 40]


def test_any_answers_at_the_loopback(port: Port) -> None:
    old = port.listen()
    steer(port.number)
    new = port.listen()
    assert min(port.counts("127.0.0.1", old, new)) > 0


def test_where_nobody_listens_nothing_is_left(port: Port) -> None:
    """Nor does the one that steers listen meanwhile: what it got would be lost."""
    steer(port.number)
    first, second = port.listen(), port.listen()
    assert min(port.counts(ELSEWHERE, first, second)) > 0


def test_a_port_that_is_not_shared_is_an_error() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            steer(other.getsockname()[1])
