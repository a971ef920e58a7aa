"""What a test may order to go wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from tests.e2e.digitalocean import droplets
from tests.e2e.digitalocean.account import Account, Action
from tests.e2e.digitalocean.calls import Refused


@dataclass
class Hold:
    """An answer that is kept back: what was asked is `done`, and not answered before it is released."""

    done: Event
    released: bool = False


@dataclass(kw_only=True)
class Fault:
    """One order."""

    method: str
    path: re.Pattern[str]
    left: int | None
    refusal: Refused | None = None
    seconds: float = 0
    loses_answer: bool = False
    hold: Hold | None = None


class Faults:
    """Orders for requests to come, and mishaps.

    `path` is a regular expression that matches a whole path, without the query. An order is for the next
    `times` requests that match it, or for all (None). Of several that match, the oldest is carried out.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._ordered: list[Fault] = []

    def refuse(
        self, method: str, path: str, status: int, *, times: int | None = 1, message: str = "refused by order"
    ) -> None:
        """Answers with an error, and does nothing."""
        self._order(method, path, times, refusal=Refused(status, message))

    def limit(self, method: str, path: str, retry_after: int, *, times: int | None = 1) -> None:
        """Answers 429, to ask again after some seconds, and does nothing."""
        self._order(method, path, times, refusal=Refused(429, "API rate limit exceeded.", retry_after))

    def delay(self, method: str, path: str, seconds: float, *, times: int | None = 1) -> None:
        """Begins late with what is asked."""
        self._order(method, path, times, seconds=seconds)

    def lose_answer(self, method: str, path: str, *, times: int | None = 1) -> None:
        """Does what is asked, then cuts the connection without an answer."""
        self._order(method, path, times, loses_answer=True)

    @contextmanager
    def hold_answer(self, method: str, path: str, *, times: int | None = 1) -> Iterator[Event]:
        """Does what requests that match ask, the first of which sets the event, and answers when the `with`
        ends.
        """
        hold = Hold(Event())
        order = self._order(method, path, times, hold=hold)
        try:
            yield hold.done
        finally:
            with self._account.lock:
                hold.released = True
                if order in self._ordered:
                    self._ordered.remove(order)
                self._account.lock.notify_all()

    def clear(self) -> None:
        """Forgets what was ordered and has not happened."""
        with self._account.lock:
            self._ordered.clear()

    def vanish(self, droplet_id: int) -> None:
        """Destroys a droplet as somebody else would, at once."""
        droplets.vanish(self._account, droplet_id)

    @contextmanager
    def hold_action(self, kind: str, resource_id: int | None = None) -> Iterator[None]:
        """Keeps actions of a kind (`create`, `power_off`, `assign_ip`…) in progress until the `with` ends.

        Those of one droplet if its id is given, else of all. The machinery has done its part before that.
        """

        def holds(action: Action) -> bool:
            return action.type == kind and resource_id in (None, action.resource_id)

        with self._account.lock:
            self._account.held.append(holds)
        try:
            yield
        finally:
            with self._account.lock:
                self._account.held.remove(holds)
                self._account.lock.notify_all()

    def strike(self, method: str, path: str) -> Fault | None:
        """Carries out what is ordered for a request, but for what concerns its answer."""
        with self._account.lock:
            fault = next(
                (each for each in self._ordered if each.method == method and each.path.fullmatch(path)), None
            )
            if fault is None:
                return None
            if fault.left is not None:
                fault.left -= 1
                if not fault.left:
                    self._ordered.remove(fault)
        self._account.workers.pause(fault.seconds)
        if fault.refusal:
            raise fault.refusal
        return fault

    def keep_answer(self, hold: Hold) -> None:
        """Returns when the answer may be given."""
        hold.done.set()
        self._account.workers.wait(lambda: hold.released, None)

    def _order(
        self,
        method: str,
        path: str,
        times: int | None,
        *,
        refusal: Refused | None = None,
        seconds: float = 0,
        loses_answer: bool = False,
        hold: Hold | None = None,
    ) -> Fault:
        fault = Fault(
            method=method,
            path=re.compile(path),
            left=times,
            refusal=refusal,
            seconds=seconds,
            loses_answer=loses_answer,
            hold=hold,
        )
        with self._account.lock:
            self._ordered.append(fault)
        return fault
