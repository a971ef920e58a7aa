"""The kubernetes stand-in answers every recorded call as the official plugin did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from google.protobuf import json_format, struct_pb2
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from lab.plugins.common import EngineLog, start
from lab.plugins.kubernetes import lifecycle, managers
from lab.plugins.kubernetes.cluster import ApiError, Cluster, NoMatchError, Resource, UnreachableError
from lab.plugins.kubernetes.objects import Object, metadata, name_of
from lab.plugins.kubernetes.provider import VERSION, Kubernetes
from lab.plugins.kubernetes.readiness import REVISION
from lab.plugins.kubernetes.servicer import Servicer
from lab.plugins.kubernetes.state import State, to_object
from tests.plugins.replay import REQUESTS, Json, ask, recording

RUNS = [
    "k1-create",
    "k2-nochange",
    "k3-update",
    "k4-badimage",
    "k5-revert",
    "k6-exists",
    "k7-refresh",
    "k8-up-after-drift",
    "k9-unreachable-preview",
    "k10-unreachable-up",
    "k11-destroy",
    "k12-reachable-again",
    "k13-destroy",
]
UNREACHABLE_PORT = "6999"
REFUSED = (
    'Get "https://172.30.0.11:6999/openapi/v2?timeout=32s": '
    "dial tcp 172.30.0.11:6999: connect: connection refused"
)
CONFLICT = (
    'Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: '
    ".spec.replicas"
)
PULL_PROBLEM = (
    'Back-off pulling image "registry.k8s.io/nothing:1": ErrImagePull: failed to pull and unpack image '
    '"registry.k8s.io/nothing:1": failed to resolve image: failed to do request: Head '
    '"https://registry.k8s.io/v2/nothing/manifests/1": dial tcp: lookup registry.k8s.io on 127.0.0.11:53: '
    "no such host"
)


class RecordedCluster(Cluster):
    """A cluster that gives the answers from which the official plugin made the recorded response."""

    def __init__(self) -> None:
        self.reachable = True
        self.live: Object | None = None
        """The object as it is."""
        self.following: Object | None = None
        """The object as it is once something was written."""
        self.refusal: Exception | None = None
        self.pods: list[Object] = []
        self.written: list[tuple[str, Object]] = []

    async def discover(self, delays: Any = ()) -> None:
        if not self.reachable:
            raise UnreachableError(REFUSED)

    async def resource(self, api_version: str, kind: str) -> Resource:
        if isinstance(self.refusal, NoMatchError):
            raise self.refusal
        return Resource(root=f"/apis/{api_version}", plural=f"{kind.lower()}s", namespaced=True)

    async def get(self, like: Object) -> Object:
        if self.live is None:
            raise ApiError(
                404, {"reason": "NotFound", "message": f"{name_of(like)} not found"}, repeated=False
            )
        return self.live

    async def select(self, api_version: str, kind: str, namespace: str, selector: str) -> list[Object]:
        return {"Pod": self.pods, "ReplicaSet": [replica_set(self.live or {})]}[kind]

    async def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        return self._write("create", obj)

    async def apply(self, obj: Object, *, manager: str, force: bool = False, dry_run: bool = False) -> Object:
        return self._write("apply", obj)

    async def replace(self, obj: Object, *, manager: str, dry_run: bool = False) -> Object:
        return self._write("replace", obj)

    async def patch(self, like: Object, operations: list[Object]) -> Object:
        return await self.get(like)

    async def delete(self, like: Object, *, propagation: str) -> None:
        assert propagation == "Foreground"
        self.written.append(("delete", like))
        self.live = None

    def _write(self, verb: str, obj: Object) -> Object:
        self.written.append((verb, obj))
        if self.refusal is not None:
            raise self.refusal
        assert self.following is not None
        self.live = self.following
        return self.live


class Recorded(Kubernetes):
    """The stand-in in front of a `RecordedCluster`."""

    cluster: RecordedCluster

    def connect(self, text: str) -> Cluster:
        self.cluster = RecordedCluster()
        self.cluster.reachable = UNREACHABLE_PORT not in text
        return self.cluster


@asynccontextmanager
async def serving(provider: Kubernetes) -> AsyncIterator[Any]:
    server, port = await start(provider, VERSION, Servicer)
    try:
        # The state of an object that failed travels in the error's metadata.
        options = [("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield provider_pb2_grpc.ResourceProviderStub(channel)
    finally:
        await server.stop(grace=None)


def replica_set(deployment: Object) -> Object:
    """The replica set that the deployment controller would have made, all ready."""
    owner = [{"uid": metadata(deployment).get("uid")}]
    revision = {REVISION: metadata(deployment).get("annotations", {}).get(REVISION)}
    replicas = deployment.get("spec", {}).get("replicas", 1)
    return {
        "metadata": {"name": "rs", "uid": "rs", "ownerReferences": owner, "annotations": revision},
        "spec": {"replicas": replicas},
        "status": {"readyReplicas": replicas},
    }


def properties(value: Json | None) -> dict[str, PropertyValue]:
    return PropertyValue.unmarshal_map(json_format.ParseDict(value or {}, struct_pb2.Struct()))


def establish(call: Json) -> None:
    """The official plugin does not wait for a CRD, the stand-in does: its objects may follow at once."""
    status = call.get("response", {}).get("properties", {}).get("status", {})
    if "storedVersions" in status:
        status["conditions"] = [{"type": "Established", "status": "True"}]


def prepare(cluster: RecordedCluster, name: str, call: Json) -> str | None:
    """Have the cluster at hand as it was at the recorded call; the field manager that was made up then."""
    request, response = call["request"], call.get("response", {})
    answered = State(properties(response.get("properties"))) if response.get("properties") else None
    cluster.live, cluster.following, cluster.refusal = None, answered.live if answered else None, None
    method, kind = call["method"], request["urn"].split("::")[-2].split(":")[-1]
    if method == "Create":
        if kind.endswith("Patch"):
            cluster.live = cluster.following
        if not (answered and answered.manager):
            exists = ApiError(
                409,
                {"reason": "AlreadyExists", "message": 'configmaps "cm" already exists'},
                repeated=False,
            )
            missing = ApiError(404, {"details": {"kind": "namespaces"}}, repeated=False)
            cluster.refusal = missing if name == "k1-create" else exists
            if kind == "Thing":
                cluster.refusal = NoMatchError('no matches for kind "Thing"')
    elif method == "Update":
        cluster.live = State(properties(request["olds"])).live
        if name == "k8-up-after-drift":
            cluster.refusal = ApiError(409, {"reason": "Conflict", "message": CONFLICT}, repeated=False)
    elif method == "Read" and answered:
        cluster.live = answered.live
    elif method == "Delete":
        cluster.live = cluster.following = State(properties(request["properties"])).live
    return answered.manager if answered and method == "Create" else None


@pytest.mark.parametrize("name", RUNS)
def test_every_answer_is_the_recorded_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> int:
        plugin = Recorded(EngineLog(None))
        compared = 0
        async with serving(plugin) as stub:
            for call in recording(f"kubernetes/{name}"):
                if "timed out" in str(call.get("errors")) or "Canceled" in str(call.get("errors")):
                    continue
                if call["method"] in ("Create", "Update", "Read", "Delete"):
                    establish(call)
                    manager = prepare(plugin.cluster, name, call)
                    if manager:
                        suffix = manager.removeprefix(f"{managers.CREATOR}-")
                        monkeypatch.setattr("secrets.token_hex", lambda size, suffix=suffix: suffix)
                recorded = {key: call[key] for key in ("response", "errors") if key in call}
                assert await ask(stub, call["method"], call["request"]) == recorded, call["request"].get(
                    "urn"
                )
                compared += 1
        return compared

    assert asyncio.run(run()) > 5


def test_what_is_written_is_what_was_asked() -> None:
    async def run() -> None:
        plugin = Recorded(EngineLog(None))
        async with serving(plugin) as stub:
            for call in recording("kubernetes/k3-update"):
                if call["method"] in ("Create", "Update", "Delete"):
                    prepare(plugin.cluster, "k3-update", call)
                await ask(stub, call["method"], call["request"])
                if call["request"].get("preview"):
                    continue
                if call["method"] == "Create":
                    asked = to_object(properties(call["request"]["properties"]))
                    assert plugin.cluster.written[-1] == ("create", asked)
                elif call["method"] == "Update":
                    asked = to_object(properties(call["request"]["news"]))
                    assert plugin.cluster.written[-1] == ("apply", asked)
                elif call["method"] == "Delete":
                    verb, deleted = plugin.cluster.written[-1]
                    assert (verb, name_of(deleted)) == ("delete", call["request"]["id"].split("/")[-1])

    asyncio.run(run())


def test_an_image_that_cannot_be_pulled_is_named_and_the_state_kept() -> None:
    """The user saw these three texts when the official plugin gave up (k4)."""

    async def run() -> provider_pb2.ErrorResourceInitFailed:
        plugin = Recorded(EngineLog(None))
        async with serving(plugin) as stub:
            for call in recording("kubernetes/k4-badimage"):
                if call["method"] == "Configure":
                    await ask(stub, "Configure", call["request"])
                if "timed out" not in str(call.get("errors")):
                    continue
                old = State(properties(call["request"]["olds"])).live
                unready = [
                    {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
                    {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"},
                ]
                plugin.cluster.live = old
                plugin.cluster.following = {**old, "status": {**old["status"], "conditions": unready}}
                plugin.cluster.pods = [unpulled()]
                request = json_format.ParseDict(call["request"] | {"timeout": 0.3}, REQUESTS["Update"]())
                with pytest.raises(grpc.aio.AioRpcError) as failure:
                    await stub.Update(request)
                assert call["errors"] == [f"rpc error: code = Unknown desc = {failure.value.details()}"]
                return details(failure.value)
        raise AssertionError("the recording has no failed update")

    failed = asyncio.run(run())
    assert failed.id == "rec/d"
    assert list(failed.reasons) == [
        'the Kubernetes API server reported that "rec/d" failed to fully initialize or become live: '
        "'d' timed out waiting to be Ready",
        "Minimum number of Pods to consider the application live was not attained",
        f"[Pod rec/d-86859959f8-8n8kf]: containers with unready status: [c][ImagePullBackOff] {PULL_PROBLEM}",
    ]
    kept = to_object(PropertyValue.unmarshal_map(failed.properties))
    assert (
        kept["__inputs"]["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.k8s.io/nothing:1"
    )


def unpulled() -> Object:
    return {
        "metadata": {"name": "d-86859959f8-8n8kf", "namespace": "rec", "ownerReferences": [{"uid": "rs"}]},
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Initialized", "status": "True"},
                {
                    "type": "Ready",
                    "status": "False",
                    "reason": "ContainersNotReady",
                    "message": "containers with unready status: [c]",
                },
            ],
            "containerStatuses": [
                {
                    "name": "c",
                    "ready": False,
                    "state": {"waiting": {"reason": "ImagePullBackOff", "message": PULL_PROBLEM}},
                }
            ],
        },
    }


def details(error: grpc.aio.AioRpcError) -> provider_pb2.ErrorResourceInitFailed:
    carried = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(carried, bytes)
    failed = provider_pb2.ErrorResourceInitFailed()
    assert status_pb2.Status.FromString(carried).details[0].Unpack(failed)
    return failed


def test_no_wait_outlives_a_cancelled_run() -> None:
    async def run() -> None:
        plugin = Recorded(EngineLog(None))
        plugin.connect("")
        plugin.cluster.live = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}

        async def silent(message: str) -> None:
            assert message is not None

        cancelled = asyncio.Event()
        life = lifecycle.Lifecycle(plugin.cluster, silent, cancelled)
        waiting = asyncio.create_task(life.ready(plugin.cluster.live, {}, timeout=60))
        await asyncio.sleep(0)
        cancelled.set()
        with pytest.raises(lifecycle.NotReadyError, match="cancelled for 'p'"):
            await asyncio.wait_for(waiting, timeout=5)

    asyncio.run(run())
