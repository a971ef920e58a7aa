"""Limits: of requests, and those that an account is told of."""

from __future__ import annotations

import time
from collections import deque

from tests.e2e.digitalocean.account import Account
from tests.e2e.digitalocean.calls import Answer, Call, Refused, Route

HOUR = 3600
MINUTE = 60
A_HOUR = 5000
LISTS_OF_KEYS = 10  # a minute


class Window:
    """Lets through so many in so many seconds; each one ages out after these."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        self._times: deque[float] = deque()

    def take(self) -> float | None:
        """None: it may pass. Else the seconds until the next one may."""
        now = time.time()
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        if len(self._times) >= self._limit:
            return self._times[0] + self._seconds - now
        self._times.append(now)
        return None

    def headers(self) -> dict[str, str]:
        oldest = self._times[0] if self._times else time.time()
        return {
            "ratelimit-limit": str(self._limit),
            "ratelimit-remaining": str(self._limit - len(self._times)),
            "ratelimit-reset": str(int(oldest + self._seconds)),
        }


class Limits:
    """Those of a token."""

    def __init__(self, a_minute: int) -> None:
        self._hour, self._minute = Window(A_HOUR, HOUR), Window(a_minute, MINUTE)
        self._lists_of_keys = Window(LISTS_OF_KEYS, MINUTE)

    def check(self, method: str, path: str) -> None:
        """429 if this request is one too many; only for a burst with the time to wait."""
        if self._hour.take() is not None:
            raise Refused(429, "API rate limit exceeded.")
        windows = [self._minute]
        if (method, path) == ("GET", "/v2/account/keys"):
            windows.append(self._lists_of_keys)
        for window in windows:
            if (seconds := window.take()) is not None:
                raise Refused(429, "API rate limit exceeded.", int(seconds) + 1)

    def headers(self) -> dict[str, str]:
        return self._hour.headers()


def _get_account(account: Account, _: Call) -> Answer:
    return Answer(
        body={
            "account": {
                "droplet_limit": account.droplet_limit,
                "floating_ip_limit": account.reserved_ip_limit,
                "reserved_ip_limit": account.reserved_ip_limit,
                "volume_limit": 100,
                "email": "sammy@example.com",
                "name": "Sammy the Shark",
                "uuid": account.uuid,
                "email_verified": True,
                "status": "active",
                "status_message": "",
                "team": {"uuid": account.uuid, "name": "My Team"},
            }
        }
    )


ROUTES = (Route("GET", "/v2/account", _get_account, "account:read"),)
