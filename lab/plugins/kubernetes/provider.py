"""The provider: what Pulumi asks about a resource, put to a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence

import grpc
from pulumi.provider.experimental import provider as rpc
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.runtime.proto import provider_pb2, status_pb2

from lab.plugins.common import UNKNOWN, EngineLog, ProviderError, resource_type
from lab.plugins.kubernetes import diff, kubeconfig, objects, settings
from lab.plugins.kubernetes.cluster import ApiError, Cluster, NoMatchError, UnreachableError
from lab.plugins.kubernetes.lifecycle import ConflictError, Lifecycle, NotReadyError
from lab.plugins.kubernetes.managers import manager_of
from lab.plugins.kubernetes.objects import Object, name_of, namespace_of, qualified
from lab.plugins.kubernetes.state import State, checkpoint, members, secret_texts, to_object

VERSION = "4.29.0"
"""The official plugin that this one stands in for."""

_TIMEOUT = 600.0
_DELETE_HINT = (
    "If the cluster was deleted, you can remove this resource from Pulumi state by rerunning the operation "
    'with the PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"'
)
_EXISTS_HINT = """

The resource already exists in the cluster. This can happen when:

  - Renaming a Pulumi resource: use an alias to preserve the identity,
    or use deleteBeforeReplace if the resource needs replacement.
  - Managing an existing resource: use a Patch resource (e.g. NamespacePatch)
    to manage specific fields without owning the resource lifecycle.
  - Adopting a resource into Pulumi: use `pulumi import`. Note that
    protected resources (e.g. kube-system) cannot be deleted on destroy.
  - Intentional upsert: set upsertExistingObjects on the provider to allow
    server-side apply to update existing objects on create."""
_IMMUTABLE = "field is immutable"
_NO_KIND = (
    "Kubernetes API server reported that the apiVersion for this resource does not exist. "
    "Verify that any required CRDs have been created"
)
_UNSUPPORTED_ANNOTATIONS = ("pulumi.com/waitFor", "pulumi.com/replaceUnready")

Properties = Mapping[str, PropertyValue]


class InitializationError(ProviderError):
    """An object that exists but is not as asked for; Pulumi keeps its state and the reasons."""

    def __init__(
        self,
        resource_id: str,
        message: str,
        reasons: Sequence[str],
        properties: Properties,
        inputs: Properties,
    ) -> None:
        super().__init__(message)
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message)
        status.details.add().Pack(
            provider_pb2.ErrorResourceInitFailed(
                id=resource_id,
                reasons=[message, *reasons],
                properties=PropertyValue.marshal_map(dict(properties)),
                inputs=PropertyValue.marshal_map(dict(inputs)),
            )
        )
        self.trailing_metadata = (("grpc-status-details-bin", status.SerializeToString()),)


class Kubernetes(rpc.Provider):
    """Any kind that the API server knows, and `*Patch` resources; no Helm, YAML or Kustomize."""

    def __init__(self, log: EngineLog) -> None:
        self._log = log
        self._settings = settings.Settings()
        self._cluster: Cluster | None = None
        self._unreachable = "the provider is not configured"
        self._cancelled = asyncio.Event()

    # The provider's own configuration.

    async def check_config(self, request: rpc.CheckRequest) -> rpc.CheckResponse:
        """Refuse arguments that nothing is known about."""
        failures = settings.failures(to_object(request.new_inputs))
        return rpc.CheckResponse(inputs=request.new_inputs, failures=failures)

    async def diff_config(self, request: rpc.DiffRequest) -> rpc.DiffResponse:
        """Replace the provider, and with it every object, if the cluster is another one."""
        try:
            changed, replacing = settings.changes(to_object(request.old_state), to_object(request.new_inputs))
        except kubeconfig.KubeconfigError as error:
            raise ProviderError(str(error)) from error
        return rpc.DiffResponse(diffs=changed, replaces=replacing)

    async def configure(self, request: rpc.ConfigureRequest) -> rpc.ConfigureResponse:
        """Look at the cluster once: whether it answers decides about the whole run."""
        self._settings = settings.Settings.parse(to_object(request.args))
        try:
            cluster = self.connect(self._settings.kubeconfig)
            await cluster.discover()
            self._cluster = cluster
        except kubeconfig.KubeconfigError as error:
            self._unreachable = str(error)
        except (ApiError, UnreachableError) as error:
            self._unreachable = f"unable to load schema information from the API server: {error}"
        return rpc.ConfigureResponse(accept_secrets=True, supports_preview=True)

    def connect(self, text: str) -> Cluster:
        """The cluster of a kubeconfig."""
        return Cluster(kubeconfig.access(kubeconfig.parse(text)))

    async def cancel(self) -> None:
        """End every wait."""
        self._cancelled.set()

    # Resources.

    async def check(self, request: rpc.CheckRequest) -> rpc.CheckResponse:
        """Normalize the inputs. Every object needs a name: there are no automatic ones."""
        inputs = objects.normalized(to_object(request.new_inputs))
        metadata = inputs.get("metadata")
        if metadata != UNKNOWN:
            if objects.metadata(inputs).get("generateName"):
                raise ProviderError(
                    "the `.metadata.generateName` field is not supported in Server-Side Apply mode"
                )
            if not name_of(inputs):
                raise ProviderError(
                    "patch resources require the `.metadata.name` field to be set"
                    if _is_patch(resource_type(request.urn), inputs)
                    else "autonaming is disabled, resource requires the .metadata.name field to be set"
                )
        for key in _UNSUPPORTED_ANNOTATIONS:
            if objects.annotation(inputs, key):
                raise ProviderError(
                    f"annotation {key} is not supported by this stand-in for the official plugin"
                )
        return rpc.CheckResponse(inputs=_marked(inputs, request.new_inputs))

    async def diff(self, request: rpc.DiffRequest) -> rpc.DiffResponse:
        """Compare the new inputs with what the last state holds in their place."""
        last = State(request.old_state)
        new = _placed(objects.normalized(to_object(request.new_inputs)), last.live)
        old = _placed(objects.pruned(last.live, objects.normalized(last.inputs)), last.live)
        diffs = diff.detailed(
            old, new, patch=_is_patch(resource_type(request.urn), new), ignored=request.ignore_changes
        )
        replacing = diff.replaces(diffs)
        same_place = (name_of(new), namespace_of(new)) == (name_of(last.live), namespace_of(last.live))
        return rpc.DiffResponse(
            changes=bool(diffs),
            replaces=replacing,
            delete_before_replace=bool(replacing) and same_place,
            detailed_diff=diffs,
        )

    async def create(self, request: rpc.CreateRequest) -> rpc.CreateResponse:
        """Create the object and wait until it is ready; a preview is the server's dry run, if it can be."""
        inputs = to_object(request.properties)
        as_asked = rpc.CreateResponse(resource_id="", properties=request.properties)
        patch = _is_patch(resource_type(request.urn), inputs)
        if request.preview and (patch or not await self._can_preview(inputs)):
            return as_asked
        life = self._lifecycle(request.urn, request.properties)
        manager = manager_of(inputs)
        failed = f'resource "{request.urn}" was not successfully created by the Kubernetes API server'
        try:
            live = await life.create(
                inputs, manager=manager, apply=self._settings.upsert, patch=patch, preview=request.preview
            )
        except NoMatchError as error:
            kind = f"{inputs['apiVersion']}/{inputs['kind']}"
            raise ProviderError(
                f'creation of resource "{request.urn}" with kind {kind} failed because the '
                f"{_NO_KIND}: {error}"
            ) from error
        except ApiError as error:
            exists = error.reason == "AlreadyExists"
            # A replacement cannot be tried out while the object that it replaces is there.
            in_the_way = exists or _IMMUTABLE in str(error)
            if request.preview and (in_the_way or error.code == 403 or error.missing_namespace):
                return as_asked
            hint = _EXISTS_HINT if exists else ""
            raise ProviderError(f"{failed}: {_hidden(error, request.properties)}{hint}") from error
        except (ConflictError, UnreachableError, NotReadyError) as error:
            raise ProviderError(f"{failed}: {_hidden(error, request.properties)}") from error
        failure = None
        if request.preview:
            live.pop("status", None)
        else:
            try:
                live = await life.ready(live, inputs, _timeout(request.timeout, inputs))
            except NotReadyError as error:
                failure, live = error, error.live
        outputs = checkpoint(
            live, inputs, request.properties, api_version=inputs["apiVersion"], manager=manager
        )
        if failure is not None:
            message = (
                f'resource "{request.urn}" was successfully created, but the Kubernetes API server '
                f"reported that it failed to fully initialize or become live: {failure}"
            )
            raise InitializationError(qualified(live), message, failure.problems, outputs, {}) from failure
        await life.done()
        return rpc.CreateResponse(resource_id="" if request.preview else qualified(live), properties=outputs)

    async def update(self, request: rpc.UpdateRequest) -> rpc.UpdateResponse:
        """Apply the new inputs to the live object and wait until it is ready."""
        old = State(request.olds)
        inputs = objects.normalized(to_object(request.news))
        as_asked = rpc.UpdateResponse(properties=request.news)
        if request.preview and not await self._can_preview(inputs):
            return as_asked
        life = self._lifecycle(request.urn, request.news)
        manager = manager_of(inputs, old.manager)
        failure: Exception | None = None
        try:
            live = await life.update(
                inputs,
                old.live,
                manager=manager,
                patch=_is_patch(resource_type(request.urn), inputs),
                preview=request.preview,
                ignored=request.ignore_changes,
            )
            if not request.preview:
                live = await life.ready(live, inputs, _timeout(request.timeout, inputs))
                if old.manager not in ("", manager):
                    await life.relinquish(live, manager=old.manager)
        except NoMatchError as error:
            raise ProviderError(
                f'update of resource "{request.urn}" failed because the {_NO_KIND}: {error}'
            ) from error
        except (ApiError, ConflictError, UnreachableError, NotReadyError) as error:
            if request.preview and isinstance(error, ApiError) and error.code == 403:
                return as_asked
            failure = error
            try:
                live = await self._reachable().get(old.live)
            except (ApiError, UnreachableError) as unread:
                text = _hidden(error, request.news)
                raise ProviderError(
                    f'update of resource "{request.urn}" failed: {text}\n'
                    f"unable to get cluster state: {unread}"
                ) from error
        outputs = checkpoint(live, inputs, request.news, api_version=old.api_version, manager=manager)
        if failure is not None:
            message = (
                f'the Kubernetes API server reported that "{qualified(live)}" failed to fully initialize '
                f"or become live: {_hidden(failure, request.news)}"
            )
            problems = failure.problems if isinstance(failure, NotReadyError) else ()
            raise InitializationError(qualified(live), message, problems, outputs, {}) from failure
        await life.done()
        return rpc.UpdateResponse(properties=outputs)

    async def read(self, request: rpc.ReadRequest) -> rpc.ReadResponse:
        """The live object; none if it is gone."""
        gone = rpc.ReadResponse(resource_id="")
        if self._cluster is None:
            await self._warn_unreachable(request.urn)
            if self._settings.delete_unreachable:
                return gone
            raise ProviderError(f"failed to read resource state due to unreachable cluster. {_DELETE_HINT}")
        old = State(request.properties)
        asked = objects.normalized(to_object(request.inputs))
        identity = asked or old.live or _identity(resource_type(request.urn), request.resource_id)
        life = self._lifecycle(request.urn, request.properties)
        failure = None
        try:
            live = await self._cluster.get(identity)
            if asked:
                await life.judge(live, asked)
        except NoMatchError:
            return gone
        except ApiError as error:
            if error.code == 404:
                return gone
            raise ProviderError(_hidden(error, request.properties)) from error
        except UnreachableError as error:
            raise ProviderError(str(error)) from error
        except NotReadyError as error:
            failure, live = error, error.live
        inputs = objects.pruned(live, asked) if asked else objects.imported(live)
        outputs = checkpoint(
            live,
            inputs,
            request.inputs,
            api_version=old.api_version or inputs["apiVersion"],
            manager=manager_of(asked, old.manager),
        )
        marked = _marked(inputs, request.inputs)
        if failure is not None:
            raise InitializationError(
                request.resource_id, str(failure), failure.problems, outputs, marked
            ) from failure
        await life.done()
        return rpc.ReadResponse(resource_id=request.resource_id, properties=outputs, inputs=marked)

    async def delete(self, request: rpc.DeleteRequest) -> None:
        """Delete the object and wait until it is gone. A Patch resource gives its fields up instead."""
        if self._cluster is None:
            await self._warn_unreachable(request.urn)
            if self._settings.delete_unreachable:
                return
            raise ProviderError(f"configured Kubernetes cluster is unreachable. {_DELETE_HINT}")
        old = State(request.properties)
        life = self._lifecycle(request.urn, request.properties)
        try:
            if _is_patch(resource_type(request.urn), old.inputs):
                await life.relinquish(old.live, manager=old.manager)
            else:
                await life.delete(old.live, old.inputs, _timeout(request.timeout, old.inputs))
        except (ApiError, UnreachableError, NotReadyError) as error:
            raise ProviderError(_hidden(error, request.properties)) from error
        await life.done()

    # What the above share.

    def _reachable(self) -> Cluster:
        if self._cluster is None:
            raise ProviderError(f"configured Kubernetes cluster is unreachable: {self._unreachable}")
        return self._cluster

    async def _warn_unreachable(self, urn: str) -> None:
        await self._log.warning(urn, f"configured Kubernetes cluster is unreachable: {self._unreachable}")

    def _lifecycle(self, urn: str, properties: Properties) -> Lifecycle:
        async def report(message: str) -> None:
            await self._log.status(urn, _hidden(message, properties))

        return Lifecycle(self._reachable(), report, self._cancelled)

    async def _can_preview(self, inputs: Object) -> bool:
        """Whether the server can try `inputs` out: they are known, and so is their kind."""
        if self._cluster is None or objects.has_unknown(inputs):
            return False
        try:
            await self._cluster.resource(inputs["apiVersion"], inputs["kind"])
        except NoMatchError:
            return False
        except (ApiError, UnreachableError) as error:
            raise ProviderError(f"cannot preview {qualified(inputs)}: {error}") from error
        return True


def _is_patch(token: str, inputs: Object) -> bool:
    """Whether the resource is a `<Kind>Patch`, and no custom resource whose kind merely ends so."""
    return token.rsplit(":", 1)[-1] == f"{inputs.get('kind')}Patch"


def _marked(inputs: Object, source: Properties) -> dict[str, PropertyValue]:
    return members(inputs, PropertyValue(dict(source)))


def _placed(obj: Object, live: Object) -> Object:
    """`obj` with its namespace written out if objects of its kind live in one, without if not."""
    if obj.get("metadata") == UNKNOWN:
        return obj
    metadata = {key: value for key, value in objects.metadata(obj).items() if key != "namespace"}
    if namespace_of(live):
        metadata["namespace"] = objects.metadata(obj).get("namespace") or "default"
    return {**obj, "metadata": metadata}


def _identity(token: str, resource_id: str) -> Object:
    """The object that a type token (`kubernetes:apps/v1:Deployment`) and an id speak of."""
    _, api_version, kind = token.split(":")
    namespace, _, name = resource_id.rpartition("/")
    return {
        "apiVersion": api_version.removeprefix("core/"),
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
    }


def _timeout(asked: float, inputs: Object) -> float:
    """Seconds to wait: the resource option, the annotation or ten minutes."""
    annotated = objects.annotation(inputs, objects.TIMEOUT_SECONDS)
    return asked or (float(annotated) if annotated.isdigit() else _TIMEOUT)


def _hidden(error: Exception | str, properties: Properties) -> str:
    """The error's text without what is secret in `properties`."""
    text = str(error)
    # The longest first: one may be part of another.
    for secret in sorted(secret_texts(properties), key=len, reverse=True):
        text = text.replace(secret, "[secret]")
        text = text.replace(json.dumps(secret)[1:-1], "[secret]")  # as the API server quotes lines
    return text
