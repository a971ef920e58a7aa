"""The plugin: what the engine asks, answered by the resource types."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import grpc
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.provider import (
    CheckFailure,
    CheckRequest,
    CheckResponse,
    ConfigureRequest,
    ConfigureResponse,
    CreateRequest,
    CreateResponse,
    DeleteRequest,
    DiffRequest,
    DiffResponse,
    GetSchemaRequest,
    GetSchemaResponse,
    Provider,
    ReadRequest,
    ReadResponse,
    UpdateRequest,
    UpdateResponse,
)
from pulumi.runtime.proto import provider_pb2

from lab.plugins.common import UNKNOWN, EngineLog, ProviderError, plain, property_value, resource_type
from lab.plugins.digitalocean.api import Api, Settings
from lab.plugins.digitalocean.dns_record import DnsRecord
from lab.plugins.digitalocean.droplet import Droplet
from lab.plugins.digitalocean.firewall import Firewall
from lab.plugins.digitalocean.load_balancer import LoadBalancer
from lab.plugins.digitalocean.project_resources import ProjectResources
from lab.plugins.digitalocean.reserved_ip import ReservedIp, ReservedIpAssignment
from lab.plugins.digitalocean.resource import TIMEOUT_SECONDS, Data, Operation, Resource
from lab.plugins.digitalocean.schema import DEFAULTS, Plan, Values, failures, plan, refreshed, with_defaults
from lab.plugins.digitalocean.ssh_key import SshKey
from lab.plugins.digitalocean.tag import Tag
from lab.plugins.digitalocean.vpc import Vpc
from lab.plugins.digitalocean.waits import Canceled, Clock, Deadline, Failed

VERSION = "4.76.0"
RESOURCES: Sequence[type[Resource]] = (
    DnsRecord,
    Droplet,
    Firewall,
    LoadBalancer,
    ProjectResources,
    ReservedIp,
    ReservedIpAssignment,
    SshKey,
    Tag,
    Vpc,
)

CONFIG = (
    "token",
    "apiEndpoint",
    "httpRetryMax",
    "httpRetryWaitMin",
    "httpRetryWaitMax",
    "requestsPerSecond",
    "spacesAccessId",
    "spacesEndpoint",
    "spacesSecretKey",
)
ENGINES_OWN = ("version", "pluginDownloadURL")
"""What the engine puts among a provider's inputs."""

META = "__meta"
"""Among a resource's outputs: what the official plugin keeps for itself."""

SUFFIX_BYTES = 4
SUFFIX_DIGITS = 7

Properties = dict[str, PropertyValue]


class DigitalOceanProvider(Provider):
    """Resources of DigitalOcean. Without a token the first request fails, and nothing before."""

    def __init__(self, log: EngineLog, clock: Clock | None = None) -> None:
        self._log = log
        self._clock = clock or Clock()
        self._resources = {kind.token: kind() for kind in RESOURCES}
        self._api: Api | None = None

    async def get_schema(self, request: GetSchemaRequest) -> GetSchemaResponse:
        """The package's name and version: the types are in the SDK."""
        return GetSchemaResponse(f'{{"name": "digitalocean", "version": "{VERSION}"}}')

    async def check_config(self, request: CheckRequest) -> CheckResponse:
        """Complain about unknown settings and about texts that are no numbers."""
        config = _values(request.new_inputs)
        problems = [
            CheckFailure(key, f"could not validate provider configuration: invalid or unknown key '{key}'")
            for key in config
            if key not in (*CONFIG, *ENGINES_OWN) and not key.startswith("__")
        ]
        try:
            _settings({key: value for key, value in config.items() if value != UNKNOWN})
        except Failed as error:
            problems.append(CheckFailure("", str(error)))
        return CheckResponse(inputs=request.new_inputs, failures=problems)

    async def configure(self, request: ConfigureRequest) -> ConfigureResponse:
        """Take the settings. Secrets are the engine's business, as with the official plugin."""
        try:
            settings = _settings(_values(request.args))
        except Failed as error:
            raise ProviderError(str(error)) from error
        self._api = Api(settings, self._clock)
        return ConfigureResponse(supports_preview=True)

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Complain about inputs that are wrong; fill in defaults and a name."""
        kind = self._kind(request.urn)
        old = _values(request.old_inputs)
        given = {key: value for key, value in _values(request.new_inputs).items() if value is not None}
        problems = [*failures(given, kind.fields), *kind.check(given)]
        if problems:
            return CheckResponse(inputs=request.new_inputs, failures=problems)
        inputs = with_defaults(given, kind.fields)
        for key, known in kind.fields.items():
            if known.named and key not in inputs:
                chosen = old.get(key) if key in old.get(DEFAULTS, [key]) else None
                inputs[key] = chosen or f"{request.name}-{_suffix(request.random_seed)}"
        inputs[DEFAULTS] = sorted(inputs.keys() - given.keys() - {DEFAULTS})
        return CheckResponse(inputs=_properties(inputs))

    async def diff(self, request: DiffRequest) -> DiffResponse:
        """Say what changes, and whether that replaces."""
        kind = self._kind(request.urn)
        inputs = _values(request.new_inputs)
        made = _plan(kind, request.urn, inputs, _values(request.old_state), request.ignore_changes)
        replaces = made.replaces
        return DiffResponse(
            changes=bool(made.changes),
            replaces=replaces,
            stables=[name for name, known in kind.fields.items() if known.replaces and name not in replaces],
            delete_before_replace=bool(replaces) and _is_named(inputs, kind),
            diffs=sorted({name for name in kind.fields if made.changed(name)}),
            detailed_diff=made.changes,
        )

    async def create(self, request: CreateRequest) -> CreateResponse:
        """Make a resource, or say in a preview what it will be."""
        kind = self._kind(request.urn)
        made = _plan(kind, request.urn, _values(request.properties), {})
        if request.preview:
            return CreateResponse(properties=_outputs(kind, made.values))
        values = {key: None if value == UNKNOWN else value for key, value in made.values.items()}
        data = Data(values=values, plan=made)
        await self._run(kind.create, kind, request, data, "create", f"creating {request.urn}")
        if not data.id:
            raise ProviderError(f"expected non-nil error with nil state during Create of {request.urn}")
        return CreateResponse(resource_id=data.id, properties=_outputs(kind, data.values))

    async def read(self, request: ReadRequest) -> ReadResponse:
        """Say what a resource is today; without an id if it is gone."""
        if not request.properties:
            raise ProviderError("imports are not in the lab's stand-in: install the official plugin")
        kind = self._kind(request.urn)
        data = Data(values=_values(request.properties), id=request.resource_id)
        await self._run(kind.read, kind, request, data, "read", f"refreshing {request.urn}")
        if not data.id:
            return ReadResponse()
        inputs = refreshed(_values(request.inputs), data.values, kind.fields)
        return ReadResponse(data.id, _outputs(kind, data.values), _properties(inputs))

    async def update(self, request: UpdateRequest) -> UpdateResponse:
        """Change a resource in place, or say in a preview what it will be."""
        kind = self._kind(request.urn)
        made = _plan(
            kind, request.urn, _values(request.news), _values(request.olds), list(request.ignore_changes)
        )
        if request.preview:
            return UpdateResponse(_outputs(kind, made.values))
        values = {key: made.old.get(key) if value == UNKNOWN else value for key, value in made.values.items()}
        data = Data(values=values, id=request.resource_id, plan=made)
        await self._run(kind.update, kind, request, data, "update", f"updating {request.urn}")
        if not data.id:
            raise ProviderError(
                "Resource provider reported that the resource did not exist while updating "
                f"{request.urn}. This is usually a result of the resource having been deleted outside of "
                "Pulumi, and can often be fixed by running `pulumi refresh` before updating."
            )
        return UpdateResponse(_outputs(kind, data.values))

    async def delete(self, request: DeleteRequest) -> None:
        """End a resource."""
        kind = self._kind(request.urn)
        data = Data(values=_values(request.properties), id=request.resource_id)
        await self._run(kind.delete, kind, request, data, "delete", f"deleting {request.urn}")

    async def cancel(self) -> None:
        """End all waits. A request that is under way is not cut off: its answer may name what it made."""
        self._clock.cancel()

    def _kind(self, urn: str) -> Resource:
        token = resource_type(urn)
        if token not in self._resources:
            raise ProviderError(
                f"{token} is not in the lab's stand-in for the digitalocean plugin, which has "
                f"{', '.join(self._resources)}: install the official plugin"
            )
        return self._resources[token]

    async def _run(
        self,
        run: Callable[[Operation, Data], Awaitable[None]],
        kind: Resource,
        request: CreateRequest | ReadRequest | UpdateRequest | DeleteRequest,
        data: Data,
        name: str,
        doing: str,
    ) -> None:
        """Run an operation. Where one that makes or changes fails, the error carries what there is."""
        assert self._api is not None, "the engine configures a provider before it uses one"
        seconds = kind.timeouts.get(name, TIMEOUT_SECONDS)
        if name in kind.timeouts and not isinstance(request, ReadRequest) and request.timeout:
            seconds = request.timeout
        deadline = Deadline(clock=self._clock, end=self._clock.now() + seconds)
        operation = Operation(api=self._api, deadline=deadline, seconds=seconds)
        try:
            await run(operation, data)
        except Failed as error:
            reason = f"{doing}: 1 error occurred:\n\t* {error}\n\n"
            code = grpc.StatusCode.CANCELLED if isinstance(error, Canceled) else grpc.StatusCode.UNKNOWN
            details = None
            if data.id and isinstance(request, CreateRequest | UpdateRequest):
                details = provider_pb2.ErrorResourceInitFailed(
                    id=data.id,
                    properties=PropertyValue.marshal_map(_outputs(kind, data.values)),
                    reasons=[reason],
                )
            raise ProviderError(reason, code, details) from error
        for warning in operation.warnings:
            await self._log.warn(request.urn, warning)


def _plan(
    kind: Resource,
    urn: str,
    inputs: Mapping[str, Any],
    old: Mapping[str, Any],
    ignored: Sequence[str] = (),
) -> Plan:
    made = plan(inputs, old, kind.fields, ignored)
    try:
        kind.review(made)
    except Failed as error:
        raise ProviderError(f"diffing {urn}: {error}") from error
    return made


def _settings(config: Mapping[str, Any]) -> Settings:
    settings = Settings.from_config(config)
    if urlsplit(settings.endpoint).path.strip("/"):
        # The official plugin's client drops it for some requests and keeps it for others.
        raise Failed(f"digitalocean:apiEndpoint has a path: {settings.endpoint!r}: use one without")
    return replace(settings, endpoint=settings.endpoint.rstrip("/"))


def _is_named(inputs: Mapping[str, Any], kind: Resource) -> bool:
    """Whether the program gave the name, which no second resource may have beside the first."""
    made_up = inputs.get(DEFAULTS)
    return made_up is not None and any(
        known.named and key in inputs and key not in made_up for key, known in kind.fields.items()
    )


def _suffix(seed: bytes) -> str:
    return (seed.hex() if len(seed) >= SUFFIX_BYTES else secrets.token_hex(SUFFIX_BYTES))[:SUFFIX_DIGITS]


def _values(properties: Mapping[str, PropertyValue]) -> Values:
    """Properties as plain Python, with whole numbers as such."""
    return {key: _whole(plain(value)) for key, value in properties.items()}


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _outputs(kind: Resource, values: Mapping[str, Any]) -> Properties:
    version = {META: f'{{"schema_version":"{kind.schema_version}"}}'} if kind.schema_version else {}
    return _properties({**values, **version})


def _properties(values: Mapping[str, Any]) -> Properties:
    return {key: property_value(value) for key, value in values.items()}
