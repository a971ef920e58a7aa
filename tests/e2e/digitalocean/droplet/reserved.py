"""Gives eth0 the reserved addresses in the file `reserved`, and takes others away.

Standard library only: it runs on the droplet, at every boot and when the file has changed. Neighbours
learn at once where an address is now.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
from pathlib import Path

LINK = "eth0"
LABEL = f"{LINK}:reserved"
ETH_P_ARP = 0x0806
ETH_P_IP = 0x0800


def ip(*arguments: str) -> str:
    """Runs iproute2."""
    return subprocess.run(["ip", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def present() -> set[str]:
    """The reserved addresses that the link has."""
    [link] = json.loads(ip("-json", "-4", "address", "show", "dev", LINK))
    return {each["local"] for each in link["addr_info"] if each["label"] == LABEL}


def announce(address: str) -> None:
    """Tells whoever has another machine's MAC address for it (a gratuitous ARP request)."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((LINK, ETH_P_ARP))
        mac, packed = link.getsockname()[4], socket.inet_aton(address)
        header = b"\xff" * 6 + mac + struct.pack("!H", ETH_P_ARP)
        request = struct.pack("!HHBBH", 1, ETH_P_IP, 6, 4, 1) + mac + packed + bytes(6) + packed
        link.send(header + request)


def main() -> None:
    """Converges."""
    wanted = set(Path(__file__).with_name("reserved").read_text().split())
    for address in present() - wanted:
        ip("address", "delete", f"{address}/32", "dev", LINK)
    for address in wanted - present():
        ip("address", "add", f"{address}/32", "dev", LINK, "label", LABEL)
    for address in wanted:
        announce(address)


if __name__ == "__main__":
    main()
