"""What the kubernetes stand-in waits for on a real API server; the test plays scheduler and kubelet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

import pytest

from tests.plugins.controlplane import START_SECONDS, ControlPlane, run_pods
from tests.plugins.kubernetes_engine import PODS, SELECTOR, STEP_SECONDS, Engine, named, run, urn
from tests.plugins.replay import Json

pytestmark = pytest.mark.e2e

T = TypeVar("T")


async def eventually(wanted: Callable[[], T]) -> T:
    """What `wanted` returns once that is something."""
    end = monotonic() + STEP_SECONDS
    while monotonic() < end:
        if found := await asyncio.to_thread(wanted):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within {STEP_SECONDS} s")


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Deployment", {"replicas": 2}),
        (
            "DaemonSet",
            {
                "minReadySeconds": 1,
                "updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            },
        ),
    ],
)
def test_a_workload_is_waited_for(plane: ControlPlane, kind: str, spec: Json) -> None:
    namespace, token = f"work-{kind.lower()}", f"apps/v1:{kind}"
    space = named("v1", "Namespace", namespace, None)
    first = named("apps/v1", kind, "w", namespace, spec={**spec, "selector": SELECTOR, "template": PODS})
    changed = {**PODS, "metadata": {"labels": {"app": "a"}, "annotations": {"rev": "2"}}}
    second = named("apps/v1", kind, "w", namespace, spec={**first["spec"], "template": changed})

    async def test(engine: Engine) -> None:
        await engine.create("core/v1:Namespace", space)
        making = asyncio.create_task(engine.create(token, first))
        await run_pods(plane, namespace, making)
        status = (await making)["properties"]["status"]
        assert status.get("readyReplicas", status.get("numberAvailable")) == spec.get("replicas", 1)
        assert (await engine.diff(token, first))["changes"] == "DIFF_NONE"
        rolling = asyncio.create_task(engine.update(token, second))
        await run_pods(plane, namespace, rolling)
        status = (await rolling)["properties"]["status"]
        assert status.get("updatedReplicas", status.get("updatedNumberScheduled")) == spec.get("replicas", 1)
        assert (await engine.read(token, second))["id"] == f"{namespace}/w"
        await engine.delete(token, second)
        await engine.delete("core/v1:Namespace", space)

    run(plane, test)


def test_the_api_server_may_be_replaced_while_something_is_waited_for(plane: ControlPlane) -> None:
    token, namespace = "apps/v1:Deployment", "restart"
    space = named("v1", "Namespace", namespace, None)
    obj = named(
        "apps/v1", "Deployment", "w", namespace, spec={"replicas": 1, "selector": SELECTOR, "template": PODS}
    )

    async def test(engine: Engine) -> None:
        await engine.create("core/v1:Namespace", space)
        making = asyncio.create_task(engine.create(token, obj, timeout=START_SECONDS * 2))
        path = f"/api/v1/namespaces/{namespace}/pods"
        await eventually(lambda: plane.api("GET", path)["items"])
        plane.stop("kube-apiserver")
        await asyncio.sleep(1)
        assert not making.done()
        await asyncio.to_thread(plane.start_apiserver)
        await run_pods(plane, namespace, making)
        assert (await making)["properties"]["status"]["readyReplicas"] == 1
        await engine.delete("core/v1:Namespace", space)

    run(plane, test)


def test_a_workload_that_never_is_ready_says_why(plane: ControlPlane) -> None:
    token = "apps/v1:Deployment"
    obj = named("apps/v1", "Deployment", "late", spec={"replicas": 1, "selector": SELECTOR, "template": PODS})

    async def test(engine: Engine) -> None:
        request = {"urn": urn(token, obj), "properties": obj, "timeout": 2}
        failure = await engine.fails("Create", request)
        assert "was successfully created, but" in failure
        assert "'late' timed out waiting to be Ready" in failure
        engine.states[urn(token, obj)] = {"id": "default/late", "properties": obj | {"__inputs": obj}}
        await engine.delete(token, obj)

    run(plane, test)


def test_a_service_is_waited_for(plane: ControlPlane) -> None:
    token = "core/v1:Service"
    obj = named("v1", "Service", "waits", spec={"ports": [{"port": 80}], "selector": {"app": "waits"}})
    skipped = named(
        "v1", "Service", "skips", spec=obj["spec"], metadata={"annotations": {"pulumi.com/skipAwait": "true"}}
    )
    ready = named(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "waits-1",
        metadata={"labels": {"kubernetes.io/service-name": "waits"}},
        addressType="IPv4",
        endpoints=[{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
    )

    async def test(engine: Engine) -> None:
        await engine.create(token, skipped)
        await engine.delete(token, skipped)
        making = asyncio.create_task(engine.create(token, obj))
        await asyncio.sleep(0.5)
        assert not making.done()
        await engine.create("discovery.k8s.io/v1:EndpointSlice", ready)
        assert (await making)["id"] == "default/waits"
        await engine.delete(token, obj)

    run(plane, test)


def test_a_deletion_is_waited_for(plane: ControlPlane) -> None:
    token = "core/v1:ConfigMap"
    obj = named("v1", "ConfigMap", "held", metadata={"finalizers": ["rec.io/hold"]})

    async def test(engine: Engine) -> None:
        state = await engine.create(token, obj)
        request = {"urn": urn(token, obj), "id": state["id"], "properties": state["properties"]}
        failure = await engine.fails("Delete", request | {"timeout": 1})
        assert "'held' timed out waiting to be deleted" in failure
        assert "finalizers might be preventing deletion (rec.io/hold" in failure
        deleting = asyncio.create_task(engine.delete(token, obj))
        path = "/api/v1/namespaces/default/configmaps/held"
        plane.api("PATCH", path, {"metadata": {"finalizers": None}})
        await deleting

    run(plane, test)


def test_many_objects_are_made_at_once(plane: ControlPlane) -> None:
    token = "core/v1:ConfigMap"
    many = [named("v1", "ConfigMap", f"many-{number}", data={"n": str(number)}) for number in range(100)]

    async def test(engine: Engine) -> None:
        began = monotonic()
        await asyncio.gather(*(engine.create(token, obj) for obj in many))
        await asyncio.gather(*(engine.delete(token, obj) for obj in many))
        assert monotonic() - began < STEP_SECONDS

    run(plane, test)
