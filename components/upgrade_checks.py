"""Asks a living cluster whether an upgrade may begin."""

from __future__ import annotations

from asyncio import sleep, timeout
from collections.abc import Collection

import httpx

from components.assets.upgrade_checks import etcd_problems, new_hosts, node_problems, removed_apis
from components.config.releases import minor_of

__all__ = ["look"]

LOOK_SECONDS = 30
PAUSE_SECONDS = 1


async def look(
    api: httpx.AsyncClient, hosts: Collection[str], from_version: str, to_version: str
) -> list[str]:
    """Returns what keeps the upgrade from beginning, one line each: nothing if it may begin.

    `hosts` are the names of those that are in the config.

    Back to an earlier patch nothing is checked: what is not well may be what one goes back for. Of an API
    that is removed only the kube-apiserver that answers knows, by what it was asked for itself.
    """
    if _patch(to_version) < _patch(from_version):
        return []
    trouble = "no answer"
    try:
        async with timeout(LOOK_SECONDS):
            while True:
                try:
                    return await _problems(api, hosts, from_version, to_version)
                except (httpx.HTTPError, ValueError) as error:
                    trouble = f"{type(error).__name__} {error}".strip().splitlines()[0]
                await sleep(PAUSE_SECONDS)
    except TimeoutError:
        return [
            f"the API does not answer: {trouble}: bring it back first, then run pulumi up again. If the "
            f"cluster never came up, put {from_version} back, or destroy it first"
        ]


def _patch(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


async def _problems(
    api: httpx.AsyncClient, hosts: Collection[str], from_version: str, to_version: str
) -> list[str]:
    ready = await api.get("/readyz?verbose")
    # So it answers when a check fails, and tells which.
    if ready.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
        ready.raise_for_status()
    listed = await api.get("/api/v1/nodes")
    listed.raise_for_status()
    nodes = listed.json()["items"]
    problems = [
        *etcd_problems(ready.text),
        *node_problems(nodes, from_version, to_version),
        *new_hosts(nodes, hosts, from_version, to_version),
    ]
    if minor_of(from_version) != minor_of(to_version):
        metrics = await api.get("/metrics")
        metrics.raise_for_status()
        problems += removed_apis(metrics.text, to_version)
    return problems
