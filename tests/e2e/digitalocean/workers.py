"""Threads for what takes time. They end with the API, whatever they wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

WAIT_SECONDS = 900
END_SECONDS = 60


class Ended(BaseException):
    """The API ends, so nobody waits for the work any more. No failure, which is why it is no Exception."""


class Workers:
    """Runs work in threads. `changed` guards the account; whoever changes something tells those that wait."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.failures: list[Exception] = []
        self._ending = False
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], None]) -> None:
        with self.changed:
            if self._ending:
                return
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._run, args=(work,), name=f"digitalocean {work}")
            self._threads.append(thread)
            thread.start()

    def wait(self, for_what: Callable[[], bool], seconds: float | None = WAIT_SECONDS) -> None:
        """Waits until that is so (None: without a deadline). TimeoutError, or Ended with the API."""
        with self.changed:
            if not self.changed.wait_for(lambda: self._ending or for_what(), seconds):
                raise TimeoutError(f"not so within {seconds} s: {for_what.__qualname__}")
            if self._ending:
                raise Ended

    def pause(self, seconds: float) -> None:
        """Lets that time pass; Ended with the API."""
        end = monotonic() + seconds
        with self.changed:
            while (left := end - monotonic()) > 0 and not self._ending:
                self.changed.wait(left)
            if self._ending:
                raise Ended

    def end(self) -> None:
        """Ends all threads; work that is being done is done to its end."""
        with self.changed:
            self._ending = True
            self.changed.notify_all()
        deadline = monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0, deadline - monotonic()))
        if left := [thread.name for thread in self._threads if thread.is_alive()]:
            raise TimeoutError(f"after {END_SECONDS} s there still runs: {', '.join(left)}")

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Ended:
            pass
        except Exception as error:  # told at the API's end, by whoever holds the list
            self.failures.append(error)
