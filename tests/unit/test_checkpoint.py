"""Which pods are saved, and the static pods that are made of them."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path

import pytest
import yaml

from components.assets.render import render as render_assets
from components.programs.checkpointer.checkpoint import Refused, render
from components.programs.checkpointer.pods import APISERVER, SAVED, Owner, is_ready, newest
from tests.cases import Case
from tests.unit.checkpoints import OWNERS, SECRET, START, Object, checkpoint, pod, secret, status

# -- owners --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", OWNERS)
def test_pods_belong_to_what_they_were_made_from(owner: Owner) -> None:
    assert Owner.of(pod(owner, uid="1")) == Owner.of(pod(owner, uid="2")) == owner
    assert Owner.parse(str(owner)) == owner


@pytest.mark.parametrize("change", ["name", "kind", "static", "owner", "controller", "namespace"])
def test_other_pods_belong_to_nobody(change: str) -> None:
    made = pod()
    metadata = made["metadata"]
    # Such a pod may say of itself what it likes.
    metadata["annotations"] = {"kubepivot.dev/checkpoint": "true"}
    match change:
        case "name":
            metadata["ownerReferences"][0]["name"] = "addon"
        case "kind":
            metadata["ownerReferences"][0]["kind"] = "StatefulSet"
        case "static":
            metadata["ownerReferences"][0] |= {"kind": "Node", "name": "controller-1"}
        case "owner":
            del metadata["ownerReferences"]
        case "controller":
            metadata["ownerReferences"][0]["controller"] = False
        case "namespace":
            metadata["namespace"] = "default"
    assert Owner.of(made) is None


@pytest.mark.parametrize("name", ["lost+found", ".new", "kube-system", "current", ""])
def test_other_directories_belong_to_nobody(name: str) -> None:
    assert Owner.parse(name) is None


# -- readiness -----------------------------------------------------------------------------------------------


def test_a_status_from_before_the_boot_is_not_believed() -> None:
    made = pod()
    assert is_ready(made, booted=0)
    assert is_ready(made, booted=START.timestamp() + 0.9), "the API has whole seconds"
    assert not is_ready(made, booted=START.timestamp() + 1)


@pytest.mark.parametrize("change", ["ready", "waiting", "empty", "nothing", "terminating"])
def test_a_pod_that_does_not_run_is_not_ready(change: str) -> None:
    made = pod()
    match change:
        case "ready":
            made["status"] = status(ready=False)
        case "waiting":
            made["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
        case "empty":
            made["status"]["containerStatuses"] = []
        case "nothing":
            del made["status"]
        case "terminating":
            made["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    assert not is_ready(made, booted=0)


def test_the_newest_pod_of_a_roll_is_the_source() -> None:
    old, new = pod(uid="1"), pod(uid="2")
    new["metadata"]["creationTimestamp"] = "2026-01-01T00:00:01Z"
    assert newest([new, old]) == newest([old, new]) == new
    assert newest([]) is None


# -- static pods ---------------------------------------------------------------------------------------------


def test_a_static_pod_is_the_real_one_without_what_names_the_api() -> None:
    real = pod()
    made = json.loads(render(APISERVER, real, secret).manifest(Path("/revision")))
    assert made["metadata"] == {
        "name": "kube-apiserver-checkpoint",
        "namespace": "kube-system",
        "labels": {"kubepivot.dev/checkpoint-of": "kube-apiserver"},
    }
    spec = made["spec"]
    dropped = {"nodeName", "nodeSelector", "affinity", "serviceAccountName", "serviceAccount"}
    assert real["spec"].keys() - spec.keys() == dropped | {"imagePullSecrets"}
    kept = spec.keys() - {"containers", "volumes"}
    assert {key: spec[key] for key in kept} == {key: real["spec"][key] for key in kept}
    (container,) = spec["containers"]
    (of_real,) = real["spec"]["containers"]
    assert container == {
        "imagePullPolicy": "IfNotPresent",
        **{key: value for key, value in of_real.items() if key != "resources"},
    }
    assert spec["volumes"] == [
        {"name": "modules", "hostPath": {"path": "/lib/modules"}},
        {"name": "secrets", "hostPath": {"path": "/revision/secrets", "type": "Directory"}},
    ]
    assert "status" not in made and "secretName" not in json.dumps(made)


def _sidecar(name: str, *volumes: str) -> Object:
    mounts = [{"name": volume, "mountPath": f"/{volume}"} for volume in volumes]
    return {"name": name, "restartPolicy": "Always", "volumeMounts": mounts}


# That of a cluster of before has its program in the command, not in a ConfigMap, and another name.
@pytest.mark.parametrize("name", ["reuseport-filter", "port-steering"])
def test_sidecars_go_with_what_only_they_mount_and_other_init_containers_are_kept(name: str) -> None:
    real = pod()
    without = render(APISERVER, real, secret)
    real["spec"]["initContainers"] = [_sidecar(name, "program", "state", "secrets"), {"name": "prepare"}]
    # What is left out is not asked for either.
    real["spec"]["volumes"] += [
        {"name": "program", "configMap": {"name": "gone"}},
        {"name": "state", "emptyDir": {}},
    ]
    made = render(APISERVER, real, secret)
    prepare = {"name": "prepare", "imagePullPolicy": "IfNotPresent"}
    assert made.pod["spec"] == {**without.pod["spec"], "initContainers": [prepare]}
    assert made.volumes == without.volumes
    real["spec"]["initContainers"] = [_sidecar(name, "program", "state")]
    assert render(APISERVER, real, secret) == without


def test_images_that_are_there_are_never_pulled() -> None:
    """AlwaysPullImages changes every pod that is made."""
    real = pod(initContainers=[{"name": "prepare"}])
    for container in (*real["spec"]["initContainers"], *real["spec"]["containers"]):
        container["imagePullPolicy"] = "Always"
    spec = render(APISERVER, real, secret).pod["spec"]
    policies = [each["imagePullPolicy"] for each in (*spec["initContainers"], *spec["containers"])]
    assert policies == ["IfNotPresent", "IfNotPresent"]


def test_the_pod_that_is_saved_is_not_changed() -> None:
    real = pod()
    before = copy.deepcopy(real)
    render(APISERVER, real, secret)
    assert real == before


KEY_REF: Object = {"secretKeyRef": {"name": "main-1", "key": "a"}}
MAP_REF: Object = {"configMapKeyRef": {"name": "main-1", "key": "a"}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"volumes": [{"name": "token", "projected": {"sources": []}}]}, "volume of kind projected"),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {}}]}, "kind persistentVolumeClaim"),
        ({"volumes": [{"name": "v", "csi": {}}]}, "kind csi"),
        ({"volumes": [{"name": "v", "secret": {"secretName": "gone"}}]}, "secret gone is not there"),
        ({"volumes": [{"name": "v", "configMap": {"name": "gone"}}]}, "configMap gone is not there"),
        ({"containers": [{"env": [{"name": "KEY", "valueFrom": KEY_REF}]}]}, "the variable KEY comes from"),
        ({"containers": [{"env": [{"name": "KEY", "valueFrom": MAP_REF}]}]}, "the variable KEY comes from"),
        ({"containers": [{"envFrom": [{"secretRef": {"name": "main-1"}}]}]}, "variables come from the API"),
        ({"initContainers": [{"envFrom": [{"secretRef": {}}]}]}, "variables come from the API"),
        ({"containers": [{"securityContext": {"runAsUser": 1}}, {}]}, "run as different users"),
        ({"resourceClaims": [{"name": "gpu"}]}, "resource claims"),
    ],
)
def test_what_cannot_be_had_without_an_api_is_refused(changes: Object, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        render(APISERVER, pod(**changes), secret)


def _files(volume: Object, found: Object | None) -> dict[str, tuple[int, bytes]]:
    made = render(APISERVER, pod(volumes=[{"name": "v", **volume}]), lambda resource, name: found)
    return dict(made.volumes["v"])


def test_files_are_read_by_their_owner_alone_whatever_mode_they_had() -> None:
    modes = {"": 0o400, "defaultMode": 0o400}
    for key in modes:
        volume = {"secret": {"secretName": "s", **({key: 0o440} if key else {})}}
        assert _files(volume, SECRET) == {"a.crt": (0o400, b"a.crt"), "a.key": (0o400, b"a.key")}
    config = {"configMap": {"name": "c", "defaultMode": 0o755}}
    assert _files(config, {"data": {"run": "text"}}) == {"run": (0o500, b"text")}


def test_a_config_map_has_text_and_bytes() -> None:
    found = {"data": {"text": "ä"}, "binaryData": {"bytes": base64.b64encode(b"\x00\xff").decode()}}
    volume = {"configMap": {"name": "c"}}
    assert _files(volume, found) == {"text": (0o400, "ä".encode()), "bytes": (0o400, b"\x00\xff")}


def test_items_choose_keys_paths_and_modes() -> None:
    items = [{"key": "a.crt", "path": "tls/server.crt"}, {"key": "a.key", "path": "run", "mode": 0o700}]
    volume = {"secret": {"secretName": "s", "items": items}}
    assert _files(volume, SECRET) == {"tls/server.crt": (0o400, b"a.crt"), "run": (0o500, b"a.key")}


def test_what_is_optional_may_be_missing() -> None:
    assert _files({"secret": {"secretName": "s", "optional": True}}, None) == {}
    items = [{"key": "none", "path": "none"}, {"key": "a.crt", "path": "crt"}]
    assert _files({"secret": {"secretName": "s", "optional": True, "items": items}}, SECRET) == {
        "crt": (0o400, b"a.crt")
    }
    with pytest.raises(Refused, match="secret s has no key none"):
        _files({"secret": {"secretName": "s", "items": items}}, SECRET)


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", "a\nb", "a\\b"])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(Refused, match="is no path for a file"):
        _files({"secret": {"secretName": "s", "items": [{"key": "a.crt", "path": path}]}}, SECRET)


def test_a_revision_is_named_by_all_that_is_in_it() -> None:
    other = {"data": {**SECRET["data"], "a.key": base64.b64encode(b"renewed").decode()}}
    revisions = [
        checkpoint().revision,
        checkpoint(flag="--flag=2").revision,
        render(APISERVER, pod(), lambda resource, name: other).revision,
        render(APISERVER, pod(securityContext={"runAsUser": 1}), secret).revision,
    ]
    assert len(set(revisions)) == len(revisions)
    assert checkpoint().revision == revisions[0]


def test_pods_that_the_program_renders_can_be_static(case: Case) -> None:
    """Every one that is saved, with the Secrets and ConfigMaps that are rendered beside it."""
    objects = render_assets(case.cfg, case.machines, case.texts)
    manifests = [yaml.safe_load(file.text) for path, file in objects.items() if path.startswith("manifests/")]
    kinds = {"secrets": "Secret", "configmaps": "ConfigMap"}

    def get(resource: str, name: str) -> Object | None:
        wanted = (kinds[resource], name)
        return next((m for m in manifests if (m["kind"], m["metadata"]["name"]) == wanted), None)

    saved = set()
    for manifest in manifests:
        owner = Owner("kube-system", manifest["kind"], manifest["metadata"]["name"])
        if owner in SAVED:
            made = render(owner, manifest["spec"]["template"], get)
            saved.add(owner)
            sources = {kind for volume in made.pod["spec"]["volumes"] for kind in volume} - {"name"}
            assert sources <= {"hostPath"}, owner
            assert made.volumes and all(files for files in made.volumes.values()), owner
    assert saved == SAVED
