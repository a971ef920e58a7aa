"""Replays what the engine once asked an official plugin, to compare a stand-in's answers.

A recording (`tests/recordings/<plugin>/*.jsonl`) has a line per call: method, request, and the response or
the errors. `replay` makes the same calls, in order and over gRPC, and returns a `Call` for each:

    async with serving(CommandProvider(EngineLog(None)), "1.2.1") as plugin:
        for call in await replay(plugin, recording("command/c1-create")):
            assert call.differences() == []

Values that are made anew in each run (ids, output of other machines) differ. `replay` remembers them: where
the stand-in's answer had another string than the recording, later requests carry the stand-in's string, as in
a real run. What may differ is for the test to say:
`call.differences()` lists `(path, recorded, answered)`, with `ABSENT` for what one side does not have.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf import json_format
from pulumi.provider.experimental.provider import Provider
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from lab.plugins.common import MESSAGE_LIMIT, resource_type, start

RECORDINGS = Path(__file__).parent.parent / "recordings"
ABSENT = "<absent>"

REQUESTS = {
    "CheckConfig": provider_pb2.CheckRequest,
    "DiffConfig": provider_pb2.DiffRequest,
    "Configure": provider_pb2.ConfigureRequest,
    "Check": provider_pb2.CheckRequest,
    "Diff": provider_pb2.DiffRequest,
    "Create": provider_pb2.CreateRequest,
    "Read": provider_pb2.ReadRequest,
    "Update": provider_pb2.UpdateRequest,
    "Delete": provider_pb2.DeleteRequest,
}
"""Handshake is left out: the official plugins and the stand-ins alike do not implement it."""

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call: what was asked, what the official plugin answered and what the stand-in answers.

    An answer is `{"response": …}` or `{"errors": ["rpc error: code = … desc = …"]}`.
    """

    method: str
    request: Json
    recorded: Json
    answered: Json

    @property
    def type(self) -> str:
        """The resource's type token, from the URN."""
        return resource_type(self.request["urn"]) if "urn" in self.request else ""

    def differences(self) -> list[tuple[str, Any, Any]]:
        """Where the answers differ: `(path, recorded, answered)`."""
        return list(_differences("", _normal(self.recorded), _normal(self.answered)))


def recording(name: str) -> list[Json]:
    """The calls of `tests/recordings/<name>.jsonl` that a stand-in can be asked."""
    lines = (RECORDINGS / f"{name}.jsonl").read_text().splitlines()
    return [call for call in map(json.loads, lines) if call["method"] in REQUESTS]


@asynccontextmanager
async def serving(provider: Provider, version: str) -> AsyncIterator[Any]:
    """`provider` behind a real gRPC server; the client's stub."""
    server, port = await start(provider, version)
    try:
        options = [("grpc.max_receive_message_length", MESSAGE_LIMIT)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            yield provider_pb2_grpc.ResourceProviderStub(channel)
    finally:
        await server.stop(grace=None)


async def ask(plugin: Any, method: str, request: Json) -> Json:
    """The answer to one call, in the form of a recording."""
    message = json_format.ParseDict(request, REQUESTS[method](), ignore_unknown_fields=False)
    try:
        answer = await getattr(plugin, method)(message)
    except grpc.aio.AioRpcError as error:
        code = "".join(word.capitalize() for word in error.code().name.split("_"))
        return {"errors": [f"rpc error: code = {code} desc = {error.details()}"]}
    return {"response": json_format.MessageToDict(answer)}


async def replay(
    plugin: Any, calls: Iterable[Json], *, rewrite: Callable[[Json], Json] = lambda recorded: recorded
) -> list[Call]:
    """Make the recorded `calls`; `rewrite` adapts requests and recorded answers (an address, say)."""
    made = []
    ours: dict[str, str] = {}
    for call in calls:
        request = _substitute(rewrite(call["request"]), ours)
        answer = {key: call[key] for key in ("response", "errors") if key in call}
        recorded = _substitute(rewrite(answer), ours)
        answered = await ask(plugin, call["method"], request)
        made.append(Call(method=call["method"], request=request, recorded=recorded, answered=answered))
        if "response" in recorded and "response" in answered:
            for _, theirs, our in made[-1].differences():
                if isinstance(theirs, str) and isinstance(our, str) and ABSENT not in (theirs, our):
                    ours[theirs] = our
    return made


def _normal(value: Any) -> Any:
    """`value` without what carries no meaning: the order of sets, marks that only the Go plugins leave."""
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if not isinstance(value, dict):
        return value
    normal = {key: _normal(item) for key, item in value.items() if not key.startswith("__")}
    normal.pop("hasDetailedDiff", None)
    return normal | {key: sorted(normal[key]) for key in ("diffs", "replaces", "stables") if key in normal}


def _substitute(value: Any, ours: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _substitute(item, ours) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, ours) for item in value]
    return ours.get(value, value) if isinstance(value, str) else value


def _differences(path: str, recorded: Any, answered: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(recorded, dict) and isinstance(answered, dict):
        for key in sorted(recorded.keys() | answered.keys()):
            inner = f"{path}.{key}" if path else key
            yield from _differences(inner, recorded.get(key, ABSENT), answered.get(key, ABSENT))
    elif isinstance(recorded, list) and isinstance(answered, list) and len(recorded) == len(answered):
        for index, (theirs, ours) in enumerate(zip(recorded, answered, strict=True)):
            yield from _differences(f"{path}[{index}]", theirs, ours)
    elif recorded != answered:
        yield path, recorded, answered
