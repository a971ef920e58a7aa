"""Requests of the kubernetes stand-in survive an API server that is being replaced."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lab.plugins.kubernetes import cluster as module
from lab.plugins.kubernetes.cluster import ApiError, Cluster, NoMatchError, UnreachableError
from lab.plugins.kubernetes.kubeconfig import Access
from lab.plugins.kubernetes.objects import Object

CONFIG_MAP: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}}
CORE = {
    "items": [
        {
            "metadata": {},
            "versions": [
                {
                    "version": "v1",
                    "resources": [
                        {
                            "resource": "configmaps",
                            "responseKind": {"kind": "ConfigMap"},
                            "scope": "Namespaced",
                        },
                        {"resource": "nodes", "responseKind": {"kind": "Node"}, "scope": "Cluster"},
                    ],
                }
            ],
        }
    ]
}
HANG_UP = object()
Answer = tuple[int, Object] | tuple[int, Object, dict[str, str]] | object


class Server:
    """An API server that answers discovery, and every other request with the next of `answers`."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = headers.partition("content-length: ")[2].partition("\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                answer: Any = (200, CORE if path == "/api" else {"items": []})
                if path not in ("/api", "/apis"):
                    self.requests.append((method, path, json.loads(body) if body else None))
                    answer = self.answers.pop(0)
                if answer is HANG_UP:
                    return
                code, content, *more = answer
                lines = [f"{key}: {value}" for key, value in (more[0] if more else {}).items()]
                text = json.dumps(content).encode()
                head = [
                    f"HTTP/1.1 {code} Code",
                    f"Content-Length: {len(text)}",
                    "Connection: close",
                    *lines,
                    "",
                    "",
                ]
                writer.write("\r\n".join(head).encode() + text)
                await writer.drain()
        finally:
            writer.close()


def run(test: Callable[[Cluster], Coroutine[Any, Any, None]], server: Server) -> None:
    async def main() -> None:
        async with connected(server) as cluster:
            await asyncio.wait_for(test(cluster), timeout=20)
            assert server.answers == []

    asyncio.run(main())


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Cluster]:
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        cluster = client(listener.sockets[0].getsockname()[1])
        yield cluster
        await cluster.close()


def client(port: int) -> Cluster:
    return Cluster(
        Access(
            server=f"http://127.0.0.1:{port}", server_name=None, tls=ssl.create_default_context(), headers={}
        )
    )


@pytest.mark.parametrize(
    "obstacle",
    [
        HANG_UP,
        (503, {"message": "shutting down"}),
        (429, {"message": "too many requests"}, {"Retry-After": "1"}),
    ],
)
def test_a_request_is_repeated(obstacle: Answer) -> None:
    server = Server(obstacle, (200, CONFIG_MAP))

    async def get(cluster: Cluster) -> None:
        assert await cluster.get(CONFIG_MAP) == CONFIG_MAP

    run(get, server)
    assert [path for _, path, _ in server.requests] == ["/api/v1/namespaces/n/configmaps/c"] * 2


def test_a_refusal_is_the_servers_own_text() -> None:
    status = {"message": 'configmaps "c" not found', "reason": "NotFound", "details": {"kind": "configmaps"}}

    async def get(cluster: Cluster) -> None:
        with pytest.raises(ApiError) as refusal:
            await cluster.get(CONFIG_MAP)
        error = refusal.value
        assert (str(error), error.code, error.missing_namespace) == (status["message"], 404, False)

    run(get, Server((404, status)))


def test_a_create_whose_answer_was_lost_is_recognised() -> None:
    exists = (409, {"message": 'configmaps "c" already exists', "reason": "AlreadyExists"})
    ours = {**CONFIG_MAP, "metadata": {"managedFields": [{"manager": "pulumi-kubernetes"}]}}
    theirs = {**CONFIG_MAP, "metadata": {"managedFields": [{"manager": "kubectl"}]}}

    async def succeeds(cluster: Cluster) -> None:
        assert await cluster.create(CONFIG_MAP) == ours

    async def fails(cluster: Cluster) -> None:
        with pytest.raises(ApiError, match="already exists"):
            await cluster.create(CONFIG_MAP)

    run(succeeds, Server(HANG_UP, exists, (200, ours)))
    run(fails, Server(HANG_UP, exists, (200, theirs)))
    run(fails, Server(exists))


def test_a_server_that_comes_back_is_found_again() -> None:
    server = Server((200, CONFIG_MAP))
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]

    async def main() -> None:
        waiting = asyncio.create_task(client(port).get(CONFIG_MAP))
        await asyncio.sleep(0.2)
        async with await asyncio.start_server(server.serve, "127.0.0.1", port):
            assert await asyncio.wait_for(waiting, timeout=10) == CONFIG_MAP

    asyncio.run(main())


def test_nobody_there_is_said_in_the_official_words() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        address = f"127.0.0.1:{port}"

        async def main() -> None:
            cluster = client(port)
            with pytest.raises(UnreachableError) as failure:
                await cluster.discover(delays=())
            expected = f'Get "http://{address}/api": dial tcp {address}: connect: connection refused'
            assert str(failure.value) == expected

        asyncio.run(main())


def test_a_name_that_does_not_resolve_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_DELAYS", (60.0,))

    async def main() -> None:
        access = Access(
            server="http://no.such.host.invalid",
            server_name=None,
            tls=ssl.create_default_context(),
            headers={},
        )
        with pytest.raises(UnreachableError, match=r"no\.such\.host\.invalid"):
            await asyncio.wait_for(Cluster(access).discover(delays=(60.0,)), timeout=30)

    asyncio.run(main())


def test_an_unknown_kind_is_named() -> None:
    async def get(cluster: Cluster) -> None:
        with pytest.raises(NoMatchError, match=r'no matches for kind "Thing" in version "rec\.io/v1"'):
            await cluster.get({"apiVersion": "rec.io/v1", "kind": "Thing", "metadata": {"name": "t"}})
        assert (await cluster.resource("v1", "Node")).path("ignored", "n") == "/api/v1/nodes/n"
        assert (await cluster.resource("v1", "ConfigMap")).path("", "c") == (
            "/api/v1/namespaces/default/configmaps/c"
        )

    run(get, Server())


def test_what_is_written_says_who_and_how() -> None:
    server = Server(*[(200, CONFIG_MAP)] * 5)

    async def write(cluster: Cluster) -> None:
        await cluster.create(CONFIG_MAP, dry_run=True)
        await cluster.apply(CONFIG_MAP, manager="m", force=True)
        await cluster.replace(CONFIG_MAP, manager="m")
        await cluster.patch(CONFIG_MAP, [])
        await cluster.delete(CONFIG_MAP, propagation="Foreground")

    run(write, server)
    path, strict = "/api/v1/namespaces/n/configmaps", "fieldValidation=Strict"
    assert [(method, where) for method, where, _ in server.requests] == [
        ("POST", f"{path}?fieldManager=pulumi-kubernetes&{strict}&dryRun=All"),
        ("PATCH", f"{path}/c?fieldManager=m&{strict}&force=true"),
        ("PUT", f"{path}/c?fieldManager=m&{strict}"),
        ("PATCH", f"{path}/c"),
        ("DELETE", f"{path}/c"),
    ]
    assert server.requests[0][2] == CONFIG_MAP
    assert server.requests[4][2]["propagationPolicy"] == "Foreground"
