"""What the tests of the digitalocean stand-in share: an API that says what it is told, time that does not
pass, and the plugin."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc.aio
from google.protobuf import json_format
from pulumi.runtime.proto import provider_pb2, status_pb2

from lab.plugins.common import EngineLog
from lab.plugins.digitalocean.provider import VERSION, DigitalOceanProvider
from lab.plugins.digitalocean.waits import Clock
from tests.plugins.replay import REQUESTS, Json, ask, serving

TOKEN = "the-token"
CREATED = "2026-11-28T08:00:00Z"
UNAVAILABLE = (503, {"id": "service_unavailable", "message": "Try again."})
ENDED: tuple[int, Json] = (204, {})
NOT_FOUND = (HTTPStatus.NOT_FOUND, {"id": "not_found", "message": "The resource was not found."})
LOST: tuple[int, Json] = (0, {})
"""In place of an answer: the connection ends."""

DROPLET: Json = {"image": "debian-12-x64", "size": "S-1vcpu-2gb", "region": "fra1", "name": "web"}
ADDRESSES: Json = {
    "v4": [
        {"ip_address": "10.1.0.2", "type": "private"},
        {"ip_address": "203.0.113.5", "type": "public"},
    ],
    "v6": [],
}

Answer = tuple[int, Json]


@dataclass
class Script:
    """Answers by request, such as `GET /v2/vpcs/1`: one after another, and the last one for ever."""

    url: str
    answers: defaultdict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    headers: Json = field(default_factory=dict)
    requests: list[tuple[str, Any]] = field(default_factory=list)

    def on(self, request: str, *answers: Answer | Json) -> None:
        self.answers[request] = [answer if isinstance(answer, tuple) else (200, answer) for answer in answers]

    @property
    def asked(self) -> list[str]:
        return [request for request, _ in self.requests]

    def body(self, request: str) -> Any:
        (found,) = [body for asked, body in self.requests if asked == request]
        return found


@contextmanager
def script() -> Iterator[Script]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or the body waits 40 ms for the headers to be acknowledged

        def answer(self) -> None:
            request = f"{self.command} {self.path.partition('?')[0]}"
            size = int(self.headers.get("content-length", 0))
            text = self.rfile.read(size)
            assert self.headers["authorization"] == f"Bearer {TOKEN}"
            made.requests.append((request, json.loads(text) if text else None))
            answers = made.answers[request]
            status, body = answers.pop(0) if len(answers) > 1 else answers[0] if answers else NOT_FOUND
            if not status:
                self.close_connection = True
                return
            payload = b"" if status == HTTPStatus.NO_CONTENT else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *arguments: Any) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Script(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class SkippingClock(Clock):
    """Time that passes only in sleeps, and these in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0)
        await asyncio.sleep(0)
        self.time += seconds
        if seconds:
            self.slept.append(round(seconds, 3))


@dataclass(frozen=True)
class Plugin:
    """The plugin behind gRPC, and the time that it has."""

    stub: Any
    clock: SkippingClock

    async def check(self, kind: str, **news: Any) -> Json:
        return await ask(self.stub, "Check", {"urn": urn(kind), "olds": {}, "news": news})

    async def diff(self, kind: str, old: Json, new: Json) -> Json:
        answer = await ask(self.stub, "Diff", {"urn": urn(kind), "id": "1", "olds": old, "news": new})
        return dict(answer.get("response", answer))

    async def create(self, kind: str, timeout: float = 0, preview: bool = False, **news: Any) -> Json:
        request = {"urn": urn(kind), "properties": news, "timeout": timeout, "preview": preview}
        return await ask(self.stub, "Create", request)

    async def update(self, kind: str, id: str, old: Json, new: Json) -> Json:
        return await ask(self.stub, "Update", {"urn": urn(kind), "id": id, "olds": old, "news": new})

    async def read(self, kind: str, id: str, properties: Json, inputs: Json) -> Json:
        request = {"urn": urn(kind), "id": id, "properties": properties, "inputs": inputs}
        return dict((await ask(self.stub, "Read", request))["response"])

    async def delete(self, kind: str, id: str, timeout: float = 0, **properties: Any) -> Json:
        request = {"urn": urn(kind), "id": id, "properties": properties, "timeout": timeout}
        return await ask(self.stub, "Delete", request)

    async def half_made(self, method: str, **request: Any) -> tuple[str, Json, str]:
        """What a create or an update that fails leaves: id, properties and the reason."""
        message = json_format.ParseDict(request, REQUESTS[method]())
        try:
            await getattr(self.stub, method)(message)
        except grpc.aio.AioRpcError as error:
            metadata = dict(error.trailing_metadata() or ())
            status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
            detail = provider_pb2.ErrorResourceInitFailed()
            assert status.details[0].Unpack(detail)
            return detail.id, json_format.MessageToDict(detail.properties), detail.reasons[0]
        raise AssertionError(f"{method} went well")


@asynccontextmanager
async def plugin(url: str = "http://127.0.0.1:9", **config: Any) -> AsyncIterator[Plugin]:
    clock = SkippingClock()
    async with serving(DigitalOceanProvider(EngineLog(None), clock), VERSION) as stub:
        arguments = {"apiEndpoint": url, "token": TOKEN, **config}
        answer = await ask(stub, "Configure", {"args": arguments})
        assert answer == {"response": {"supportsPreview": True}}
        yield Plugin(stub, clock)


def token(kind: str) -> str:
    return f"digitalocean:index/{kind[0].lower()}{kind[1:]}:{kind}"


def urn(kind: str) -> str:
    return f"urn:pulumi:dev::rec::my:index:Component${token(kind)}::it"


def droplet(status: str = "active", **settings: Any) -> Json:
    found: Json = {
        "id": 7,
        "name": "web",
        "status": status,
        "locked": status == "new",
        "created_at": CREATED,
        "disk": 50,
        "vcpus": 1,
        "memory": 2048,
        "vpc_uuid": "v",
        "tags": ["a"],
        "volume_ids": [],
        "region": {"slug": "fra1"},
        "size": {"slug": "s-1vcpu-2gb", "price_hourly": 0.01786, "price_monthly": 12.0},
        "networks": {"v4": [], "v6": []} if status == "new" else ADDRESSES,
        "features": ["private_networking"],
    }
    return {"droplet": found | settings}


async def made_droplet(it: Plugin, api: Script, **inputs: Any) -> Json:
    """A droplet as it is in the state once it was made."""
    api.on("POST /v2/droplets", (202, droplet("new")))
    api.on("GET /v2/droplets/7", droplet())
    answer = await it.create("Droplet", **DROPLET, **inputs)
    api.requests.clear()
    it.clock.slept.clear()
    return dict(answer["response"]["properties"])
