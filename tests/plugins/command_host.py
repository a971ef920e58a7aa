"""What the command stand-in's tests share: an SSH server that runs what it is told, and the plugin."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import asyncssh

from lab.plugins.command import VERSION, CommandProvider
from lab.plugins.common import EngineLog
from tests.plugins.replay import Json, ask, serving

WRONG_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
DROP = "drop the connection"
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
async def host(key: asyncssh.SSHKey | None = None) -> AsyncIterator[Host]:
    shells: list[asyncio.subprocess.Process] = []

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        given = await process.stdin.read()
        if process.command == DROP:
            process.channel.get_connection().abort()
            return
        shell = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", process.command or ""),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        shells.append(shell)
        # As sshd does: to all that the command has started.
        cast(Any, process).signal_received = lambda name: os.killpg(shell.pid, signal.Signals[f"SIG{name}"])
        output, errors = await shell.communicate(given)
        process.stdout.write(output)
        process.stderr.write(errors)
        status = await shell.wait()
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)

    key = key or asyncssh.generate_private_key("ssh-ed25519")
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
        try:
            yield Host(
                port=server.get_port(),
                host_key=key.export_public_key().decode().strip(),
                user_key=user.export_private_key().decode(),
            )
        finally:
            # Whatever became of the test: the server waits for them.
            for shell in shells:
                if shell.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(shell.pid, signal.SIGKILL)
                    await shell.wait()


class Lines(EngineLog):
    """What the user would see beside a resource while its command runs."""

    def __init__(self) -> None:
        super().__init__(None)
        self.shown: list[str] = []

    async def status(self, urn: str, message: str) -> None:
        self.shown.append(message)


@contextmanager
def silent_port() -> Iterator[int]:
    """A port where a connection is taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def plugin(log: EngineLog | None = None) -> AbstractAsyncContextManager[Any]:
    return serving(CommandProvider(log or EngineLog(None)), VERSION)


async def create(stub: Any, kind: str, **properties: Any) -> Json:
    """The answer to a Create of a resource inside a component."""
    return await ask(stub, "Create", {"urn": urn(kind), "properties": properties})


async def check(stub: Any, kind: str, **news: Any) -> Json:
    return await ask(stub, "Check", {"urn": urn(kind), "olds": {}, "news": news})


def urn(kind: str) -> str:
    return f"urn:pulumi:dev::rec::my:index:Component${kind}::it"


def run(scenario: Callable[[], Coroutine[Any, Any, None]], *, seconds: float = 30) -> None:
    async def bounded() -> None:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await scenario()
        except TimeoutError:
            assert not limit.expired(), f"it has not ended in {seconds:.0f} s"
            raise

    asyncio.run(bounded())
