"""The command stand-in runs commands here and on hosts, and keeps its word where no recording reaches."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TextIO

import asyncssh
import grpc.aio
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2_grpc

from lab.plugins.command import LOCAL, LOGGED_BYTES, REMOTE
from tests.plugins.command_host import (
    DROP,
    SECRET,
    WRONG_HOST_KEY,
    Lines,
    create,
    host,
    plugin,
    run,
    silent_port,
    urn,
)
from tests.plugins.replay import Json, ask


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
def test_commands_run_side_by_side(kind: str, tmp_path: Path) -> None:
    """None of them ends before all have begun."""
    begun, hold = tmp_path / "begun", tmp_path / "hold"
    begun.mkdir()
    os.mkfifo(hold)

    async def all_have_begun() -> None:
        deadline = time.monotonic() + 20
        while (count := len(list(begun.iterdir()))) < 30:
            assert time.monotonic() < deadline, f"{count} of 30 commands have begun in 20 s"
            await asyncio.sleep(0.05)

    async def scenario() -> None:
        # They wait for the end of what nobody writes.
        holding = os.open(hold, os.O_RDWR)
        async with host() as here, plugin() as stub:
            extra = {"connection": here.connection()} if kind == REMOTE else {}
            command = f"exec <{hold}; touch {begun}/$$; read line || echo done"
            running = asyncio.gather(*(create(stub, kind, create=command, **extra) for _ in range(30)))
            try:
                await all_have_begun()
            finally:
                hold.unlink()
                os.close(holding)
                answers = await running
        assert [answer["response"]["properties"]["stdout"] for answer in answers] == ["done"] * 30

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


def test_a_dial_time_out_of_0_is_none() -> None:
    async def scenario() -> None:
        async with host() as here, plugin() as stub:
            answer = await create(
                stub, REMOTE, create="echo in", connection=here.connection(perDialTimeout=0)
            )
        assert answer["response"]["properties"]["stdout"] == "in"

    run(scenario)


def test_any_host_key_without_one_given() -> None:
    async def scenario() -> None:
        async with host() as here, plugin() as stub:
            connection = here.connection()
            del connection["hostKey"]
            answer = await create(stub, REMOTE, create="echo in", connection=connection)
        assert answer["response"]["properties"]["stdout"] == "in"

    run(scenario)


def test_an_rsa_host_key_stands_for_sha1(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it does for the official plugin, which then can't talk to an sshd of this decade."""
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    of_today = [algorithm for algorithm in key.sig_algorithms if algorithm != b"ssh-rsa"]
    monkeypatch.setattr(type(key), "sig_algorithms", of_today)

    async def scenario() -> None:
        async with host(key) as here, plugin() as stub:
            answer = await create(stub, REMOTE, create="true", connection=here.connection())
        assert "ssh: handshake failed: Unable to find compatible server host key" in answer["errors"][0]

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


@pytest.mark.parametrize(
    ("kind", "method"), [(LOCAL, "Create"), (LOCAL, "Update"), (LOCAL, "Delete"), (REMOTE, "Create")]
)
def test_a_command_that_outlasts_its_custom_timeout_is_ended(kind: str, method: str, tmp_path: Path) -> None:
    """Whoever of it is alive holds the fifo open."""
    command = f"exec 3> {tmp_path}/fifo; exec sleep 60"

    async def scenario() -> None:
        async with host() as here, plugin() as stub:
            properties = {name.lower(): command for name in ("create", "update", "delete")}
            extra = {"connection": here.connection()} if kind == REMOTE else {}
            request = {"urn": urn(kind), "timeout": 1}
            if method == "Update":
                request |= {"id": "it", "olds": extra, "news": properties | extra}
            else:
                request |= {"properties": properties | extra}
            os.mkfifo(tmp_path / "fifo")
            waiting = asyncio.create_task(ask(stub, method, request))
            with await asyncio.to_thread((tmp_path / "fifo").open) as alive:
                assert await asyncio.to_thread(alive.read) == ""
            answer = await waiting
        assert answer["errors"] == [
            f'rpc error: code = DeadlineExceeded desc = context deadline exceeded: running "{command}":\n'
        ]

    run(scenario)


def test_a_custom_timeout_bounds_the_dialing_too() -> None:
    async def scenario(silent: int) -> None:
        async with host() as here, plugin() as stub:
            connection = here.connection(port=silent, perDialTimeout=0, dialErrorLimit=-1)
            properties = {"create": "true", "connection": connection}
            request = {"urn": urn(REMOTE), "timeout": 0.3, "properties": properties}
            answer = await ask(stub, "Create", request)
        assert "code = DeadlineExceeded desc = context deadline exceeded: running" in answer["errors"][0]

    with silent_port() as silent:
        run(lambda: scenario(silent))


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
