"""Asks a living cluster whether an upgrade may begin."""

from __future__ import annotations

from asyncio import sleep, timeout
from collections.abc import Collection

import httpx
import pulumi

from components.api import Api, LoginUnknown, reason
from components.assets.upgrade_checks import (
    etcd_problems,
    has_begun,
    new_hosts,
    node_problems,
    removed_apis,
)
from components.config import ClusterConfig
from components.config.releases import minor_of, numbers_of

__all__ = ["NoAnswer", "check", "is_to_go_back", "look"]

LOOK_SECONDS = 30
PAUSE_SECONDS = 1


class NoAnswer(Exception):
    """Why the API did not answer."""


async def check(api: Api, cfg: ClusterConfig, from_version: str) -> None:
    """Ends the run if the upgrade to the config's version may not begin.

    A preview also works where no cluster can be reached: it goes on with a warning.
    """
    try:
        async with api.connect() as client:
            problems = await look(client, cfg.hosts, from_version, cfg.kubernetes_version)
    except (LoginUnknown, NoAnswer) as error:
        if pulumi.runtime.is_dry_run():
            pulumi.log.warn(f"whether the upgrade may begin is asked again by pulumi up: {error}")
            return
        problems = [
            f"{error}: bring it back first, then run pulumi up again. If the cluster never came up, put "
            f"{from_version} back, or destroy it first"
        ]
    if problems:
        raise pulumi.RunError("\n".join(["nothing has been upgraded:", *problems]))


async def look(
    api: httpx.AsyncClient, hosts: Collection[str], from_version: str, to_version: str
) -> list[str]:
    """Returns what keeps the upgrade from beginning, one line each: nothing if it may begin.

    `hosts` are the names of those that are in the config.

    Back to an earlier patch nothing is checked: what is not well may be what one goes back for. Of an API
    that is removed only the kube-apiserver that answers knows, by what it was asked for itself. An etcd that
    is only busy fails a check of kube-apiserver for a moment, so that it is looked at again. Raises NoAnswer
    if the API has not answered for LOOK_SECONDS.
    """
    if numbers_of(to_version) < numbers_of(from_version):
        return []
    problems: list[str] = []
    silence = "no answer"
    try:
        async with timeout(LOOK_SECONDS):
            while True:
                try:
                    etcd = await _etcd_problems(api)
                    problems = [*etcd, *await _problems(api, hosts, from_version, to_version)]
                    silence = ""
                    if not etcd:
                        return problems
                except (httpx.HTTPError, ValueError) as error:
                    silence = reason(error)
                await sleep(PAUSE_SECONDS)
    except TimeoutError:
        if silence:
            raise NoAnswer(f"the API does not answer: {silence}") from None
        return problems


async def _etcd_problems(api: httpx.AsyncClient) -> list[str]:
    ready = await api.get("/readyz?verbose")
    # So it answers when a check fails, and tells which.
    if ready.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
        ready.raise_for_status()
    return etcd_problems(ready.text)


async def _problems(
    api: httpx.AsyncClient, hosts: Collection[str], from_version: str, to_version: str
) -> list[str]:
    listed = await api.get("/api/v1/nodes")
    listed.raise_for_status()
    nodes = listed.json()["items"]
    problems = [
        *node_problems(nodes, from_version, to_version),
        *new_hosts(nodes, hosts, from_version, to_version),
    ]
    if minor_of(from_version) != minor_of(to_version):
        metrics = await api.get("/metrics")
        metrics.raise_for_status()
        problems += removed_apis(metrics.text, to_version)
    return problems


_APISERVER = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-apiserver"


async def is_to_go_back(api: httpx.AsyncClient, to_version: str) -> bool:
    """Whether no kube-apiserver of a newer minor than this has begun, so that all that is stored can be read.

    Raises NoAnswer.
    """
    try:
        found = await api.get(_APISERVER)
        found.raise_for_status()
        return not has_begun(found.json(), minor_of(to_version))
    except (httpx.HTTPError, ValueError) as error:
        raise NoAnswer(f"the API does not answer: {reason(error)}") from error
