"""Who gets a connection at a port that several processes share, by the kernel of this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from components.steering import INCUMBENT, NEWCOMER, steer

ELSEWHERE = "127.0.0.9"
"""As any address of the host but those of `localhost`."""


class Port:
    """A free port of this machine, and those that listen there for IPv4."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self.family, self._open = family, ExitStack()
        with socket.socket() as unused:
            unused.bind(("", 0))
            self.number = unused.getsockname()[1]

    def listen(self) -> socket.socket:
        """One more that shares the port."""
        listener = self._open.enter_context(socket.socket(self.family))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self.family == socket.AF_INET6:
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
    new.close()
    steer(port.number)
    last = port.listen()
    assert port.counts(ELSEWHERE, newest, last) == [40, 0]


def test_a_newcomer_that_crashes_costs_nothing(port: Port) -> None:
    old = port.listen()
    steer(port.number)
    for _ in range(3):
        new = port.listen()
        assert port.counts(ELSEWHERE, old, new) == [40, 0]
        new.close()
        assert port.counts(ELSEWHERE, old) == [40]


@pytest.mark.parametrize("address", [NEWCOMER, "::1"])
def test_at_localhost_the_newcomer_alone_answers(port: Port, address: str) -> None:
    """Itself, too: its own client gives up if another one answers."""
    if address == "::1" and port.family == socket.AF_INET:
        pytest.skip("who listens for IPv4 has no ::1")
    old = port.listen()
    steer(port.number)
    assert port.counts(address, old) == [40]
    new = port.listen()
    assert port.counts(address, old, new) == [0, 40]
    assert port.counts(INCUMBENT, old, new) == [40, 0]
    old.close()
    assert port.counts(address, new) == [40]


def test_elsewhere_in_ipv6_the_oldest_answers(port: Port) -> None:
    addresses = _global_addresses()
    if port.family == socket.AF_INET or not addresses:
        pytest.skip("no address of IPv6 but ::1")
    old = port.listen()
    steer(port.number)
    new = port.listen()
    assert port.counts(addresses[0], old, new) == [40, 0]


def _global_addresses() -> list[str]:
    """Of this machine, for IPv6: in its table 00 is their scope."""
    table = Path("/proc/net/if_inet6")
    rows = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
    return [socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0])) for row in rows if row[3] == "00"]


def test_a_third_finds_itself_too(port: Port) -> None:
    """After a power cut in a hand-over: a checkpoint, the temporary one, and the real one."""
    first, second = port.listen(), port.listen()
    steer(port.number)
    third = port.listen()
    assert port.counts(ELSEWHERE, first, second, third) == [40, 0, 0]
    assert port.counts(NEWCOMER, first, second, third) == [0, 0, 40]
    first.close()
    assert sum(port.counts(ELSEWHERE, second, third)) == 40
    second.close()
    assert port.counts(ELSEWHERE, third) == port.counts(NEWCOMER, third) == [40]


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
