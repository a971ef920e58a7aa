"""The kubernetes stand-in against a real API server and controllers; the test plays scheduler and kubelet."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from time import monotonic, sleep
from typing import Any, TypeVar

import grpc.aio
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pulumi.runtime.proto import provider_pb2_grpc
from replay import Json, ask

from lab import toolchain
from lab.plugins.common import EngineLog, start
from lab.plugins.kubernetes import kubeconfig
from lab.plugins.kubernetes.cluster import Cluster
from lab.plugins.kubernetes.provider import VERSION, Kubernetes
from lab.plugins.kubernetes.servicer import Servicer

pytestmark = pytest.mark.e2e

START_SECONDS = 60
STEP_SECONDS = 40
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
CONDITIONS = ("PodScheduled", "Initialized", "Ready")
CONTAINER = {"name": "c", "image": "none", "resources": {"requests": {"cpu": "0.1", "memory": "1024Mi"}}}
PODS = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {"containers": [CONTAINER], "tolerations": [{"operator": "Exists"}]},
}
SELECTOR = {"matchLabels": {"app": "a"}}

T = TypeVar("T")


# The control plane.


@dataclass
class ControlPlane:
    """etcd, kube-apiserver and kube-controller-manager as processes of this machine."""

    directory: Path
    etcd_port: int
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> str:
        user = {"client-certificate": self._file("admin.crt"), "client-key": self._file("admin.key")}
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": self._file("apiserver.crt"),
        }
        return json.dumps(
            {
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )

    def api(self, method: str, path: str, body: Json | None = None) -> Json:
        access = kubeconfig.access(kubeconfig.parse(self.kubeconfig))
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        with httpx.Client(base_url=access.server, verify=access.tls, headers=headers) as client:
            answer = client.request(method, path, json=body)
        assert answer.is_success, answer.text
        found: Json = answer.json()
        return found

    def start(self) -> None:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        self._run(
            "etcd",
            f"--data-dir={self._file('etcd')}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        )
        self.start_apiserver()
        (self.directory / "kubeconfig").write_text(self.kubeconfig)
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self._file('kubeconfig')}",
            "--leader-elect=false",
            "--secure-port=0",
            "--controllers=*,-node-lifecycle-controller",
        )

    def start_apiserver(self) -> None:
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.directory}",
            f"--client-ca-file={self._file('admin.crt')}",
            f"--service-account-key-file={self._file('admin.key')}",
            f"--service-account-signing-key-file={self._file('admin.key')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.3.0.0/24",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
        )
        self._wait_until_ready()

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait(timeout=10)

    def _run(self, name: str, *arguments: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            command = [str(toolchain.ensure(name)), *arguments]
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _wait_until_ready(self) -> None:
        end = monotonic() + START_SECONDS
        while monotonic() < end:
            try:
                access = kubeconfig.access(kubeconfig.parse(self.kubeconfig))
                if httpx.get(f"{access.server}/readyz", verify=access.tls).is_success:
                    return
            except (kubeconfig.KubeconfigError, httpx.TransportError):
                assert self.processes["kube-apiserver"].poll() is None, self._file("kube-apiserver.log")
            sleep(0.1)
        raise AssertionError(f"no answer in {START_SECONDS} s, see {self._file('kube-apiserver.log')}")

    def _file(self, name: str) -> str:
        return str(self.directory / name)


def free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_admin(directory: Path) -> None:
    """A key and a certificate of an administrator that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"),
            x509.NameAttribute(NameOID.COMMON_NAME, "admin"),
        ]
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "admin.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "admin.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    directory = tmp_path_factory.mktemp("plane")
    write_admin(directory)
    plane = ControlPlane(directory=directory, etcd_port=free_port(), port=free_port())
    try:
        plane.start()
        plane.api("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
        yield plane
    finally:
        for name in list(plane.processes):
            plane.stop(name)


# The engine's part.


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Asks the plugin as Pulumi's engine would, with one object per URN."""

    stub: Any
    states: dict[str, Json] = field(default_factory=dict)

    async def call(self, method: str, request: Json) -> Json:
        answer = await ask(self.stub, method, request)
        assert "errors" not in answer, answer["errors"][0]
        response: Json = answer["response"]
        return response

    async def fails(self, method: str, request: Json) -> str:
        answer = await ask(self.stub, method, request)
        return str(answer["errors"][0])

    async def preview(self, token: str, obj: Json) -> Json:
        inputs = await self._inputs(token, obj)
        request = {"urn": urn(token, obj), "properties": inputs, "preview": True}
        properties: Json = (await self.call("Create", request))["properties"]
        return properties

    async def diff(self, token: str, obj: Json) -> Json:
        """The differences to the last state."""
        inputs, state = await self._inputs(token, obj), self.states[urn(token, obj)]
        request = {"urn": urn(token, obj), "id": state["id"], "olds": state["properties"], "news": inputs}
        return await self.call("Diff", request)

    async def create(self, token: str, obj: Json, *, timeout: float = STEP_SECONDS) -> Json:
        inputs = await self._inputs(token, obj)
        request = {"urn": urn(token, obj), "properties": inputs, "timeout": timeout}
        self.states[urn(token, obj)] = state = await self.call("Create", request)
        return state

    async def update(self, token: str, obj: Json, *, timeout: float = STEP_SECONDS) -> Json:
        answer = await self.call("Update", await self.update_request(token, obj, timeout=timeout))
        self.states[urn(token, obj)] |= answer
        return self.states[urn(token, obj)]

    async def update_request(self, token: str, obj: Json, *, timeout: float = STEP_SECONDS) -> Json:
        state = self.states[urn(token, obj)]
        news = await self._inputs(token, obj)
        request = {"urn": urn(token, obj), "id": state["id"], "olds": state["properties"], "news": news}
        return request | {"timeout": timeout}

    async def read(self, token: str, obj: Json) -> Json:
        state = self.states[urn(token, obj)]
        request = {"urn": urn(token, obj), "id": state["id"], "properties": state["properties"]}
        return await self.call("Read", request | {"inputs": state["properties"]["__inputs"]})

    async def delete(self, token: str, obj: Json, *, timeout: float = STEP_SECONDS) -> None:
        state = self.states.pop(urn(token, obj))
        request = {"urn": urn(token, obj), "id": state["id"], "properties": state["properties"]}
        await self.call("Delete", request | {"timeout": timeout})

    async def _inputs(self, token: str, obj: Json) -> Json:
        inputs: Json = (await self.call("Check", {"urn": urn(token, obj), "news": obj}))["inputs"]
        return inputs


def urn(token: str, obj: Json) -> str:
    return f"urn:pulumi:s::p::kubernetes:{token}::{obj['metadata']['name']}"


class Plugin(Kubernetes):
    """The stand-in, remembering its cluster so that the test can close it."""

    cluster: Cluster

    def connect(self, text: str) -> Cluster:
        self.cluster = super().connect(text)
        return self.cluster


@asynccontextmanager
async def plugin(config: str, **settings: str) -> AsyncIterator[Engine]:
    provider = Plugin(EngineLog(None))
    server, port = await start(provider, VERSION, Servicer)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            engine = Engine(stub=provider_pb2_grpc.ResourceProviderStub(channel))
            await engine.call("Configure", {"args": {"kubeconfig": config} | settings})
            yield engine
    finally:
        await server.stop(grace=None)
        await provider.cluster.close()


def run(plane: ControlPlane, test: Callable[[Engine], Coroutine[Any, Any, None]], **settings: str) -> None:
    async def main() -> None:
        async with plugin(plane.kubeconfig, **settings) as engine:
            await test(engine)

    asyncio.run(main())


async def eventually(wanted: Callable[[], T]) -> T:
    """What `wanted` returns once that is something."""
    end = monotonic() + STEP_SECONDS
    while monotonic() < end:
        if found := await asyncio.to_thread(wanted):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within {STEP_SECONDS} s")


def named(api_version: str, kind: str, name: str, namespace: str | None = "default", **more: Any) -> Json:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata | more.pop("metadata", {}), **more}


async def run_pods(plane: ControlPlane, namespace: str, until: asyncio.Task[Any]) -> None:
    """What a kubelet would do: call every pod of the namespace ready, until the task is done."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    while not until.done():
        for pod in (await asyncio.to_thread(plane.api, "GET", path))["items"]:
            if pod["status"].get("phase") != "Running" and "deletionTimestamp" not in pod["metadata"]:
                since = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                ready = {"status": "True", "lastTransitionTime": since}
                conditions = [{"type": kind, **ready} for kind in CONDITIONS]
                status = {"status": {"phase": "Running", "conditions": conditions}}
                name = pod["metadata"]["name"]
                await asyncio.to_thread(plane.api, "PATCH", f"{path}/{name}/status", status)
        await asyncio.sleep(0.2)


# Objects that are ready at once.

SIMPLE = [
    ("core/v1:Namespace", named("v1", "Namespace", "made", None)),
    ("core/v1:ConfigMap", named("v1", "ConfigMap", "cm", data={"a": "1", "b.c": "2"}, binaryData={})),
    ("core/v1:Secret", named("v1", "Secret", "sec", stringData=SECRET | {"value": {"token": "s3cret"}})),
    ("core/v1:ServiceAccount", named("v1", "ServiceAccount", "sa", metadata={"labels": {"a": "1"}})),
    (
        "rbac.authorization.k8s.io/v1:ClusterRole",
        named(
            "rbac.authorization.k8s.io/v1",
            "ClusterRole",
            "cr",
            None,
            rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        ),
    ),
    (
        "rbac.authorization.k8s.io/v1:ClusterRoleBinding",
        named(
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            "crb",
            None,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cr"},
            subjects=[{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "u"}],
        ),
    ),
    ("core/v1:Service", named("v1", "Service", "svc", spec={"ports": [{"port": 80}]})),
    (
        "discovery.k8s.io/v1:EndpointSlice",
        named(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "eps",
            addressType="IPv4",
            endpoints=[{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
            ports=[{"name": "https", "port": 6443, "protocol": "TCP"}],
        ),
    ),
    (
        "policy/v1:PodDisruptionBudget",
        named("policy/v1", "PodDisruptionBudget", "pdb", spec={"minAvailable": 1, "selector": SELECTOR}),
    ),
    (
        "apps/v1:Deployment",
        named("apps/v1", "Deployment", "none", spec={"replicas": 0, "selector": SELECTOR, "template": PODS}),
    ),
]


@pytest.mark.parametrize(("token", "obj"), SIMPLE, ids=[token for token, _ in SIMPLE])
def test_an_object_is_made_once_and_left_alone(plane: ControlPlane, token: str, obj: Json) -> None:
    async def test(engine: Engine) -> None:
        previewed = await engine.preview(token, obj)
        assert previewed["metadata"]["uid"]
        state = await engine.create(token, obj)
        name = obj["metadata"]["name"]
        assert state["id"] == (f"default/{name}" if "namespace" in obj["metadata"] else name)
        assert await engine.diff(token, obj) == {"changes": "DIFF_NONE", "hasDetailedDiff": True}
        labelled = {**obj, "metadata": {**obj["metadata"], "labels": {"b": "2"}}}
        state = await engine.update(token, labelled)
        assert state["properties"]["metadata"]["labels"]["b"] == "2"
        assert (await engine.diff(token, labelled))["changes"] == "DIFF_NONE"
        read = await engine.read(token, labelled)
        assert (read["id"], read["inputs"]) == (state["id"], state["properties"]["__inputs"])
        await engine.delete(token, labelled)

    run(plane, test)


def test_secrets_stay_secret(plane: ControlPlane) -> None:
    token, obj = SIMPLE[2]

    async def test(engine: Engine) -> None:
        state = await engine.create(token, obj)
        encoded = base64.b64encode(b"s3cret").decode()
        assert state["properties"]["data"] == SECRET | {"value": {"token": encoded}}
        assert state["properties"]["__inputs"]["data"] == state["properties"]["data"]
        read = await engine.read(token, obj)
        assert read["properties"]["data"] == read["inputs"]["data"] == state["properties"]["data"]
        await engine.delete(token, obj)

    run(plane, test)


def test_data_is_replaced_and_labels_are_updated(plane: ControlPlane) -> None:
    token = "core/v1:ConfigMap"
    old = named("v1", "ConfigMap", "r", data={"a": "1"}, metadata={"labels": {"keep": "1", "drop": "1"}})
    new = named("v1", "ConfigMap", "r", data={"a": "1"}, metadata={"labels": {"keep": "2"}})

    async def test(engine: Engine) -> None:
        await engine.create(token, old)
        path = "/api/v1/namespaces/default/configmaps/r"
        plane.api("PATCH", path, {"metadata": {"labels": {"foreign": "1"}}})
        assert (await engine.diff(token, new))["detailedDiff"] == {
            "metadata.labels.keep": {"kind": "UPDATE"},
            "metadata.labels.drop": {"kind": "DELETE", "inputDiff": True},
        }
        preview = await engine.update_request(token, new) | {"preview": True}
        foreseen = (await engine.call("Update", preview))["properties"]["metadata"]["labels"]
        assert foreseen["keep"] == "2"
        state = await engine.update(token, new)
        assert state["properties"]["metadata"]["labels"] == {"keep": "2", "foreign": "1"}
        managers = {entry["manager"] for entry in plane.api("GET", path)["metadata"]["managedFields"]}
        assert state["properties"]["__fieldManager"] in managers
        assert "pulumi-kubernetes" not in managers
        assert (await engine.diff(token, new))["changes"] == "DIFF_NONE"
        replaced = await engine.diff(token, {**new, "data": {"a": "2"}})
        assert (replaced["replaces"], replaced["deleteBeforeReplace"]) == (["data.a"], True)
        await engine.delete(token, new)
        assert await engine.create(token, {**new, "data": {"a": "2"}})
        await engine.delete(token, new)

    run(plane, test)


def test_what_exists_is_not_taken_over_unless_asked(plane: ControlPlane) -> None:
    token, obj = "core/v1:ConfigMap", named("v1", "ConfigMap", "taken", data={"a": "1"})
    plane.api("POST", "/api/v1/namespaces/default/configmaps", obj | {"data": {"a": "0", "b": "0"}})

    async def refused(engine: Engine) -> None:
        assert await engine.preview(token, obj) == obj
        failure = await engine.fails("Create", {"urn": urn(token, obj), "properties": obj})
        assert 'configmaps "taken" already exists\n\nThe resource already exists in the cluster.' in failure

    async def conflicting(engine: Engine) -> None:
        assert (await engine.preview(token, obj))["data"] == {"a": "1", "b": "0"}
        failure = await engine.fails("Create", {"urn": urn(token, obj), "properties": obj})
        assert "Apply failed with 1 conflict" in failure
        same = obj | {"data": {"a": "0"}}
        state = await engine.create(token, same)
        assert state["properties"]["data"] == {"a": "0", "b": "0"}
        assert (await engine.diff(token, same))["changes"] == "DIFF_NONE"
        again = await engine.create(token, same)
        assert again["properties"]["metadata"]["uid"] == state["properties"]["metadata"]["uid"]
        foreseen = await engine.preview(token, obj | {"data": {"a": "0", "c": "1"}, "immutable": True})
        assert foreseen["data"] == {"a": "0", "b": "0", "c": "1"}
        await engine.update(token, same | {"immutable": True})
        different = obj | {"data": {"a": "2"}}
        assert await engine.preview(token, different) == different
        await engine.delete(token, obj)

    run(plane, refused)
    run(plane, conflicting, upsertExistingObjects="true")


def test_an_unknown_field_is_an_error(plane: ControlPlane) -> None:
    token, obj = "core/v1:ConfigMap", named("v1", "ConfigMap", "typo", dta={"a": "1"})

    async def test(engine: Engine) -> None:
        failure = await engine.fails("Create", {"urn": urn(token, obj), "properties": obj, "preview": True})
        assert 'unknown field "dta"' in failure

    run(plane, test)


def test_an_unknown_kind_is_an_error(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.plugins.kubernetes.lifecycle._MISSING_DELAYS", (0.1,))
    token, obj = "rec.io/v1:Nothing", named("rec.io/v1", "Nothing", "n")

    async def test(engine: Engine) -> None:
        assert await engine.preview(token, obj) == obj
        failure = await engine.fails("Create", {"urn": urn(token, obj), "properties": obj})
        assert 'no matches for kind "Nothing" in version "rec.io/v1"' in failure
        assert "Verify that any required CRDs have been created" in failure

    run(plane, test)


def test_a_namespace_may_come_later(plane: ControlPlane) -> None:
    token, obj = "core/v1:ConfigMap", named("v1", "ConfigMap", "early", "later", data={"a": "1"})
    space = named("v1", "Namespace", "later", None)

    async def test(engine: Engine) -> None:
        assert await engine.preview(token, obj) == obj
        early = asyncio.create_task(engine.create(token, obj))
        await asyncio.sleep(0.3)
        await engine.create("core/v1:Namespace", space)
        assert (await early)["id"] == "later/early"
        await engine.delete("core/v1:Namespace", space)
        assert await engine.read(token, obj) == {}
        await engine.delete(token, obj)

    run(plane, test)


def test_an_object_follows_its_definition(plane: ControlPlane) -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    definition = named(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "things.rec.io",
        None,
        spec={
            "group": "rec.io",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [version],
        },
    )
    token, thing = "rec.io/v1:Thing", named("rec.io/v1", "Thing", "t", spec={"x": 1})
    crd = "apiextensions.k8s.io/v1:CustomResourceDefinition"

    async def test(engine: Engine) -> None:
        state = await engine.create(crd, definition)
        assert "x_kubernetes_preserve_unknown_fields" in json.dumps(state)
        assert (await engine.diff(crd, definition))["changes"] == "DIFF_NONE"
        await engine.create(token, thing)
        assert (await engine.diff(token, {**thing, "spec": {"x": 2}}))["detailedDiff"] == {
            "spec.x": {"kind": "UPDATE"}
        }
        await engine.update(token, {**thing, "spec": {"x": 2}})
        labelled = {**definition, "metadata": {**definition["metadata"], "labels": {"a": "1"}}}
        await engine.update(crd, labelled)
        assert (await engine.diff(crd, labelled))["changes"] == "DIFF_NONE"
        await engine.delete(crd, definition)
        await engine.delete(token, thing)

    run(plane, test)


def test_a_patch_owns_its_fields_and_no_more(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.plugins.kubernetes.lifecycle._MISSING_DELAYS", (0.1,))
    token, label = "core/v1:NodePatch", "node-role.kubernetes.io/control-plane"
    node = named("v1", "Node", "n1", None, metadata={"labels": {label: ""}})
    absent = named("v1", "Node", "n2", None, metadata={"labels": {label: ""}})

    async def test(engine: Engine) -> None:
        assert await engine.preview(token, node) == node
        state = await engine.create(token, node)
        assert state["id"] == "n1"
        assert (await engine.diff(token, node))["changes"] == "DIFF_NONE"
        assert plane.api("GET", "/api/v1/nodes/n1")["metadata"]["labels"] == {label: ""}
        await engine.delete(token, node)
        assert label not in plane.api("GET", "/api/v1/nodes/n1")["metadata"].get("labels", {})
        failure = await engine.fails("Create", {"urn": urn(token, absent), "properties": absent})
        assert 'nodes "n2" not found' in failure

    run(plane, test)


def test_a_field_of_somebody_else_is_a_conflict(plane: ControlPlane) -> None:
    token = "apps/v1:Deployment"
    obj = named(
        "apps/v1", "Deployment", "scaled", spec={"replicas": 0, "selector": SELECTOR, "template": PODS}
    )
    labelled = {**obj, "metadata": {**obj["metadata"], "labels": {"a": "1"}}}
    path = "/apis/apps/v1/namespaces/default/deployments/scaled"

    async def test(engine: Engine) -> None:
        await engine.create(token, obj)
        await engine.update(token, labelled)
        plane.api("PATCH", f"{path}/scale?fieldManager=somebody", {"spec": {"replicas": 1}})
        for preview in (True, False):
            request = await engine.update_request(token, labelled) | {"preview": preview}
            failure = await engine.fails("Update", request)
            assert 'conflict with "somebody" with subresource "scale"' in failure
            assert "server-side apply field conflict detected" in failure
        await engine.delete(token, obj)

    run(plane, test)


# Waiting.


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Deployment", {"replicas": 2}),
        (
            "DaemonSet",
            {
                "minReadySeconds": 1,
                "updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            },
        ),
    ],
)
def test_a_workload_is_waited_for(plane: ControlPlane, kind: str, spec: Json) -> None:
    namespace, token = f"work-{kind.lower()}", f"apps/v1:{kind}"
    space = named("v1", "Namespace", namespace, None)
    first = named("apps/v1", kind, "w", namespace, spec={**spec, "selector": SELECTOR, "template": PODS})
    changed = {**PODS, "metadata": {"labels": {"app": "a"}, "annotations": {"rev": "2"}}}
    second = named("apps/v1", kind, "w", namespace, spec={**first["spec"], "template": changed})

    async def test(engine: Engine) -> None:
        await engine.create("core/v1:Namespace", space)
        making = asyncio.create_task(engine.create(token, first))
        await run_pods(plane, namespace, making)
        status = (await making)["properties"]["status"]
        assert status.get("readyReplicas", status.get("numberAvailable")) == spec.get("replicas", 1)
        assert (await engine.diff(token, first))["changes"] == "DIFF_NONE"
        rolling = asyncio.create_task(engine.update(token, second))
        await run_pods(plane, namespace, rolling)
        status = (await rolling)["properties"]["status"]
        assert status.get("updatedReplicas", status.get("updatedNumberScheduled")) == spec.get("replicas", 1)
        assert (await engine.read(token, second))["id"] == f"{namespace}/w"
        await engine.delete(token, second)
        await engine.delete("core/v1:Namespace", space)

    run(plane, test)


def test_the_api_server_may_be_replaced_while_something_is_waited_for(plane: ControlPlane) -> None:
    token, namespace = "apps/v1:Deployment", "restart"
    space = named("v1", "Namespace", namespace, None)
    obj = named(
        "apps/v1", "Deployment", "w", namespace, spec={"replicas": 1, "selector": SELECTOR, "template": PODS}
    )

    async def test(engine: Engine) -> None:
        await engine.create("core/v1:Namespace", space)
        making = asyncio.create_task(engine.create(token, obj, timeout=START_SECONDS * 2))
        path = f"/api/v1/namespaces/{namespace}/pods"
        await eventually(lambda: plane.api("GET", path)["items"])
        plane.stop("kube-apiserver")
        await asyncio.sleep(1)
        assert not making.done()
        await asyncio.to_thread(plane.start_apiserver)
        await run_pods(plane, namespace, making)
        assert (await making)["properties"]["status"]["readyReplicas"] == 1
        await engine.delete("core/v1:Namespace", space)

    run(plane, test)


def test_a_workload_that_never_is_ready_says_why(plane: ControlPlane) -> None:
    token = "apps/v1:Deployment"
    obj = named("apps/v1", "Deployment", "late", spec={"replicas": 1, "selector": SELECTOR, "template": PODS})

    async def test(engine: Engine) -> None:
        request = {"urn": urn(token, obj), "properties": obj, "timeout": 2}
        failure = await engine.fails("Create", request)
        assert "was successfully created, but" in failure
        assert "'late' timed out waiting to be Ready" in failure
        engine.states[urn(token, obj)] = {"id": "default/late", "properties": obj | {"__inputs": obj}}
        await engine.delete(token, obj)

    run(plane, test)


def test_a_service_is_waited_for(plane: ControlPlane) -> None:
    token = "core/v1:Service"
    obj = named("v1", "Service", "waits", spec={"ports": [{"port": 80}], "selector": {"app": "waits"}})
    skipped = named(
        "v1", "Service", "skips", spec=obj["spec"], metadata={"annotations": {"pulumi.com/skipAwait": "true"}}
    )
    ready = named(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "waits-1",
        metadata={"labels": {"kubernetes.io/service-name": "waits"}},
        addressType="IPv4",
        endpoints=[{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
    )

    async def test(engine: Engine) -> None:
        await engine.create(token, skipped)
        await engine.delete(token, skipped)
        making = asyncio.create_task(engine.create(token, obj))
        await asyncio.sleep(0.5)
        assert not making.done()
        await engine.create("discovery.k8s.io/v1:EndpointSlice", ready)
        assert (await making)["id"] == "default/waits"
        await engine.delete(token, obj)

    run(plane, test)


def test_a_deletion_is_waited_for(plane: ControlPlane) -> None:
    token = "core/v1:ConfigMap"
    obj = named("v1", "ConfigMap", "held", metadata={"finalizers": ["rec.io/hold"]})

    async def test(engine: Engine) -> None:
        state = await engine.create(token, obj)
        request = {"urn": urn(token, obj), "id": state["id"], "properties": state["properties"]}
        failure = await engine.fails("Delete", request | {"timeout": 1})
        assert "'held' timed out waiting to be deleted" in failure
        assert "finalizers might be preventing deletion (rec.io/hold" in failure
        deleting = asyncio.create_task(engine.delete(token, obj))
        path = "/api/v1/namespaces/default/configmaps/held"
        plane.api("PATCH", path, {"metadata": {"finalizers": None}})
        await deleting

    run(plane, test)


def test_many_objects_are_made_at_once(plane: ControlPlane) -> None:
    token = "core/v1:ConfigMap"
    many = [named("v1", "ConfigMap", f"many-{number}", data={"n": str(number)}) for number in range(100)]

    async def test(engine: Engine) -> None:
        began = monotonic()
        await asyncio.gather(*(engine.create(token, obj) for obj in many))
        await asyncio.gather(*(engine.delete(token, obj) for obj in many))
        assert monotonic() - began < STEP_SECONDS

    run(plane, test)


# Unreachable.


def test_an_unreachable_cluster_stops_changes_and_not_the_preview(plane: ControlPlane) -> None:
    token, obj = "core/v1:ConfigMap", named("v1", "ConfigMap", "nowhere", data={"a": "1"})
    config = plane.kubeconfig.replace(str(plane.port), str(free_port()))
    request = {"urn": urn(token, obj), "id": "default/nowhere", "properties": obj | {"__inputs": obj}}

    async def kept(engine: Engine) -> None:
        assert await engine.preview(token, obj) == obj
        refused = "connect: connection refused"
        created = await engine.fails("Create", {"urn": urn(token, obj), "properties": obj})
        assert "configured Kubernetes cluster is unreachable" in created
        assert created.endswith(refused)
        for method in ("Delete", "Read"):
            assert "PULUMI_K8S_DELETE_UNREACHABLE" in await engine.fails(method, request)

    async def forgotten(engine: Engine) -> None:
        await engine.call("Delete", request)
        assert await engine.call("Read", request) == {}

    async def both() -> None:
        async with plugin(config) as engine:
            await kept(engine)
        async with plugin(config, deleteUnreachable="true") as engine:
            await forgotten(engine)

    asyncio.run(both())
