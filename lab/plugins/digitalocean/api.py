"""DigitalOcean's API by its own client, with the retries of the official plugin."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from operator import attrgetter
from typing import Any

from lab.plugins.digitalocean.waits import Clock, Failed

ENDPOINT = "https://api.digitalocean.com"
TOKEN_VARIABLES = ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")
MOST_PER_PAGE = 200

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The provider's configuration. Waits are in seconds; 0 requests a second means any number."""

    token: str
    endpoint: str
    retries: int
    least_wait: float
    most_wait: float
    requests_per_second: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Read a provider's inputs, where every value is a text; the environment has what is not there."""

        def setting(key: str, default: str, *variables: str) -> str:
            found = [config.get(key), *(os.environ.get(variable) for variable in variables)]
            return next((str(value) for value in found if value not in (None, "")), default)

        def number(key: str, default: float, variable: str) -> float:
            text = setting(key, str(default), f"DIGITALOCEAN_{variable}")
            try:
                return float(text)
            except ValueError:
                raise Failed(f"digitalocean:{key} is not a number: {text!r}") from None

        return cls(
            token=setting("token", "", *TOKEN_VARIABLES),
            endpoint=setting("apiEndpoint", ENDPOINT, "DIGITALOCEAN_API_URL"),
            retries=int(number("httpRetryMax", 4, "HTTP_RETRY_MAX")),
            least_wait=number("httpRetryWaitMin", 1.0, "HTTP_RETRY_WAIT_MIN"),
            most_wait=number("httpRetryWaitMax", 30.0, "HTTP_RETRY_WAIT_MAX"),
            requests_per_second=number("requestsPerSecond", 0.0, "REQUESTS_PER_SECOND"),
        )


class ApiError(Exception):
    """A request that failed. Without an answer, or after 5xx to the end, there is no `status`."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class _Answer:
    method: str
    url: str
    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def retried(self) -> bool:
        return self.status == HTTPStatus.TOO_MANY_REQUESTS or (
            self.status >= HTTPStatus.INTERNAL_SERVER_ERROR and self.status != HTTPStatus.NOT_IMPLEMENTED
        )

    def error(self, attempts: int) -> ApiError:
        body = self.body if isinstance(self.body, Mapping) else {"message": self.body}
        request = body.get("request_id") or self.headers.get("x-request-id")
        named = f'(request "{request}") ' if request else ""
        tried = f"; giving up after {attempts} attempt(s)" if attempts > 1 else ""
        message = f"{self.method} {self.url}: {self.status} {named}{body.get('message', '')}{tried}"
        return ApiError(message, self.status)


class Api:
    """The API at an address, for one token. Nothing is sent, nor the client loaded, before the first call."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._loading = threading.Lock()
        self._client: Any = None
        self._free_at = 0.0

    async def call(self, operation: str, *arguments: Any, **options: Any) -> Json:
        """Call an operation of the client, such as `droplets.create`; what the API answers, or ApiError.

        Like the official plugin it repeats any request, so that one whose answer is lost is sent again.
        """
        attempts = 0
        while True:
            attempts += 1
            answer: _Answer | None = None
            problem: Exception | None = None
            await self._turn()
            try:
                answer = await asyncio.to_thread(self._send, operation, arguments, options)
            except OSError as lost:
                problem = lost
            again = answer is None or answer.retried
            if again and attempts <= self._settings.retries:
                await self._clock.sleep(self._pause(attempts, answer))
                continue
            if answer is None:
                raise ApiError(f"{problem}; giving up after {attempts} attempt(s)", None) from problem
            if answer.status < HTTPStatus.MULTIPLE_CHOICES:
                return answer.body or {}
            error = answer.error(attempts)
            if again and self._settings.retries and answer.status != HTTPStatus.TOO_MANY_REQUESTS:
                # The official plugin's client drops the answer then, and so does what depends on its status.
                error.status = None
            raise error

    async def pages(self, operation: str, *arguments: Any, key: str) -> list[Any]:
        """Every item of a list."""
        items: list[Any] = []
        page = 1
        while True:
            answer = await self.call(operation, *arguments, page=page, per_page=MOST_PER_PAGE)
            items += answer[key] or []
            if not ((answer.get("links") or {}).get("pages") or {}).get("next"):
                return items
            page += 1

    async def _turn(self) -> None:
        """Keep to the requests a second."""
        if self._settings.requests_per_second:
            now = self._clock.now()
            begin = max(now, self._free_at)
            self._free_at = begin + 1 / self._settings.requests_per_second
            await self._clock.sleep(begin - now)

    def _pause(self, attempts: int, answer: _Answer | None) -> float:
        if answer is not None and answer.status in (
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ):
            asked = _retry_after(answer.headers.get("retry-after", ""))
            if asked is not None:
                return asked
        return min(self._settings.most_wait, self._settings.least_wait * 2.0 ** (attempts - 1))

    def _send(self, operation: str, arguments: tuple[Any, ...], options: Json) -> _Answer:
        """Send once; OSError if there is no answer. The client has no word for a status but an exception."""
        from azure.core.exceptions import (
            HttpResponseError,
            IncompleteReadError,
            ServiceRequestError,
            ServiceResponseError,
        )

        def keep(response: Any, body: Any, headers: Any) -> _Answer:
            return _answer(response.http_response, body)

        try:
            answer = attrgetter(operation)(self._loaded())(*arguments, **options, cls=keep)
        except (ServiceRequestError, ServiceResponseError, IncompleteReadError) as error:
            raise OSError(str(error)) from error
        except ValueError as error:
            raise ApiError(f"{operation}: the answer is not JSON: {error}", None) from error
        except HttpResponseError as error:
            assert error.response is not None
            try:
                body = json.loads(error.response.text())
            except ValueError:
                body = error.response.text()
            answer = _answer(error.response, body)
        assert isinstance(answer, _Answer)
        return answer

    def _loaded(self) -> Any:
        # Loaded late: the module is large, and a preview of what is not there yet asks for nothing.
        with self._loading:
            if self._client is None:
                from azure.core.pipeline import policies
                from pydo import Client

                self._client = Client(
                    token=self._settings.token,
                    endpoint=self._settings.endpoint.rstrip("/"),
                    retry_policy=policies.RetryPolicy.no_retries(),
                    # Its own policy refuses http://, which the official plugin takes.
                    authentication_policy=policies.HeadersPolicy(
                        {"Authorization": f"Bearer {self._settings.token}"}
                    ),
                )
            return self._client


def _answer(response: Any, body: Any) -> _Answer:
    request = response.request
    return _Answer(
        method=request.method,
        url=request.url,
        status=response.status_code,
        headers={key.lower(): value for key, value in response.headers.items()},
        body=body,
    )


def _retry_after(text: str) -> float | None:
    """Seconds to wait, given as such or as a date."""
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
