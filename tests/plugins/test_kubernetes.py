"""The kubernetes stand-in's rules: configuration, normal forms, differences, secrets, field managers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pulumi.provider.experimental import provider as rpc
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.provider import PropertyDiffKind

from lab.plugins.common import UNKNOWN, EngineLog, ProviderError, property_value
from lab.plugins.kubernetes import diff, kubeconfig, managers, objects, settings
from lab.plugins.kubernetes.cluster import ApiError, Cluster, UnreachableError
from lab.plugins.kubernetes.objects import Object
from lab.plugins.kubernetes.provider import Kubernetes, _hidden
from lab.plugins.kubernetes.state import State, checkpoint, members, secret_texts, to_object

CONFIG_MAP: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}}


def config(server: str = "https://127.0.0.1:6443", **user: str) -> str:
    return str(
        {
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


def values(obj: Object) -> dict[str, PropertyValue]:
    return {key: property_value(item) for key, item in obj.items()}


# Configuration.


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ({"kubeconfig": config(), "namespace": "x"}, "namespace is not supported"),
        (
            {"kubeconfig": config(), "upsertExistingObjects": "yes"},
            "upsertExistingObjects must be true or false",
        ),
        ({"kubeconfig": config(), "enableServerSideApply": "false"}, "applies on the server only"),
        ({}, "is required"),
        ({"kubeconfig": {"clusters": []}}, "as text"),
        ({"kubeconfig": "~/.kube/config"}, "not a path"),
        ({"kubeconfig": "a: [token-in-here\nb: c"}, "in line 2"),
    ],
)
def test_a_wrong_argument_is_named(args: Object, complaint: str) -> None:
    (failure,) = settings.failures(args)
    assert complaint in failure.reason
    assert "token-in-here" not in failure.reason


def test_what_is_not_known_yet_is_no_failure() -> None:
    assert settings.failures({"kubeconfig": UNKNOWN, "clusterIdentifier": "c", "version": "4.29.0"}) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, ([], [])),
        ({}, {"kubeconfig": config("https://b")}, (["kubeconfig"], ["kubeconfig"])),
        ({}, {"kubeconfig": config(token="t")}, (["kubeconfig"], [])),
        ({}, {"kubeconfig": UNKNOWN}, (["kubeconfig"], ["kubeconfig"])),
        ({"clusterIdentifier": "c"}, {"clusterIdentifier": "c", "kubeconfig": UNKNOWN}, (["kubeconfig"], [])),
        (
            {"clusterIdentifier": "c"},
            {"clusterIdentifier": "c", "kubeconfig": config("https://b")},
            (["kubeconfig"], []),
        ),
        (
            {"clusterIdentifier": "c"},
            {"clusterIdentifier": "d"},
            (["clusterIdentifier"], ["clusterIdentifier"]),
        ),
        ({}, {"clusterIdentifier": "c"}, (["clusterIdentifier"], [])),
        ({}, {"deleteUnreachable": "true"}, (["deleteUnreachable"], [])),
    ],
)
def test_objects_are_made_anew_for_another_cluster_only(old: Object, new: Object, expected: Any) -> None:
    assert settings.changes({"kubeconfig": config()} | old, {"kubeconfig": config()} | new) == expected


def test_the_argument_outweighs_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_K8S_DELETE_UNREACHABLE", "true")
    assert settings.Settings.parse({}).delete_unreachable
    assert not settings.Settings.parse({"deleteUnreachable": "false"}).delete_unreachable


def test_a_kubeconfig_says_what_it_lacks_and_never_what_it_hides() -> None:
    exec_user = config().replace("'user': {}", "'user': {'exec': {'command': 'aws'}}")
    for text, complaint in (
        (config().replace("'current-context': 'x'", "'current-context': 'y'"), "no context 'y'"),
        (config(server=""), "no cluster 'c'"),
        (exec_user, "exec is not supported"),
        (config(**{"client-key-data": "c2VjcmV0", "client-certificate-data": "c2VjcmV0"}), "no valid PEM"),
        (config(**{"client-key-data": "secret!"}), "not base64"),
        (config(**{"client-key": "/nowhere/secret.key"}), "No such file"),
    ):
        with pytest.raises(kubeconfig.KubeconfigError, match=complaint):
            kubeconfig.access(kubeconfig.parse(text))


# Normal forms.


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("0.1", "100m"),
        ("1000m", "1"),
        (2, "2"),
        (0.5, "500m"),
        ("1024Mi", "1Gi"),
        ("1000Mi", "1000Mi"),
        ("0.5Gi", "512Mi"),
        ("512", "512"),
        ("1000", "1k"),
        ("0", "0"),
        ("1.5Gi", "1536Mi"),
        ("a lot", "a lot"),
    ],
)
def test_quantities_are_written_as_the_server_writes_them(written: Any, canonical: str) -> None:
    container = {"resources": {"requests": {"cpu": written}}}
    assert objects.normalized(container) == {"resources": {"requests": {"cpu": canonical}}}


def test_inputs_are_brought_into_the_servers_form() -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "uid": "u", "creationTimestamp": None},
        "data": {"a": "YQ=="},
        "stringData": {"b": "b"},
        "type": None,
    }
    assert objects.normalized(secret) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"a": "YQ==", "b": "Yg=="},
    }
    unknown = {**secret, "stringData": {"b": UNKNOWN}}
    assert objects.normalized(unknown)["stringData"] == {"b": UNKNOWN}


def test_what_the_server_leaves_out_is_no_difference() -> None:
    inputs = {**CONFIG_MAP, "data": {}, "metadata": {**CONFIG_MAP["metadata"], "labels": {}}}
    assert objects.pruned(CONFIG_MAP, inputs) == inputs
    assert objects.pruned({"a": [{"b": 1, "c": 2}, {"b": 3}]}, {"a": [{"b": 0}]}) == {"a": [{"b": 1}]}


# Differences.


def differences(old: Object, new: Object, **options: Any) -> dict[str, PropertyDiffKind]:
    found = diff.detailed(old, new, **({"patch": False} | options))
    return {path: change.kind for path, change in found.items()}


def workload(kind: str, **spec: Any) -> Object:
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "w"}, "spec": spec}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"data": {"a": "1"}}, {"data": {"a": "2"}}, {"data.a": "UPDATE_REPLACE"}),
        ({"data": {"a": "1"}}, {"data": {"a": "1", "b.c": "2"}}, {'data["b.c"]': "ADD_REPLACE"}),
        ({"data": {"a": "1"}}, {}, {"data": "DELETE_REPLACE"}),
        ({"binaryData": {"a": "1"}}, {"binaryData": {}}, {"binaryData.a": "DELETE_REPLACE"}),
        ({"immutable": True}, {"immutable": 1}, {"immutable": "UPDATE"}),
        ({"data": {"a": "1"}}, {"data": UNKNOWN}, {"data": "UPDATE_REPLACE"}),
    ],
)
def test_a_config_maps_data_is_replaced(old: Object, new: Object, expected: dict[str, str]) -> None:
    found = differences(CONFIG_MAP | old, CONFIG_MAP | new)
    assert {path: kind.name for path, kind in found.items()} == expected


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet", "StatefulSet"])
def test_a_selector_is_replaced_and_a_template_updated(kind: str) -> None:
    old = workload(
        kind, selector={"matchLabels": {"a": "1"}}, template={"spec": {"containers": [{"image": "a"}]}}
    )
    new = workload(
        kind, selector={"matchLabels": {"a": "2"}}, template={"spec": {"containers": [{"image": "b"}]}}
    )
    assert differences(old, new) == {
        "spec.selector.matchLabels.a": PropertyDiffKind.UPDATE_REPLACE,
        "spec.template.spec.containers[0].image": PropertyDiffKind.UPDATE,
    }


def test_lists_are_compared_item_by_item() -> None:
    old = workload("Deployment", args=["a", "b", "c"], tolerations=[{"key": "x", "effect": "y"}])
    new = workload("Deployment", args=["a", "x"], tolerations=[{"key": "x"}, {"key": "z"}])
    assert differences(old, new) == {
        "spec.args[1]": PropertyDiffKind.UPDATE,
        "spec.args[2]": PropertyDiffKind.DELETE,
        "spec.tolerations[0].effect": PropertyDiffKind.DELETE,
        "spec.tolerations[1]": PropertyDiffKind.ADD,
    }


def test_a_pods_containers_are_replaced() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    old = {**pod, "spec": {"containers": [{"name": "c", "image": "a"}]}}
    new = {**pod, "spec": {"containers": [{"name": "c", "image": "b"}, {"name": "d", "image": "e"}]}}
    assert differences(old, new) == {
        "spec.containers[0].image": PropertyDiffKind.UPDATE_REPLACE,
        "spec.containers[1]": PropertyDiffKind.ADD_REPLACE,
    }


def test_a_patch_is_replaced_for_its_name_only() -> None:
    new = {**CONFIG_MAP, "data": {"a": "1"}}
    assert differences(CONFIG_MAP, new, patch=True) == {"data": PropertyDiffKind.ADD}
    renamed = {**CONFIG_MAP, "metadata": {"name": "d", "namespace": "n"}}
    assert differences(CONFIG_MAP, renamed, patch=True) == {"metadata.name": PropertyDiffKind.UPDATE_REPLACE}


@pytest.mark.parametrize(
    ("ignored", "left"),
    [
        ("spec.a", ["spec.b[0]", "spec.b[1]"]),
        ("spec.b[0]", ["spec.a", "spec.b[1]"]),
        ("spec.b[*]", ["spec.a"]),
        ("spec", []),
    ],
)
def test_ignored_paths_are_no_difference(ignored: str, left: list[str]) -> None:
    found = differences(
        workload("Deployment", a=1, b=[1, 1]), workload("Deployment", a=2, b=[2, 2]), ignored=[ignored]
    )
    assert sorted(found) == left


def test_paths_are_read_as_they_are_written() -> None:
    assert diff.parse_path('metadata.annotations["a.b/c"][0].d') == (
        "metadata",
        "annotations",
        "a.b/c",
        0,
        "d",
    )


def answer(old: Object, new: Object, *, kind: str = "core/v1:ConfigMap") -> rpc.DiffResponse:
    state = checkpoint(old, old, values(old), api_version="v1", manager="m")
    request = rpc.DiffRequest(f"urn:pulumi:s::p::kubernetes:{kind}::r", "n/c", state, values(new), [])
    return asyncio.run(Kubernetes(EngineLog(None)).diff(request))


def test_an_object_of_the_same_name_goes_before_its_replacement_comes() -> None:
    old, new = CONFIG_MAP | {"data": {"a": "1"}}, CONFIG_MAP | {"data": {"a": "2"}}
    assert answer(old, new).delete_before_replace
    renamed = answer(old, {**new, "metadata": {"name": "d", "namespace": "n"}})
    assert (renamed.replaces, renamed.delete_before_replace) == (["data.a", "metadata.name"], False)
    moved = answer(old, {**old, "metadata": {"name": "c", "namespace": "m"}})
    assert (moved.replaces, moved.delete_before_replace) == (["metadata.namespace"], False)


def test_metadata_that_is_not_known_yet_is_an_update() -> None:
    unknown = answer(CONFIG_MAP, {**CONFIG_MAP, "metadata": UNKNOWN})
    assert (list(unknown.detailed_diff), unknown.replaces) == (["metadata"], [])


def test_a_namespace_left_out_is_the_default_one() -> None:
    live = {**CONFIG_MAP, "metadata": {"name": "c", "namespace": "default"}}
    assert not answer(live, {**CONFIG_MAP, "metadata": {"name": "c"}}).changes
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    assert not answer(node, node).changes


# Names.


def check(new: Object, kind: str = "core/v1:ConfigMap") -> rpc.CheckResponse:
    request = rpc.CheckRequest(f"urn:pulumi:s::p::kubernetes:{kind}::r", {}, values(new), b"")
    return asyncio.run(Kubernetes(EngineLog(None)).check(request))


@pytest.mark.parametrize(
    ("metadata", "kind", "complaint"),
    [
        ({}, "core/v1:ConfigMap", "autonaming is disabled"),
        ({"generateName": "a-"}, "core/v1:ConfigMap", "generateName"),
        ({}, "core/v1:ConfigMapPatch", "patch resources require"),
        (
            {"name": "a", "annotations": {"pulumi.com/waitFor": "x"}},
            "core/v1:ConfigMap",
            "waitFor is not supported",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_made(
    metadata: Object, kind: str, complaint: str
) -> None:
    with pytest.raises(ProviderError, match=complaint):
        check({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, kind)


@pytest.mark.parametrize("metadata", [UNKNOWN, {"name": UNKNOWN}])
def test_a_name_may_be_unknown(metadata: Any) -> None:
    inputs = check({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}).inputs
    assert inputs is not None
    assert to_object(inputs)["metadata"] == metadata


# Secrets.


def test_what_was_secret_stays_secret() -> None:
    source = values(CONFIG_MAP) | {
        "data": PropertyValue({"open": PropertyValue("o"), "key": PropertyValue("hidden", is_secret=True)}),
        "list": PropertyValue([PropertyValue("x"), PropertyValue("y", is_secret=True)]),
    }
    inputs = to_object(source)
    state = checkpoint(inputs | {"status": {"n": 1}}, inputs, source, api_version="v1", manager="m")
    kept: list[Any] = [state, state["__inputs"].value]
    for obj in kept:
        data = obj["data"].value
        assert data["key"].is_secret and not data["open"].is_secret
        assert obj["list"].is_secret, "the order of a list may change, so all of it is secret"
    assert State(state).live == inputs | {"status": {"n": 1}}
    assert State(state).inputs == inputs
    assert secret_texts(source) == {"hidden"}


def test_a_secrets_data_is_always_secret() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "data": {"a": "YQ=="}, "type": "Opaque"}
    marked = members(secret, None)
    assert marked["data"].is_secret and not marked["type"].is_secret


def test_a_definitions_keys_have_underscores_in_the_state_only() -> None:
    source = {"spec": {"x-kubernetes-int-or-string": True}}
    state = checkpoint(source, source, values(source), api_version="v1", manager="m")
    spec: Any = state["spec"].value
    assert list(spec) == ["x_kubernetes_int_or_string"]
    assert State(state).live == source


def test_of_secrets_that_hold_each_other_nothing_is_left() -> None:
    texts = ("opens", "opens-sesame", 'line "one"\nline two')
    source = {text: PropertyValue(text, is_secret=True) for text in texts}
    error = r'Invalid value: "opens-sesame" and "line \"one\"\nline two", not opens'
    assert _hidden(error, source) == 'Invalid value: "[secret]" and "[secret]", not [secret]'


class Shown(EngineLog):
    """What the user would see while an object is made."""

    def __init__(self) -> None:
        super().__init__(None)
        self.lines: list[str] = []

    async def status(self, urn: str, message: str) -> None:
        self.lines.append(message)


class Failing(Cluster):
    """A cluster that fails with what it was sent."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ApiError(422, {"message": "data[key]: Invalid value: hidden"}, repeated=False),
        UnreachableError("POST hidden"),
    ],
)
def test_an_error_does_not_repeat_what_is_secret(error: Exception) -> None:
    log = Shown()
    plugin = Kubernetes(log)
    plugin._cluster = Failing(error)
    source = values(CONFIG_MAP) | {"data": PropertyValue({"key": PropertyValue("hidden", is_secret=True)})}
    urn = "urn:pulumi:s::p::kubernetes:core/v1:ConfigMap::r"
    with pytest.raises(ProviderError) as failure:
        asyncio.run(plugin.create(rpc.CreateRequest(urn, source, timeout=0, preview=False)))
    assert "[secret]" in str(failure.value)
    assert "hidden" not in "".join([str(failure.value), *log.lines])
    assert len(log.lines) == isinstance(error, ApiError), "a refusal is shown before it is the error"


# Field managers.


def entry(manager: str, operation: str, fields: Object, **more: str) -> Object:
    return {"manager": manager, "operation": operation, "fieldsV1": fields, **more}


def test_the_fields_of_a_create_go_over_to_the_resources_own_manager() -> None:
    status = entry("controller", "Update", {"f:status": {}}, subresource="status")
    scale = entry("kubectl", "Update", {"f:spec": {"f:replicas": {}}}, subresource="scale")
    created = entry(managers.CREATOR, "Update", {"f:data": {"f:a": {}}})
    edited = entry("kubectl", "Update", {"f:data": {"f:b": {}}})
    live = {"metadata": {"resourceVersion": "7", "managedFields": [created, status, edited, scale]}}
    patch = managers.adoption(live, "mine")
    assert patch == [
        {
            "op": "replace",
            "path": "/metadata/managedFields",
            "value": [entry("mine", "Apply", {"f:data": {"f:a": {}, "f:b": {}}}), status, scale],
        },
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
    ]
    settled = {"metadata": {"resourceVersion": "8", "managedFields": patch[0]["value"]}}
    assert managers.adoption(settled, "mine") == []


def test_a_manager_is_annotated_or_kept_or_made_up() -> None:
    assert managers.manager_of(CONFIG_MAP, "last") == "last"
    annotated = {"metadata": {"annotations": {"pulumi.com/patchFieldManager": "mine"}}}
    assert managers.manager_of(annotated, "last") == "mine"
    assert managers.manager_of(CONFIG_MAP) != managers.manager_of(CONFIG_MAP)


def test_conflicts_are_real_unless_asked_otherwise() -> None:
    live = {"metadata": {"managedFields": [entry("kubectl", "Update", {})]}}
    assert not managers.forced(CONFIG_MAP, live, preview=False)
    assert managers.forced(
        {"metadata": {"annotations": {"pulumi.com/patchForce": "true"}}}, live, preview=False
    )
    created = {"metadata": {"managedFields": [entry(managers.CREATOR, "Update", {})]}}
    assert managers.forced(CONFIG_MAP, created, preview=True)
    assert not managers.forced(CONFIG_MAP, created, preview=False), "by then the fields have gone over"
