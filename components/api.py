"""The cluster's API, as the program itself asks it: at its endpoint, as super-admin."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from asyncio import sleep
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import httpx
import pulumi

from components.config import ClusterConfig
from components.pki import Pki

__all__ = [
    "Api",
    "LoginUnknown",
    "Refused",
    "ask",
    "change",
    "client",
    "reason",
    "request",
    "status",
    "try_to_change",
]

REQUEST_SECONDS = 10
ASK_SECONDS = 60
PAUSE_SECONDS = 1

Object = dict[str, Any]


class Refused(Exception):
    """The API's answer, which no other try changes."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LoginUnknown(pulumi.RunError):
    """A preview does not know yet how to log in."""


class Api:
    """How to log in to the API. Nothing is asked before somebody connects, which only hooks do."""

    def __init__(self, cfg: ClusterConfig, pki: Pki) -> None:
        self._login = pki.read(
            lambda machines, texts: (
                cfg.api_endpoint(machines.api_host),
                texts["ca.crt"],
                texts["super-admin.crt"] + texts["super-admin.key"],
            )
        )

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the API. Raises LoginUnknown."""
        login = await self._login.future()
        if login is None:
            raise LoginUnknown(
                "what logs in to the API is about to change, such as a certificate that is due: run pulumi "
                "up with the former values first"
            )
        async with client(*login) as api:
            yield api


def client(endpoint: str, ca: str, pair: str) -> httpx.AsyncClient:
    """A client of the API at its endpoint. `pair` is a client's certificate and key, `ca` whom it trusts.

    Raises RunError for a proxy of the environment that can't be used.
    """
    context = ssl.create_default_context(cadata=ca)
    # OpenSSL takes them from files only. This one is private, and gone before anything is asked for.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pair)
        file.flush()
        context.load_cert_chain(file.name)
    proxy = _proxy(urlsplit(endpoint).hostname or "")
    try:
        # httpx reads more of the environment than the provider's Go does, and ends at what that passes over.
        return httpx.AsyncClient(
            base_url=endpoint, verify=context, timeout=REQUEST_SECONDS, trust_env=False, proxy=proxy
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        # Its value may have a password.
        raise pulumi.RunError(
            f"the proxy of HTTPS_PROXY can't be used to ask the API ({type(error).__name__}): set one that "
            f"begins with http:// or https://, or have {endpoint} in NO_PROXY"
        ) from None


def _proxy(host: str) -> str | None:
    """By which proxy of the environment the provider's Go goes to that host: HTTPS_PROXY, unless NO_PROXY has
    the host, its domain, or a range that its address is in.
    """
    proxies = getproxies_environment()
    listed = [each.strip() for each in proxies.get("no", "").split(",")]
    if proxy_bypass(host) or "*" in listed or _is_in(host, ["127.0.0.0/8", *listed]):
        return None
    proxy = proxies.get("https")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _is_in(host: str, ranges: list[str]) -> bool:
    """Whether one of the ranges has the address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for each in ranges:
        try:
            if address in ipaddress.ip_network(each, strict=False):
                return True
        except ValueError:
            continue  # a name
    return False


async def ask(api: httpx.AsyncClient, path: str) -> Object:
    """What the API has at a path. Without an answer it is asked again, for ASK_SECONDS."""
    deadline = monotonic() + ASK_SECONDS
    while True:
        try:
            answer = await api.get(path)
            answer.raise_for_status()
            found: Object = answer.json()
            return found
        except (httpx.HTTPError, ValueError) as error:
            if monotonic() >= deadline:
                raise pulumi.RunError(f"the API does not answer: {reason(error)}") from error
        await sleep(PAUSE_SECONDS)


async def request(api: httpx.AsyncClient, method: str, path: str, **rest: Any) -> Object:
    """The object that the API answers with. Refused if asking again is of no use, another error if it is."""
    response = await api.request(method, path, **rest)
    # A conflict: the object has changed since it was looked at. Too many requests: of others.
    if response.is_client_error and response.status_code not in (409, 429):
        raise Refused(response.status_code, status(response).get("message") or response.reason_phrase)
    response.raise_for_status()
    found: Object = response.json()
    return found


async def change(api: httpx.AsyncClient, path: str, patch: Callable[[Object], Object | None]) -> None:
    """Changes an object by the merge patch that is made of it; by none if that is None."""
    body = patch(await request(api, "GET", path))
    if body is not None:
        headers = {"Content-Type": "application/merge-patch+json"}
        await request(api, "PATCH", path, json=body, headers=headers)


async def try_to_change(
    api: httpx.AsyncClient, path: str, patch: Callable[[Object], Object | None], seconds: float
) -> str:
    """Changes an object, again and again without an answer. Returns why it is not changed: "" if it is, or if
    there is no such object.
    """
    deadline = monotonic() + seconds
    while True:
        try:
            await change(api, path, patch)
            return ""
        except Refused as refused:
            return "" if refused.status == httpx.codes.NOT_FOUND else f"the API refuses it: {refused}"
        except (httpx.HTTPError, ValueError) as error:
            trouble = f"the API does not answer: {reason(error)}"
        if monotonic() >= deadline:
            return trouble
        await sleep(PAUSE_SECONDS)


def status(response: httpx.Response) -> Object:
    """The Status that the API answers with; empty if the answer is a proxy's, or cut off."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def reason(error: Exception) -> str:
    """What went wrong with a request, in one line."""
    return f"{type(error).__name__} {error}".strip().splitlines()[0]
