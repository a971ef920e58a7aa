"""Stand-in for Pulumi's `command` plugin: `command:local:Command` and `command:remote:Command`.

Commands are really run, here through `/bin/sh -c` or on a host over SSH, one connection a command. Ids,
diffs, outputs and error texts are those of the official plugin 1.2.1. An error that names it: CopyToRemote,
assets, proxies, SSH agents, and `environment` of a remote command (which sshd refuses by default).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.provider import (
    CheckFailure,
    CheckRequest,
    CheckResponse,
    CreateRequest,
    CreateResponse,
    DeleteRequest,
    DiffRequest,
    DiffResponse,
    GetSchemaRequest,
    GetSchemaResponse,
    PropertyDiff,
    PropertyDiffKind,
    Provider,
    UpdateRequest,
    UpdateResponse,
)

from lab.plugins.common import UNKNOWN, EngineLog, ProviderError, plain, property_value, resource_type, serve

VERSION = "1.2.1"
LOCAL = "command:local:Command"
REMOTE = "command:remote:Command"

_SHARED_INPUTS: Mapping[str, type] = {
    "create": str,
    "update": str,
    "delete": str,
    "stdin": str,
    "logging": str,
    "triggers": tuple,
    "addPreviousOutputInEnv": bool,
}
INPUTS: Mapping[str, Mapping[str, type]] = {
    LOCAL: {**_SHARED_INPUTS, "dir": str, "interpreter": tuple, "environment": Mapping},
    REMOTE: {**_SHARED_INPUTS, "connection": Mapping},
}
CONNECTION_INPUTS: Mapping[str, type] = {
    "host": str,
    "port": float,
    "user": str,
    "password": str,
    "privateKey": str,
    "privateKeyPassword": str,
    "hostKey": str,
    "dialErrorLimit": float,
    "perDialTimeout": float,
}
CONNECTION_DEFAULTS = {"port": 22, "user": "root", "dialErrorLimit": 10, "perDialTimeout": 15}
CONNECTION_SECRETS = ("password", "privateKey", "privateKeyPassword")
TYPE_NAMES = {str: "string", float: "number", bool: "boolean", tuple: "list", Mapping: "map"}
LOGGING = ("stdout", "stderr", "stdoutAndStderr", "none")
OUTPUTS = ("stdout", "stderr")
OVERDUE = "context deadline exceeded"
"""How a command fails that takes longer than the resource's `customTimeouts`."""
END_SECONDS = 1.0

CHUNK_BYTES = 64 * 1024
LOGGED_BYTES = 4000
"""Of a longer line of output only the beginning is shown while the command runs."""

Properties = dict[str, PropertyValue]


@dataclass(kw_only=True)
class Output:
    """What a command wrote; `both` is stdout and stderr in the order of arrival."""

    log: Callable[[str, str], Awaitable[None]]
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    both: bytearray = field(default_factory=bytearray)

    async def collect(self, stream: str, read: Callable[[int], Awaitable[bytes]]) -> None:
        """Take `stream` until its end, logging line by line."""
        line = b""
        while data := await read(CHUNK_BYTES):
            getattr(self, stream).extend(data)
            self.both.extend(data)
            *complete, line = (line + data).split(b"\n")
            for text in complete:
                await self.log(stream, _text(text[:LOGGED_BYTES]))
            line = line[:LOGGED_BYTES]
        if line:
            await self.log(stream, _text(line))


class CommandProvider(Provider):
    """Runs commands on this machine and on hosts over SSH."""

    def __init__(self, log: EngineLog) -> None:
        self._log = log
        self._running: set[asyncio.Task[str | None]] = set()

    async def get_schema(self, request: GetSchemaRequest) -> GetSchemaResponse:
        """The package's name and version: the types are in the SDK."""
        return GetSchemaResponse(f'{{"name": "command", "version": "{VERSION}"}}')

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Complain about inputs that are wrong; give `connection` its defaults and mark its secrets."""
        kind = resource_type(request.urn)
        known = INPUTS.get(kind)
        if known is None:
            raise ProviderError(
                f"{kind} is not in the lab's stand-in for the command plugin, which has {LOCAL} and "
                f"{REMOTE}: install the official plugin"
            )
        inputs = dict(request.new_inputs)
        failures = list(_failures(inputs, known))
        connection = inputs.get("connection")
        if connection is not None and isinstance(connection.value, Mapping):
            inputs["connection"] = connection.with_value(_connection(connection.value))
            if "host" not in connection.value:
                failures.append(CheckFailure("connection.host", "Missing required property 'host'"))
        elif connection is None and kind == REMOTE:
            failures.append(CheckFailure("connection", "Missing required property 'connection'"))
        return CheckResponse(inputs=inputs, failures=failures)

    async def diff(self, request: DiffRequest) -> DiffResponse:
        """Any change of an input is an update; that `triggers` replace is for the SDK to say."""
        known = INPUTS[resource_type(request.urn)]
        old = {key: value for key, value in request.old_state.items() if key in known}
        details: dict[str, PropertyDiff] = {}
        changed = []
        for key in sorted(old.keys() | request.new_inputs.keys()):
            changes = list(_changes(key, old.get(key), request.new_inputs.get(key)))
            details |= {path: PropertyDiff(kind, False) for path, kind in changes}
            changed += [key] * bool(changes)
        return DiffResponse(changes=bool(changed), diffs=changed, detailed_diff=details)

    async def create(self, request: CreateRequest) -> CreateResponse:
        """Run `create`."""
        return CreateResponse(
            resource_id=request.name + secrets.token_hex(4),
            properties=await self._apply(request, request.properties, {}, ("create",)),
        )

    async def update(self, request: UpdateRequest) -> UpdateResponse:
        """Run `update`, or `create` again where there is none."""
        return UpdateResponse(await self._apply(request, request.news, request.olds, ("update", "create")))

    async def delete(self, request: DeleteRequest) -> None:
        """Run `delete`, if there is one."""
        await self._run(request, request.properties, request.properties, ("delete",))

    async def cancel(self) -> None:
        """End the commands that are running."""
        for task in self._running:
            task.cancel()

    async def _apply(
        self,
        request: CreateRequest | UpdateRequest,
        inputs: Properties,
        olds: Properties,
        names: Sequence[str],
    ) -> Properties:
        if request.preview:
            return inputs | {name: PropertyValue(UNKNOWN) for name in OUTPUTS}
        output = await self._run(request, inputs, olds, names)
        if output is None:
            return inputs | {name: olds.get(name, PropertyValue("")) for name in OUTPUTS}
        return inputs | {
            name: PropertyValue(_text(getattr(output, name)).removesuffix("\n")) for name in OUTPUTS
        }

    async def _run(
        self,
        request: CreateRequest | UpdateRequest | DeleteRequest,
        inputs: Properties,
        olds: Properties,
        names: Sequence[str],
    ) -> Output | None:
        """Run the first command of `names` that is set; None if none is."""
        values = {key: plain(value) for key, value in inputs.items()}
        command = next((values[name] for name in names if values.get(name)), None)
        if command is None:
            return None
        if values.get("addPreviousOutputInEnv") is not False:
            before = {f"PULUMI_COMMAND_{name.upper()}": plain(olds[name]) for name in OUTPUTS if name in olds}
            values["environment"] = (values.get("environment") or {}) | {k: v for k, v in before.items() if v}
        shown = (values.get("logging") or "stdoutAndStderr").lower()

        async def log(stream: str, line: str) -> None:
            if stream in shown:
                await self._log.status(request.urn, line)

        async def status(message: str) -> None:
            await self._log.status(request.urn, message)

        output = Output(log=log)
        running = (
            _run_here(command, values, output, request.timeout)
            if resource_type(request.urn) == LOCAL
            else _run_on_host(command, values, output, status, request.timeout)
        )
        task = asyncio.create_task(running)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            failure = await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise ProviderError(f"canceled: running {_quote(command)}", grpc.StatusCode.CANCELLED) from None
        if failure is not None:
            code = grpc.StatusCode.DEADLINE_EXCEEDED if failure == OVERDUE else grpc.StatusCode.UNKNOWN
            raise ProviderError(f"{failure}: running {_quote(command)}:\n{_text(output.both)}", code)
        return output


async def _run_here(command: str, values: Mapping[str, Any], output: Output, seconds: float) -> str | None:
    """Run `command` on this machine, for `seconds` at most (0: without limit); how it failed, or None.

    It stays in the plugin's process group: the engine kills that group when it ends the plugin.
    """
    stdin = values.get("stdin")
    try:
        process = await asyncio.create_subprocess_exec(
            *(values.get("interpreter") or ("/bin/sh", "-c")),
            command,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=values.get("dir"),
            env=os.environ | (values.get("environment") or {}),
        )
    except OSError as error:
        return str(error)
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(seconds or None):
            await asyncio.gather(
                output.collect("stdout", process.stdout.read),
                output.collect("stderr", process.stderr.read),
                *([_feed(process.stdin, stdin)] if stdin else []),
            )
            code = await process.wait()
    except TimeoutError:
        return OVERDUE
    finally:
        if process.returncode is None:
            process.kill()
            # Not for long: children of the shell may hold its output open until the engine ends the plugin.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), END_SECONDS)
    if code < 0:
        return f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
    return f"exit status {code}" if code else None


async def _run_on_host(
    command: str,
    values: Mapping[str, Any],
    output: Output,
    status: Callable[[str], Awaitable[None]],
    seconds: float,
) -> str | None:
    """Run `command` over SSH; how it failed, or None.

    Connecting and running take `seconds` at most (0: without limit), where the official plugin bounds the
    connecting alone. A refusal of the previous output as environment (sshd's AcceptEnv) cannot be seen here.
    """
    import asyncssh

    from lab.plugins.ssh import dial

    try:
        async with (
            asyncio.timeout(seconds or None) as limit,
            await dial(values["connection"], status) as client,
        ):
            process = await client.create_process(command, env=values.get("environment") or (), encoding=None)
            try:
                await asyncio.gather(
                    output.collect("stdout", process.stdout.read),
                    output.collect("stderr", process.stderr.read),
                    _feed(process.stdin, values.get("stdin") or ""),
                )
                await process.wait_closed()
            finally:
                if limit.expired():
                    with contextlib.suppress(OSError):  # it has ended just now
                        process.kill()
    except (asyncssh.Error, OSError) as error:
        if limit.expired():
            return OVERDUE
        return f"wait: remote command exited without exit status or exit signal ({error})"
    if process.exit_signal is not None:
        name, _, message, _ = process.exit_signal
        number = getattr(signal, f"SIG{name}", 0)
        reason = f". Reason was: {message}" if message else ""
        return f"Process exited with status {128 + number} from signal {name}{reason}"
    if process.exit_status is None:
        return "wait: remote command exited without exit status or exit signal"
    return f"Process exited with status {process.exit_status}" if process.exit_status else None


async def _feed(writer: Any, text: str) -> None:
    """Write all of stdin and close it; a command may end without reading it."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        writer.write(text.encode())
        await writer.drain()
        writer.write_eof()


def _failures(
    inputs: Mapping[str, PropertyValue], known: Mapping[str, type], path: str = ""
) -> Iterator[CheckFailure]:
    """What is wrong with `inputs` by name, type or value."""
    for key, value in inputs.items():
        name = path + key
        if key not in known:
            reason = (
                f"property '{name}' is not in the lab's stand-in for the command plugin, which has "
                f"{', '.join(sorted(known))}: leave it out or install the official plugin"
            )
            yield CheckFailure(name, reason)
        elif value.value in (None, UNKNOWN):
            continue
        elif not isinstance(value.value, known[key]):
            yield CheckFailure(
                name, f"property '{name}' is not a {TYPE_NAMES[known[key]]}: {value.type.value}"
            )
        elif key == "logging" and value.value not in LOGGING:
            yield CheckFailure(name, f"property 'logging' is not one of {', '.join(LOGGING)}: {value.value}")
        elif key == "connection":
            yield from _failures(
                cast(Mapping[str, PropertyValue], value.value), CONNECTION_INPUTS, "connection."
            )


def _connection(given: Mapping[str, PropertyValue]) -> Properties:
    """`given` with defaults, its secrets marked."""
    connection = {key: property_value(value) for key, value in CONNECTION_DEFAULTS.items()}
    connection |= {key: value for key, value in given.items() if value.value is not None}
    for key in connection.keys() & CONNECTION_SECRETS:
        connection[key] = connection[key].with_secret(True)
    return connection


def _changes(
    path: str, old: PropertyValue | None, new: PropertyValue | None
) -> Iterator[tuple[str, PropertyDiffKind]]:
    """The changed leaves; a secret is a leaf, and becoming one is a change."""
    before = None if old is None else old.value
    after = None if new is None else new.value
    if old is None or before is None:
        if after is not None:
            yield path, PropertyDiffKind.ADD
    elif new is None or after is None:
        yield path, PropertyDiffKind.DELETE
    elif old.is_secret or new.is_secret:
        if old != new:
            yield path, PropertyDiffKind.UPDATE
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            inner = f"{path}.{key}" if key.isidentifier() else f'{path}["{key}"]'
            yield from _changes(inner, before.get(key), after.get(key))
    elif isinstance(before, tuple) and isinstance(after, tuple):
        for index in range(max(len(before), len(after))):
            items = ([*values, *[None] * index][index] for values in (before, after))
            yield from _changes(f"{path}[{index}]", *items)
    elif old != new:
        yield path, PropertyDiffKind.UPDATE


def _text(data: bytes | bytearray) -> str:
    return data.decode(errors="replace")


def _quote(text: str) -> str:
    """`text` as a string literal, as the official plugin quotes commands in errors."""
    return json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    serve(CommandProvider, VERSION)
