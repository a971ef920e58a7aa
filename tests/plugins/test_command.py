"""The command stand-in answers as the official plugin did, and keeps its word where no recording reaches."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import asyncssh
import grpc.aio
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2_grpc

from lab.plugins.command import LOCAL, LOGGED_BYTES, REMOTE, VERSION, CommandProvider
from lab.plugins.common import UNKNOWN, EngineLog
from tests.plugins.replay import Call, Json, ask, recording, replay, serving

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
async def host() -> AsyncIterator[Host]:
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
        )
        output, errors = await shell.communicate(given)
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
    urn = f"urn:pulumi:dev::rec::my:index:Component${kind}::it"
    return await ask(stub, "Create", {"urn": urn, "properties": properties})


async def check(stub: Any, kind: str, **news: Any) -> Json:
    urn = f"urn:pulumi:dev::rec::my:index:Component${kind}::it"
    return await ask(stub, "Check", {"urn": urn, "olds": {}, "news": news})


def run(scenario: Callable[[], Coroutine[Any, Any, None]], *, seconds: float = 30) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(seconds):
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
    async def scenario(silent: int) -> None:
        async with host() as here, plugin() as stub:
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

    with silent_port() as silent:
        run(lambda: scenario(silent))
    assert (tmp_path / "rec-deleted").read_text() == "deleted\n"
    assert (tmp_path / "deleted").read_text() == "d\nd\n"


@pytest.mark.parametrize("kind", [LOCAL, REMOTE])
def test_large_output_and_a_line_without_end(kind: str) -> None:
    async def scenario() -> None:
        lines = Lines()
        async with host() as here, plugin(lines) as stub:
            answer = await create(
                stub,
                kind,
                create="head -c 5000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y >&2",
                **({"connection": here.connection()} if kind == REMOTE else {}),
            )
        properties = answer["response"]["properties"]
        assert properties["stdout"] == "x" * 5_000_000
        assert properties["stderr"] == "y" * 3_000_000
        assert sorted(lines.shown) == ["x" * LOGGED_BYTES, "y" * LOGGED_BYTES]

    run(scenario)


@pytest.mark.parametrize("kind", [LOCAL, REMOTE])
def test_large_stdin_that_nobody_reads(kind: str) -> None:
    async def scenario() -> None:
        async with host() as here, plugin() as stub:
            answer = await create(
                stub,
                kind,
                create="exec <&-; echo done",
                stdin="x" * 2_000_000,
                **({"connection": here.connection()} if kind == REMOTE else {}),
            )
        assert answer["response"]["properties"]["stdout"] == "done"

    run(scenario)


@pytest.mark.parametrize("kind", [LOCAL, REMOTE])
def test_commands_run_side_by_side(kind: str) -> None:
    async def scenario() -> None:
        async with host() as here, plugin() as stub:
            extra = {"connection": here.connection()} if kind == REMOTE else {}
            start = time.monotonic()
            answers = await asyncio.gather(
                *(create(stub, kind, create=f"sleep 1; echo {number}", **extra) for number in range(30))
            )
            assert time.monotonic() - start < 8
        assert [answer["response"]["properties"]["stdout"] for answer in answers] == list(map(str, range(30)))

    run(scenario)


@pytest.mark.parametrize(
    ("logging", "shown"),
    [
        ("none", []),
        ("stdout", ["out"]),
        ("stderr", ["err"]),
        ("stdoutAndStderr", ["err", "out"]),
        (None, ["err", "out"]),
    ],
)
def test_logging(logging: str | None, shown: list[str]) -> None:
    async def scenario() -> None:
        lines = Lines()
        async with plugin(lines) as stub:
            await create(stub, LOCAL, create="echo out; echo err >&2", logging=logging)
        assert sorted(lines.shown) == shown

    run(scenario)


def test_local_settings(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            answer = await create(
                stub,
                LOCAL,
                create="import os; print(os.getcwd(), os.environ['NAME'], 'HOME' in os.environ)",
                interpreter=[sys.executable, "-c"],
                dir=str(tmp_path),
                environment={"NAME": "value"},
            )
        assert answer["response"]["properties"]["stdout"] == f"{tmp_path} value True"

    run(scenario)


@pytest.mark.parametrize(
    ("properties", "error"),
    [
        ({"create": "kill -9 $$"}, 'signal: killed: running "kill -9 $$":\n'),
        ({"create": 'echo "é\t"; exit 2'}, 'exit status 2: running "echo \\"é\\t\\"; exit 2":\né\t\n'),
        ({"create": "true", "dir": "/nowhere"}, "No such file or directory: '/nowhere'"),
        ({"create": "x", "interpreter": ["/nowhere"]}, "No such file or directory: '/nowhere'"),
    ],
)
def test_local_failures(properties: Json, error: str) -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            answer = await create(stub, LOCAL, **properties)
        assert error in answer["errors"][0]

    run(scenario)


def test_remote_killed_by_a_signal() -> None:
    async def scenario() -> None:
        async with host() as here, plugin() as stub:
            answer = await create(stub, REMOTE, create="kill -9 $$", connection=here.connection())
        assert "desc = Process exited with status 137 from signal KILL: running" in answer["errors"][0]

    run(scenario)


def test_connection_lost_while_a_command_runs() -> None:
    async def scenario() -> None:
        async with host() as here, plugin() as stub:
            answer = await create(stub, REMOTE, create=DROP, connection=here.connection())
        assert "remote command exited without exit status or exit signal" in answer["errors"][0]

    run(scenario)


def test_connections_that_fail() -> None:
    async def scenario() -> None:
        lines = Lines()
        async with host() as here, plugin(lines) as stub:
            wrong_key = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
            with socket.create_server(("127.0.0.1", 0)) as listener:
                closed = listener.getsockname()[1]
            for settings, error in [
                ({"port": closed}, f"dial tcp 127.0.0.1:{closed}: connect: connection refused"),
                ({"hostKey": WRONG_HOST_KEY}, "ssh: handshake failed: ssh: host key mismatch"),
                (
                    {"privateKey": wrong_key},
                    "ssh: unable to authenticate, attempted methods [none publickey]",
                ),
                ({"host": "nowhere.invalid"}, "dial tcp: lookup nowhere.invalid: "),
            ]:
                answer = await create(stub, REMOTE, create="true", connection=here.connection(**settings))
                assert error in answer["errors"][0]
                assert "code = Unknown desc = after 1 failed attempts: " in answer["errors"][0]
                assert lines.shown == ["Dial 1/1 failed: retrying"]
                lines.shown.clear()

    run(scenario)


def test_a_server_that_never_answers() -> None:
    async def scenario(silent: int) -> None:
        async with host() as here, plugin() as stub:
            connection = here.connection(port=silent, perDialTimeout=0.3, dialErrorLimit=1)
            start = time.monotonic()
            answer = await create(stub, REMOTE, create="true", connection=connection)
            assert 0.6 < time.monotonic() - start < 5
        assert answer["errors"] == [
            "rpc error: code = DeadlineExceeded desc = after 1 failed attempts: "
            f"dial tcp 127.0.0.1:{silent}: i/o timeout"
        ]

    with silent_port() as silent:
        run(lambda: scenario(silent))


def test_any_host_key_without_one_given() -> None:
    async def scenario() -> None:
        async with host() as here, plugin() as stub:
            connection = here.connection()
            del connection["hostKey"]
            answer = await create(stub, REMOTE, create="echo in", connection=connection)
        assert answer["response"]["properties"]["stdout"] == "in"

    run(scenario)


@pytest.mark.parametrize("name", ["privateKey", "hostKey"])
def test_a_bad_key_is_named_and_not_shown(name: str) -> None:
    async def scenario() -> None:
        async with host() as here, plugin() as stub:
            connection = here.connection(**{name: "not-a-key-but-secret"})
            answer = await create(stub, REMOTE, create="true", connection=connection)
        assert f"connection.{name}: " in answer["errors"][0]
        assert "secret" not in answer["errors"][0]

    run(scenario)


def test_secret_stdin_is_in_no_error_and_no_log() -> None:
    async def scenario() -> None:
        lines = Lines()
        async with host() as here, plugin(lines) as stub:
            for kind, extra in ((LOCAL, {}), (REMOTE, {"connection": SECRET | {"value": here.connection()}})):
                stdin = SECRET | {"value": "the-secret"}
                answer = await create(stub, kind, create="cat > /dev/null; exit 5", stdin=stdin, **extra)
                assert "status 5" in answer["errors"][0]
                assert "the-secret" not in answer["errors"][0]
        assert lines.shown == []

    run(scenario)


def test_check_fills_in_the_connection() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            answer = await check(stub, REMOTE, create="true", connection={"host": UNKNOWN, "password": "p"})
        assert answer["response"] == {
            "inputs": {
                "create": "true",
                "connection": {
                    "host": UNKNOWN,
                    "password": SECRET | {"value": "p"},
                    "port": 22,
                    "user": "root",
                    "dialErrorLimit": 10,
                    "perDialTimeout": 15,
                },
            }
        }

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "inputs", "property", "reason"),
    [
        (LOCAL, {"assetPaths": ["*"]}, "assetPaths", "'assetPaths' is not in the lab's stand-in"),
        (
            REMOTE,
            {"environment": {"A": "b"}, "connection": {"host": "h"}},
            "environment",
            "'environment' is not in the lab's stand-in",
        ),
        (LOCAL, {"create": ["ls"]}, "create", "'create' is not a string: Array"),
        (LOCAL, {"triggers": "once"}, "triggers", "'triggers' is not a list: String"),
        (LOCAL, {"logging": "all"}, "logging", "not one of stdout, stderr, stdoutAndStderr, none: all"),
        (REMOTE, {}, "connection", "Missing required property 'connection'"),
        (REMOTE, {"connection": {}}, "connection.host", "Missing required property 'host'"),
        (REMOTE, {"connection": {"host": "h", "proxy": {}}}, "connection.proxy", "'connection.proxy' is not"),
    ],
)
def test_check_refuses(kind: str, inputs: Json, property: str, reason: str) -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            answer = await check(stub, kind, **inputs)
        [failure] = answer["response"]["failures"]
        assert failure["property"] == property
        assert reason in failure["reason"]

    run(scenario)


def test_an_unknown_type_is_an_error() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            answer = await check(stub, "command:remote:CopyToRemote", remotePath="/x")
        assert "command:remote:CopyToRemote is not in the lab's stand-in" in answer["errors"][0]

    run(scenario)


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ({"create": "a"}, {"create": "a", "delete": "b"}, {"delete": {}}),
        ({"create": "a", "delete": "b"}, {"create": "a"}, {"delete": {"kind": "DELETE"}}),
        (
            {"environment": {"A": "1", "B.c": "2"}},
            {"environment": {"A": "2"}},
            {"environment.A": {"kind": "UPDATE"}, 'environment["B.c"]': {"kind": "DELETE"}},
        ),
        ({"triggers": ["a"]}, {"triggers": ["a", "b"]}, {"triggers[1]": {}}),
        ({"stdin": "s"}, {"stdin": SECRET | {"value": "s"}}, {"stdin": {"kind": "UPDATE"}}),
        ({"stdin": "s"}, {"stdin": UNKNOWN}, {"stdin": {"kind": "UPDATE"}}),
        ({"stdin": "s", "stdout": "o", "stderr": ""}, {"stdin": "s"}, {}),
    ],
)
def test_diff(old: Json, new: Json, changes: Json) -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            urn = f"urn:pulumi:dev::rec::{LOCAL}::it"
            answer = await ask(stub, "Diff", {"urn": urn, "id": "it", "olds": old, "news": new})
        assert answer["response"].get("detailedDiff", {}) == changes
        assert answer["response"]["changes"] == ("DIFF_SOME" if changes else "DIFF_NONE")

    run(scenario)


@contextmanager
def engine() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that stands for the engine, with a plugin of its own; the plugin's port."""
    program = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'lab.plugins.command', '127.0.0.1:1'], process_group=0)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.kill()
        # The plugin holds the other end: it is gone too.
        assert process.stdout.read() == b""


@asynccontextmanager
async def running_command(port: int, fifo: Path) -> AsyncIterator[tuple[Any, asyncio.Task[Json], TextIO]]:
    """A command that runs in the plugin at `port`; whoever of it is alive holds the fifo open."""
    os.mkfifo(fifo)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        command = f"exec 3> {fifo}; echo begun >&3; sleep 60; true"
        waiting = asyncio.create_task(create(stub, LOCAL, create=command, logging="none"))
        with await asyncio.to_thread(fifo.open) as begun:
            assert begun.readline() == "begun\n"
            yield stub, waiting, begun


def test_cancel_ends_a_running_command(tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        async with running_command(port, tmp_path / "begun") as (stub, waiting, _):
            await stub.Cancel(empty_pb2.Empty())
            answer = await waiting
        assert answer["errors"][0].startswith("rpc error: code = Cancelled desc = canceled: running")

    with engine() as (_, port):
        run(lambda: scenario(port), seconds=10)


def test_plugin_and_commands_end_with_an_engine_that_was_killed(tmp_path: Path) -> None:
    async def scenario(process: subprocess.Popen[bytes], port: int) -> None:
        async with running_command(port, tmp_path / "begun") as (_, waiting, begun):
            process.kill()
            assert await asyncio.to_thread(begun.read) == ""
            assert "errors" in await waiting

    with engine() as (process, port):
        run(lambda: scenario(process, port), seconds=10)
