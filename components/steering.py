"""Steers new connections at a shared port to the process that has listened longest.

The kernel gives every process that shares a port (SO_REUSEPORT) connections as soon as it listens, and a
kube-apiserver listens before it has read the cluster's roles: for a second it answers 403 to whom it would
let in later. With this a newcomer gets no connection until its predecessor stops listening, but for those to
two addresses. At 127.0.0.2 it alone answers, so that its own probe can see it start; while nobody is new, the
other one does. At 127.0.0.1 any of them answers, since a kube-apiserver looks for itself there.

Standard library only: `python3 steering.py PORT` runs in each pod that is about to share the port, as the
same user. It leaves a filter with those that listen by then; where none does there is nobody to choose from.
"""

import ctypes
import socket
import struct
import sys
from pathlib import Path

LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
"""Of classic BPF: a word at an address, two jumps, an end."""
DESTINATION = 0x100000000 - 0x100000 + 16
"""Of the IPv4 header, which SKF_NET_OFF is the beginning of."""
SO_ATTACH_REUSEPORT_CBPF = 51
OLDEST, NEWEST, ANY = 0, 1, 0xFFFF
"""Numbers in the order of listening, of two at most; there are never so many that ANY is one of them."""
TABLES = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}
"""Programs in Go listen at [::] for IPv4 too, unless the host has no IPv6."""


def address(text: str) -> int:
    """An IPv4 address as the filter sees it."""
    return int.from_bytes(socket.inet_aton(text), "big")


FILTER = (
    (LOAD, 0, 0, DESTINATION),
    (IF_EQUAL, 0, 1, address("127.0.0.1")),
    (RETURN, 0, 0, ANY),
    (IF_EQUAL, 0, 1, address("127.0.0.2")),
    (RETURN, 0, 0, NEWEST),
    (RETURN, 0, 0, OLDEST),
)


def is_listening(family: socket.AddressFamily, port: int) -> bool:
    """Whether a socket of that family listens at the port on this host."""
    table = Path(TABLES[family])
    rows = [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
    return any(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows)


def attach(family: socket.AddressFamily, port: int) -> None:
    """Leaves the filter with the sockets of that family at the port.

    OSError if they do not share it with this process.
    """
    steps = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in FILTER))
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("", port))
        # Those that share a port are one group, with one filter, and one joins by listening.
        listener.listen()
        program = struct.pack("HP", len(FILTER), ctypes.addressof(steps))
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)


def steer(port: int) -> None:
    """Leaves the filter with the port, if somebody listens there."""
    for family in TABLES:
        if is_listening(family, port):
            attach(family, port)


if __name__ == "__main__":
    steer(int(sys.argv[1]))
