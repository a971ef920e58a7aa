"""Whether all of a cluster is there: every node Ready, every workload with all of its pods Ready."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tests.e2e.stacks import eventually

SECONDS = 300
LOOK_SECONDS = 0.3
WORKLOADS = ("daemonsets", "deployments")

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Login:
    """A cluster's API and an administrator of it: certificates and key as PEM texts, `ca`, `cert`, `key`."""

    endpoint: str
    pair: Mapping[str, str]

    def client(self) -> httpx.Client:
        """A client of the API."""
        context = ssl.create_default_context(cadata=self.pair["ca"])
        with tempfile.NamedTemporaryFile("w") as pem:
            pem.write(self.pair["cert"] + self.pair["key"])
            pem.flush()
            context.load_cert_chain(pem.name)
        return httpx.Client(base_url=self.endpoint, verify=context, timeout=5, trust_env=False)


def wait_until_available(login: Login, *, nodes: Iterable[str], version: str) -> None:
    """Returns when nothing is lacking: nodes of that version, workloads of all namespaces."""
    wanted = set(nodes)
    with login.client() as api:

        def available() -> bool:
            try:
                found = {kind: _list(api, kind) for kind in ("nodes", *WORKLOADS)}
            except httpx.HTTPError:
                return False
            workloads = [each for kind in WORKLOADS for each in found[kind]]
            return not lacking(found["nodes"], workloads, wanted=wanted, version=version)

        eventually("all nodes and workloads to be available", SECONDS, available, every=LOOK_SECONDS)


def _list(api: httpx.Client, kind: str) -> list[Object]:
    group = "/api/v1" if kind == "nodes" else "/apis/apps/v1"
    answer = api.get(f"{group}/{kind}")
    answer.raise_for_status()
    items: list[Object] = answer.json()["items"]
    return items


def lacking(
    nodes: Iterable[Object], workloads: Iterable[Object], *, wanted: Iterable[str], version: str
) -> list[str]:
    """Names of nodes that are not Ready, take no pods or run another version, and of workloads of which a pod
    is not the newest or not Ready.
    """
    good = {node["metadata"]["name"] for node in nodes if _is_good(node, version)}
    return sorted({*wanted} - good) + sorted(
        each["metadata"]["name"] for each in workloads if not _is_complete(each)
    )


def _is_good(node: Object, version: str) -> bool:
    status = node["status"]
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status["conditions"])
    unschedulable = node["spec"].get("unschedulable", False)
    return ready and not unschedulable and status["nodeInfo"]["kubeletVersion"] == f"v{version}"


def _is_complete(workload: Object) -> bool:
    status = workload["status"]
    if status.get("observedGeneration", 0) < workload["metadata"]["generation"]:
        return False
    if "desiredNumberScheduled" in status:
        desired, all_pods = status["desiredNumberScheduled"], status["currentNumberScheduled"]
        updated, ready = status.get("updatedNumberScheduled", 0), status.get("numberReady", 0)
    else:
        desired, all_pods = workload["spec"]["replicas"], status.get("replicas", 0)
        updated, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
    return bool(desired == all_pods == updated == ready)
