"""Addresses to hand out."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from tests.e2e.digitalocean.calls import Refused


class Pool:
    """Addresses of the first quarters of a network, from its .2 on, for .1 is the gateway; or `only` some.

    One that comes back is the last to go again: who still speaks to the old owner shall not reach a new one.
    """

    def __init__(self, network: str, *, quarters: int = 4, only: Sequence[str] = ()) -> None:
        self.network = ipaddress.IPv4Network(network)
        end = min(self.network.num_addresses * quarters // 4, self.network.num_addresses - 1)
        self._fresh = iter(only or [str(self.network[number]) for number in range(2, end)])
        self._returned: list[str] = []

    @property
    def gateway(self) -> str:
        return str(self.network[1])

    @property
    def netmask(self) -> str:
        return str(self.network.netmask)

    def take(self) -> str:
        if address := next(self._fresh, None):
            return address
        if not self._returned:
            raise Refused(422, f"no address is left in {self.network}")
        return self._returned.pop(0)

    def give_back(self, address: str) -> None:
        self._returned.append(address)
