"""The command stand-in answers as the official plugin did, and keeps its word where no recording reaches."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
from replay import Call, Json, ask, recording, replay, serving

from lab.plugins.command import LOCAL, REMOTE, CommandProvider
from lab.plugins.common import EngineLog

RUNS = [
    "c1-create",
    "c2-next",
    "c3-update",
    "c4-replace",
    "c5-fails",
    "c6-badhostkey",
    "c7-deadhost",
    "c8-refresh",
    "c9-back",
    "c10-destroy",
]
RECORDED_HOST = "172.30.0.11"
DEAD_HOST = "172.30.0.99"
RECORDED_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----redacted-----END OPENSSH PRIVATE KEY-----"
WRONG_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}


@dataclass(frozen=True, kw_only=True)
class Host:
    """An SSH server on this machine that runs what it is told."""

    port: int
    host_key: str
    user_key: str

    def connection(self, **settings: Any) -> Json:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "root",
            "hostKey": self.host_key,
            "privateKey": self.user_key,
            "dialErrorLimit": 1,
            "perDialTimeout": 10,
            **settings,
        }


@asynccontextmanager
async def host() -> AsyncIterator[Host]:
    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        shell = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", process.command or ""),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = await shell.communicate(await process.stdin.read())
        process.stdout.write(output)
        process.stderr.write(errors)
        status = await shell.wait()
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)

    key = asyncssh.generate_private_key("ssh-ed25519")
    user = asyncssh.generate_private_key("ssh-ed25519")
    authorized = asyncssh.import_authorized_keys(user.export_public_key().decode())
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[key],
        authorized_client_keys=authorized,
        process_factory=run,
        encoding=None,
    )
    async with server:
        yield Host(
            port=server.get_port(),
            host_key=key.export_public_key().decode().strip(),
            user_key=user.export_private_key().decode(),
        )


@asynccontextmanager
async def silent_port() -> AsyncIterator[int]:
    """A port where a connection is taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def plugin() -> Any:
    return serving(CommandProvider(EngineLog(None)), "1.2.1")


def urn(kind: str, name: str = "it") -> str:
    return f"urn:pulumi:dev::rec::{kind}::{name}"


async def create(stub: Any, kind: str, **properties: Any) -> Json:
    return await ask(stub, "Create", {"urn": urn(kind), "properties": properties})


async def check(stub: Any, kind: str, **news: Any) -> Json:
    return await ask(stub, "Check", {"urn": urn(kind), "olds": {}, "news": news})


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def adapted(value: Any, here: Host, silent: int, directory: Path) -> Any:
    """`value` of a recording with this machine's addresses, keys and paths."""
    if isinstance(value, dict):
        adapted_items = {key: adapted(item, here, silent, directory) for key, item in value.items()}
        if value.get("host") in (RECORDED_HOST, DEAD_HOST):
            wrong = value["hostKey"] == WRONG_HOST_KEY
            adapted_items |= {
                "host": "127.0.0.1",
                "port": here.port if value["host"] == RECORDED_HOST else silent,
                "hostKey": WRONG_HOST_KEY if wrong else here.host_key,
                "perDialTimeout": 3 if value["host"] == RECORDED_HOST else 0.2,
            }
        return adapted_items
    if isinstance(value, list):
        return [adapted(item, here, silent, directory) for item in value]
    if isinstance(value, str):
        value = value.replace(RECORDED_KEY, here.user_key).replace("/tmp/", f"{directory}/")
        return value.replace(f"{DEAD_HOST}:22", f"127.0.0.1:{silent}")
    return value


def unexpected(call: Call) -> list[tuple[str, Any, Any]]:
    """The differences that are not in the nature of things: ids are random, two streams race."""
    left = []
    for path, recorded, answered in call.differences():
        name = call.request.get("urn", "").split("::")[-1]
        if (
            call.method == "Create"
            and path == "response.id"
            and re.fullmatch(f"{name}[0-9a-f]{{8}}", answered)
        ):
            continue
        if path == "errors[0]" and sorted(recorded.splitlines()) == sorted(answered.splitlines()):
            continue
        left.append((path, recorded, answered))
    return left


def test_answers_are_the_recorded_ones(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with host() as here, silent_port() as silent, plugin() as stub:
            compared = 0
            for name in RUNS:
                calls = [
                    call
                    for call in recording(f"command/{name}")
                    if "CopyToRemote" not in call["request"].get("urn", "") and call["method"] != "DiffConfig"
                ]
                for call in await replay(
                    stub, calls, rewrite=lambda value: adapted(value, here, silent, tmp_path)
                ):
                    assert unexpected(call) == [], (name, call.method, call.request)
                    compared += call.type in (LOCAL, REMOTE)
            assert compared > 150

    run(scenario)
    assert (tmp_path / "rec-deleted").read_text() == "deleted\n"
    assert (tmp_path / "deleted").read_text() == "d\nd\n"
