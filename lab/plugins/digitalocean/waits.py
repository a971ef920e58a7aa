"""How long the official plugin waits between questions, and when it gives up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

LONGEST_STEP = 10.0
ABSENCES = 20
"""How often in a row a thing may not be found while it is waited for."""


class Failed(Exception):
    """What the user is told of an operation that did not end well."""


class Canceled(Failed):
    """The user ended the run."""


class Clock:
    """Time, as waits see it. `cancel` ends every sleep, now and later."""

    def __init__(self) -> None:
        self._cancelled = asyncio.Event()

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; fail when cancelled."""
        try:
            async with asyncio.timeout(seconds):
                await self._cancelled.wait()
        except TimeoutError:
            return
        raise Canceled("canceled")

    def cancel(self) -> None:
        """End what sleeps."""
        self._cancelled.set()


@dataclass(frozen=True, kw_only=True)
class Wait:
    """When to ask: after `delay`, then after steps that double from `least_step` to 10 s. All in seconds."""

    seconds: float
    delay: float = 0.0
    least_step: float = 0.0
    absences: int = ABSENCES


ACTION = Wait(seconds=3600, delay=10, least_step=3, absences=60)
"""For an action of the API to complete."""


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """The end of one operation on a resource, whatever it waits for."""

    clock: Clock
    end: float

    async def wait_for(
        self,
        ask: Callable[[], Awaitable[str | None]],
        wait: Wait,
        *,
        target: str,
        pending: Collection[str],
    ) -> None:
        """Ask until the answer is `target`. None means not found; what is not in `pending` fails."""
        limit = self.clock.now() + wait.seconds
        state: str | None = None
        missing = 0
        step = 0.0
        await self._sleep(wait.delay, limit, wait, target, state)
        while True:
            await self._sleep(step, limit, wait, target, state)
            state = await ask()
            if self.clock.now() >= self.end:
                raise Failed("context deadline exceeded")
            if state == target:
                return
            missing = missing + 1 if state is None else 0
            if missing > wait.absences:
                raise Failed(f"couldn't find resource ({missing} retries)")
            if state is not None and state not in pending:
                raise Failed(f"unexpected state '{state}', wanted target '{target}'. last error: %!s(<nil>)")
            step = 2 * (step or 0.1)
            if step < wait.least_step:
                step = wait.least_step
            elif step > LONGEST_STEP:
                step = LONGEST_STEP

    async def retry(self, attempt: Callable[[], Awaitable[Exception | None]], seconds: float) -> None:
        """Attempt until it returns None; in the end fail with the last thing that it returned."""
        last: Exception | None = None

        async def ask() -> str:
            nonlocal last
            last = await attempt()
            return "done" if last is None else "again"

        try:
            await self.wait_for(ask, Wait(seconds=seconds, least_step=0.5), target="done", pending={"again"})
        except Failed as error:
            if last is None:
                raise
            raise type(error)(str(last)) from last

    async def _sleep(self, seconds: float, limit: float, wait: Wait, target: str, state: str | None) -> None:
        end = min(limit, self.end)
        left = end - self.clock.now()
        if seconds < left:
            await self.clock.sleep(seconds)
            return
        await self.clock.sleep(max(left, 0.0))
        if self.end <= limit:
            raise Failed("context deadline exceeded")
        last = f"last state: '{state}', " if state else ""
        timeout = duration(wait.seconds)
        raise Failed(f"timeout while waiting for state to become '{target}' ({last}timeout: {timeout})")


def duration(seconds: float) -> str:
    """`seconds` as Go writes them: 1h0m0s."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
