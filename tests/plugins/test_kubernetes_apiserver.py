"""The kubernetes stand-in against a real API server and controllers."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from tests.plugins.controlplane import ControlPlane, free_port
from tests.plugins.kubernetes_engine import PODS, SELECTOR, Engine, named, plugin, run, urn
from tests.plugins.replay import Json

pytestmark = pytest.mark.e2e

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}


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
