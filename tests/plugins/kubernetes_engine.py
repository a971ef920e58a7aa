"""Asks the kubernetes stand-in what Pulumi's engine would ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from pulumi.runtime.proto import provider_pb2_grpc

from lab.plugins.common import EngineLog, start
from lab.plugins.kubernetes.cluster import Cluster
from lab.plugins.kubernetes.provider import VERSION, Kubernetes
from lab.plugins.kubernetes.servicer import Servicer
from tests.plugins.controlplane import ControlPlane
from tests.plugins.replay import Json, ask

STEP_SECONDS = 40
CONTAINER = {"name": "c", "image": "none", "resources": {"requests": {"cpu": "0.1", "memory": "1024Mi"}}}
PODS = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {"containers": [CONTAINER], "tolerations": [{"operator": "Exists"}]},
}
SELECTOR = {"matchLabels": {"app": "a"}}


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Asks the plugin as Pulumi's engine would, with one object per URN."""

    stub: Any
    states: dict[str, Json] = field(default_factory=dict)

    async def call(self, method: str, request: Json) -> Json:
        answer = await ask(self.stub, method, request)
        assert "errors" not in answer, answer["errors"][0]
        response: Json = answer["response"]
        return response

    async def fails(self, method: str, request: Json) -> str:
        answer = await ask(self.stub, method, request)
        return str(answer["errors"][0])

    async def preview(self, token: str, obj: Json) -> Json:
        inputs = await self._inputs(token, obj)
        request = {"urn": urn(token, obj), "properties": inputs, "preview": True}
        properties: Json = (await self.call("Create", request))["properties"]
        return properties

    async def diff(self, token: str, obj: Json) -> Json:
        """The differences to the last state."""
        inputs, state = await self._inputs(token, obj), self.states[urn(token, obj)]
        request = {"urn": urn(token, obj), "id": state["id"], "olds": state["properties"], "news": inputs}
        return await self.call("Diff", request)

    async def create(self, token: str, obj: Json, *, timeout: float = STEP_SECONDS) -> Json:
        inputs = await self._inputs(token, obj)
        request = {"urn": urn(token, obj), "properties": inputs, "timeout": timeout}
        self.states[urn(token, obj)] = state = await self.call("Create", request)
        return state

    async def update(self, token: str, obj: Json, *, timeout: float = STEP_SECONDS) -> Json:
        answer = await self.call("Update", await self.update_request(token, obj, timeout=timeout))
        self.states[urn(token, obj)] |= answer
        return self.states[urn(token, obj)]

    async def update_request(self, token: str, obj: Json, *, timeout: float = STEP_SECONDS) -> Json:
        state = self.states[urn(token, obj)]
        news = await self._inputs(token, obj)
        request = {"urn": urn(token, obj), "id": state["id"], "olds": state["properties"], "news": news}
        return request | {"timeout": timeout}

    async def read(self, token: str, obj: Json) -> Json:
        state = self.states[urn(token, obj)]
        request = {"urn": urn(token, obj), "id": state["id"], "properties": state["properties"]}
        return await self.call("Read", request | {"inputs": state["properties"]["__inputs"]})

    async def delete(self, token: str, obj: Json, *, timeout: float = STEP_SECONDS) -> None:
        state = self.states.pop(urn(token, obj))
        request = {"urn": urn(token, obj), "id": state["id"], "properties": state["properties"]}
        await self.call("Delete", request | {"timeout": timeout})

    async def _inputs(self, token: str, obj: Json) -> Json:
        inputs: Json = (await self.call("Check", {"urn": urn(token, obj), "news": obj}))["inputs"]
        return inputs


def urn(token: str, obj: Json) -> str:
    return f"urn:pulumi:s::p::kubernetes:{token}::{obj['metadata']['name']}"


class Plugin(Kubernetes):
    """The stand-in, remembering its cluster so that the test can close it."""

    cluster: Cluster

    def connect(self, text: str) -> Cluster:
        self.cluster = super().connect(text)
        return self.cluster


@asynccontextmanager
async def plugin(config: str, **settings: str) -> AsyncIterator[Engine]:
    provider = Plugin(EngineLog(None))
    server, port = await start(provider, VERSION, Servicer)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            engine = Engine(stub=provider_pb2_grpc.ResourceProviderStub(channel))
            await engine.call("Configure", {"args": {"kubeconfig": config} | settings})
            yield engine
    finally:
        await server.stop(grace=None)
        await provider.cluster.close()


def run(plane: ControlPlane, test: Callable[[Engine], Coroutine[Any, Any, None]], **settings: str) -> None:
    async def main() -> None:
        async with plugin(plane.kubeconfig, **settings) as engine:
            await test(engine)

    asyncio.run(main())


def named(api_version: str, kind: str, name: str, namespace: str | None = "default", **more: Any) -> Json:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata | more.pop("metadata", {}), **more}
