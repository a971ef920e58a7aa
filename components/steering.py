"""Steers new connections at a shared port to the process that has listened longest.

The kernel gives every process that shares a port (SO_REUSEPORT) connections as soon as it listens, and a
kube-apiserver listens before it has read the cluster's roles: for a second it answers 403 to whom it would
let in later. With this a newcomer gets no connection until its predecessor stops listening, but for those to
`localhost`, 127.0.0.1 and ::1. There the newcomer answers, since a kube-apiserver that starts asks itself,
and ends if another one answers. Its own startup probe asks there too. While nobody is new the other one does.

Standard library only: `python3 steering.py PORT` runs in each pod that is about to share the port, as the
same user. It leaves a filter with those that listen by then; where none does there is nobody to choose from.
"""

import ctypes
import socket
import struct
import sys
from pathlib import Path

BYTE, WORD, AND, IF_EQUAL, RETURN = 0x30, 0x20, 0x54, 0x15, 0x06
"""Of classic BPF: what is at an address, a mask, two jumps, an end."""
HEADER = 0x100000000 - 0x100000
"""SKF_NET_OFF: of IPv4 or IPv6, by the first four bits."""
SO_ATTACH_REUSEPORT_CBPF = 51
NEWCOMER, INCUMBENT = "127.0.0.1", "127.0.0.2"
"""Addresses where either answers to those on the same host."""
OLDEST = 0
"""A number in the order of listening, which the last takes over when the first ends."""
TABLES = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}
"""Programs in Go listen at [::] for IPv4 too, unless the host has no IPv6."""


def steps(newest: int) -> tuple[tuple[int, int, int, int], ...]:
    """The filter for a newcomer of that number. As long as it is not there, any answers at `localhost`."""
    return (
        (BYTE, 0, 0, HEADER),
        (AND, 0, 0, 0xF0),
        (IF_EQUAL, 0, 2, 6 << 4),
        (WORD, 0, 0, HEADER + 24),  # of the destination in IPv6; no host's address but ::1 begins with zeros
        (IF_EQUAL, 2, 3, 0),
        (WORD, 0, 0, HEADER + 16),  # the destination in IPv4
        (IF_EQUAL, 0, 1, int.from_bytes(socket.inet_aton(NEWCOMER), "big")),
        (RETURN, 0, 0, newest),
        (RETURN, 0, 0, OLDEST),
    )


def listeners(family: socket.AddressFamily, port: int) -> int:
    """How many sockets of that family listen at the port on this host."""
    table = Path(TABLES[family])
    rows = [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
    return sum(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows)


def attach(family: socket.AddressFamily, port: int, newest: int) -> None:
    """Leaves the filter with the sockets of that family at the port.

    OSError if they do not share it with this process.
    """
    code = b"".join(struct.pack("HBBI", *step) for step in steps(newest))
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


def steer(port: int) -> None:
    """Leaves the filter with the port, if somebody listens there."""
    for family in TABLES:
        if count := listeners(family, port):
            attach(family, port, newest=count)


if __name__ == "__main__":
    steer(int(sys.argv[1]))
