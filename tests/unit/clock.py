"""Time that goes by only while somebody sleeps, for what waits for a cluster."""

from __future__ import annotations


class Clock:
    """A clock that every sleep advances."""

    now = 1000.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
