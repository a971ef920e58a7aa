"""Runs the program against a recorder in place of Pulumi's engine, which keeps all that it is told.

    run = program(read("lab"), preview=True)
    run.only("lab-bootstrap").dependencies

Like the engine it makes secrets of the outputs that a resource calls secret. What a plugin computes is made
up (`ANSWERS`), and unknown in a preview. With a state, which is another run, a preview knows it of every
resource that is there and asked for as it was.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import runpy
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any
from unittest.mock import patch

import pulumi
from google.protobuf import empty_pb2
from pulumi.runtime import mocks, rpc
from pulumi.runtime.proto import resource_pb2, source_pb2
from pulumi.runtime.settings import ROOT, SETTINGS
from pulumi.runtime.stack import run_in_stack

from tests.cases import CHECKOUT, Raw, read

REMOTE = "command:remote:Command"
LOCAL = "command:local:Command"

Answer = Callable[[str, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Secret:
    """A value that Pulumi keeps secret."""

    value: Any


class Unknown:
    """A value that only the run will know."""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A resource as the program asked for it."""

    urn: str
    type: str
    name: str
    parent: str
    provider: str
    inputs: dict[str, Any]
    dependencies: frozenset[str]
    protect: bool
    delete_before_replace: bool
    deleted_with: str
    retain_on_delete: bool
    ignored: tuple[str, ...]
    """Properties of which the state's value counts."""
    aliases: int
    before_update: tuple[str, ...]
    """Names of the hooks that run before it is updated."""
    before_create: tuple[str, ...]
    on_error: tuple[str, ...]
    replacement_trigger: Any
    """Another value replaces it."""
    replaced_by: tuple[str, ...]
    """Inputs whose change replaces it."""

    @cached_property
    def plain(self) -> Any:
        """The inputs with secrets laid open."""
        return revealed(self.inputs)

    @property
    def files(self) -> dict[str, bytes]:
        """What its standard input brings, unpacked."""
        return unpacked(revealed(self.inputs["stdin"]))


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run of the program registered, in order, and the stack's outputs."""

    resources: list[Registered] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    hooks: dict[str, pulumi.ResourceHook] = field(default_factory=dict)
    error_hooks: dict[str, pulumi.ErrorHook] = field(default_factory=dict)

    @property
    def by_urn(self) -> dict[str, Any]:
        """The inputs of every resource, with secrets laid open."""
        return {each.urn: each.plain for each in self.resources}

    def of(self, *types: str) -> list[Registered]:
        """The resources whose type is, or begins with, one of these."""
        return [resource for resource in self.resources if resource.type.startswith(types)]

    def without(self, *names: str) -> Run:
        """The run as if it had not registered these."""
        for name in names:
            self.only(name)
        return replace(self, resources=[each for each in self.resources if each.name not in names])

    def only(self, name: str) -> Registered:
        """The one resource of that name."""
        (found,) = [resource for resource in self.resources if resource.name == name]
        return found

    def before(self, resource: Registered) -> set[str]:
        """The URNs of all that has to be done before the resource."""
        by_urn = {each.urn: each for each in self.resources}
        found: set[str] = set()
        waiting = [resource]
        while waiting:
            each = waiting.pop()
            provider = each.provider.rpartition("::")[0]
            new = (each.dependencies | {provider}) & by_urn.keys() - found
            found |= new
            waiting += [by_urn[urn] for urn in new]
        return found


def changed(state: Run, preview: Run) -> set[str]:
    """URNs of what the preview shows as new or changed."""
    before, after = state.by_urn, preview.by_urn
    return {urn for urn in after if after[urn] != before.get(urn)}


def ran(name: str, *, preview: bool = False) -> Run:
    """The program's run with the config of that case."""
    return program(read(name), preview=preview)


@cache
def pki_texts(name: str) -> dict[str, str]:
    """PEM texts by name, as the program gets them from keys and certificates with the config of that case."""
    (assets,) = program(read(name) | {"mode": "render"}).of(LOCAL)
    return {
        path.removeprefix("tls/"): text.decode()
        for path, text in assets.files.items()
        if path.startswith("tls/")
    }


def program(
    raw: Raw, *, preview: bool = False, answers: Mapping[str, Answer] | None = None, state: Run | None = None
) -> Run:
    """Runs __main__.py with that config for the stack `test`. Those who ask for the same share one run."""
    config = tuple(
        (f"kubepivot:{key}", value if isinstance(value, str) else json.dumps(value))
        for key, value in raw.items()
    )
    if answers is None and state is None:
        return _run_once(config, preview)
    return record(lambda: _main(config), preview=preview, answers=answers, state=state)


Texts = tuple[tuple[str, str], ...]


@cache
def _run_once(config: Texts, preview: bool) -> Run:
    return record(lambda: _main(config), preview=preview)


def record(
    build: Callable[[], None],
    *,
    preview: bool = False,
    answers: Mapping[str, Answer] | None = None,
    state: Run | None = None,
) -> Run:
    """Runs a function that makes resources."""
    run = Run()

    # In a task of its own, because Pulumi keeps its settings in context variables.
    async def main() -> None:
        # A run that fails raises; each Output that waited would be told as well, by the thousand.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        # What a run that failed has left.
        SETTINGS.rpc_manager.clear()
        SETTINGS.outputs.clear()
        recorder = _Recorder(run, {**ANSWERS, **(answers or {})}, state or Run(), preview=preview)
        mocks.set_mocks(recorder.mocks, project="kubepivot", stack="test", preview=preview, monitor=recorder)
        ROOT.set(None)  # the stack that set_mocks makes has no outputs
        await run_in_stack(build)

    def register_hook(hook: pulumi.ResourceHook) -> asyncio.Future[None]:
        run.hooks[hook.name] = hook
        return registered()

    def register_error_hook(hook: pulumi.ErrorHook) -> asyncio.Future[None]:
        run.error_hooks[hook.name] = hook
        return registered()

    def registered() -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    with (
        # Nobody reads these, several for each resource.
        patch("pulumi.log.debug", lambda *_, **__: None),
        # Where in the source each resource is made takes an eighth of the time to find out, below pytest's
        # stack.
        patch("pulumi.runtime.resource._get_stack_trace", source_pb2.StackTrace),
        # The SDK would start a server for the engine to call.
        patch("pulumi.resource_hooks.register_resource_hook", register_hook),
        patch("pulumi.resource_hooks.register_error_hook", register_error_hook),
    ):
        asyncio.run(main())
    return run


def _main(config: Texts) -> None:
    pulumi.runtime.set_all_config(dict(config))
    runpy.run_path(str(CHECKOUT / "__main__.py"))


def _nothing(_: str, __: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _key(name: str, _: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "privateKeyPem": f"-----BEGIN PRIVATE KEY-----\n{name}\n-----END PRIVATE KEY-----\n",
        "privateKeyOpenssh": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{name}\n",
        "publicKeyPem": f"-----BEGIN PUBLIC KEY-----\n{name}\n-----END PUBLIC KEY-----\n",
        "publicKeyOpenssh": f"ssh-ed25519 {base64.b64encode(name.encode()).decode()}\n",
    }


def _certificate(name: str, _: Mapping[str, Any]) -> dict[str, Any]:
    return {"certPem": f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n"}


def _request(name: str, _: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "certRequestPem": f"-----BEGIN CERTIFICATE REQUEST-----\n{name}\n-----END CERTIFICATE REQUEST-----\n"
    }


def _remote(name: str, _: Mapping[str, Any]) -> dict[str, Any]:
    from components.ssh import DONE  # importing the SDK warns, which pytest allows in a test only

    if name.endswith("-backup"):
        return {"stdout": f"path=of {name}\nsha256=of {name}\n{DONE}", "stderr": ""}
    return {"stdout": f"machine-id=of {name}\nhostname=of {name}\n{DONE}", "stderr": ""}


def _local(name: str, _: Mapping[str, Any]) -> dict[str, Any]:
    return {"stdout": f"id of {name}", "stderr": ""}


ANSWERS: dict[str, Answer] = {
    "tls:index/privateKey:PrivateKey": _key,
    "tls:index/selfSignedCert:SelfSignedCert": _certificate,
    "tls:index/locallySignedCert:LocallySignedCert": _certificate,
    "tls:index/certRequest:CertRequest": _request,
    REMOTE: _remote,
    LOCAL: _local,
}
"""What a plugin computes for a resource of a type, from its name and inputs."""


class _NoFunctions(mocks.Mocks):
    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program calls {args.token}, which a preview without a cluster cannot")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        raise AssertionError(f"the program reads {args.name}")


class _Recorder(mocks.MockMonitor):
    """In place of the SDK's, which leaves an event loop open in every thread that it answers in."""

    def __init__(self, run: Run, answers: Mapping[str, Answer], state: Run, *, preview: bool) -> None:
        super().__init__(_NoFunctions())
        self._run = run
        self._answers = answers
        self._state = {each.urn: each.plain for each in state.resources}
        self._preview = preview

    def RegisterResource(self, request: Any) -> Any:
        urn = _urn(request)
        if request.type == "pulumi:pulumi:Stack":
            return resource_pb2.RegisterResourceResponse(urn=urn)
        registered = _registered(urn, request)
        self._run.resources.append(registered)
        # An input that is unknown equals nothing.
        known = not self._preview or self._state.get(urn) == registered.plain
        computed = self._answers.get(request.type, _nothing)(request.name, registered.plain)
        outputs = request.object
        for key, value in computed.items():
            shown = value if known else rpc.UNKNOWN
            outputs.update({key: _secret(shown) if key in request.additionalSecretOutputs else shown})
        identity = str(computed.get("id", f"{request.name}-id")) if known else ""
        return resource_pb2.RegisterResourceResponse(urn=urn, id=identity, object=outputs)

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if "::pulumi:pulumi:Stack::" in request.urn:
            self._run.outputs.update(_received(request.outputs))
        return empty_pb2.Empty()


def _urn(request: Any) -> str:
    parents = request.parent.split("::")[2] if request.parent else "pulumi:pulumi:Stack"
    path = request.type if parents == "pulumi:pulumi:Stack" else f"{parents}${request.type}"
    return f"urn:pulumi:test::kubepivot::{path}::{request.name}"


def _secret(value: str) -> dict[str, str]:
    return {rpc._special_sig_key: rpc._special_secret_sig, "value": value}


def _registered(urn: str, request: resource_pb2.RegisterResourceRequest) -> Registered:
    return Registered(
        urn=urn,
        type=request.type,
        name=request.name,
        parent=request.parent,
        provider=request.provider,
        inputs=_received(request.object),
        dependencies=frozenset(request.dependencies),
        protect=request.protect,
        delete_before_replace=request.deleteBeforeReplace,
        deleted_with=request.deletedWith,
        retain_on_delete=request.retainOnDelete,
        ignored=tuple(request.ignoreChanges),
        aliases=len(request.aliases),
        before_update=tuple(request.hooks.before_update),
        before_create=tuple(request.hooks.before_create),
        on_error=tuple(request.hooks.on_error),
        replacement_trigger=_readable(rpc.deserialize_property(request.replacement_trigger)),
        replaced_by=tuple(request.replaceOnChanges),
    )


def _received(properties: Any) -> dict[str, Any]:
    return {
        key: _readable(value)
        for key, value in rpc.deserialize_properties(properties, keep_unknowns=True).items()
    }


def _readable(value: Any) -> Any:
    if rpc.is_rpc_secret(value):
        return Secret(_readable(rpc.unwrap_rpc_secret(value)))
    match value:
        case pulumi.output.Unknown():
            return Unknown()
        case dict():
            return {key: _readable(child) for key, child in value.items()}
        case list():
            return [_readable(child) for child in value]
        case _:
            return value


def revealed(value: Any) -> Any:
    """The value with secrets laid open."""
    match value:
        case Secret(inner):
            return revealed(inner)
        case dict() if rpc.is_rpc_secret(value):
            return revealed(rpc.unwrap_rpc_secret(value))
        case dict():
            return {key: revealed(child) for key, child in value.items()}
        case list():
            return [revealed(child) for child in value]
        case _:
            return value


def has(kind: type, value: Any) -> bool:
    """Whether a value of that kind is in it, such as `Unknown`."""
    match value:
        case dict():
            return any(has(kind, child) for child in value.values())
        case list():
            return any(has(kind, child) for child in value)
        case _:
            return isinstance(value, kind)


def exposed(value: Any) -> str:
    """All text of the value that is not secret."""
    match value:
        case Secret() | Unknown():
            return ""
        case dict():
            return "\n".join(f"{key}\n{exposed(child)}" for key, child in value.items())
        case list():
            return "\n".join(map(exposed, value))
        case _:
            return str(value)


def unpacked(stdin: str) -> dict[str, bytes]:
    """Paths and contents of an archive on its way to a host."""
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(stdin))) as tar:
        return {
            entry.name: content.read()
            for entry in tar.getmembers()
            if (content := tar.extractfile(entry)) is not None
        }
