"""The cluster's API, as the program itself asks it: at its endpoint, as super-admin."""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from asyncio import sleep
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx
import pulumi

from components.config import ClusterConfig
from components.pki import Pki

__all__ = ["Api", "ask", "client", "reason"]

REQUEST_SECONDS = 10
ASK_SECONDS = 60
PAUSE_SECONDS = 1


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
        """A client of the API. In a preview, which may not know all, there is none."""
        login = await self._login.future()
        assert login is not None, "an update knows all of its inputs"
        async with client(*login) as api:
            yield api


def client(endpoint: str, ca: str, pair: str) -> httpx.AsyncClient:
    """A client of the API at its endpoint. `pair` is a client's certificate and key, `ca` whom it trusts."""
    context = ssl.create_default_context(cadata=ca)
    # OpenSSL takes them from files only. This one is private, and gone before anything is asked for.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pair)
        file.flush()
        context.load_cert_chain(file.name)
    return httpx.AsyncClient(
        base_url=endpoint,
        verify=context,
        timeout=REQUEST_SECONDS,
        trust_env=not _is_direct(urlsplit(endpoint).hostname or "", os.environ),
    )


def _is_direct(host: str, environment: Mapping[str, str]) -> bool:
    """Whether NO_PROXY has a range that the address is in: the provider's Go heeds those, httpx does not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for each in (environment.get("NO_PROXY") or environment.get("no_proxy") or "").split(","):
        try:
            if address in ipaddress.ip_network(each.strip(), strict=False):
                return True
        except ValueError:
            continue  # a name
    return False


async def ask(api: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """What the API has at a path. Without an answer it is asked again, for ASK_SECONDS."""
    deadline = monotonic() + ASK_SECONDS
    while True:
        try:
            answer = await api.get(path)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found
        except (httpx.HTTPError, ValueError) as error:
            if monotonic() >= deadline:
                raise pulumi.RunError(f"the API does not answer: {reason(error)}") from error
        await sleep(PAUSE_SECONDS)


def reason(error: Exception) -> str:
    """What went wrong with a request, in one line."""
    return f"{type(error).__name__} {error}".strip().splitlines()[0]
