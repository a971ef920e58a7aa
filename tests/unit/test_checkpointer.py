"""The pod-checkpointer: what it saves, and that a disk or a cluster in any state does not mislead it."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import os
import stat
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.assets.node import script
from components.assets.render import render as render_assets
from components.checkpointer.checkpoint import Checkpoint, Refused, render
from components.checkpointer.checkpointer import SETTLED_SECONDS, Checkpointer, Unavailable
from components.checkpointer.pods import ANNOTATION, APISERVER, SELF, Owner, is_ready, newest
from components.checkpointer.state import DEAD_SECONDS, GONE_SECONDS, Action, Situation, Timers, decide
from components.checkpointer.store import Store, is_valid
from tests.cases import Case
from tests.unit.sandbox import Sandbox

SCHEDULER = Owner("kube-system", "Deployment", "kube-scheduler")
OWNERS = (APISERVER, SCHEDULER, SELF)
SECRET = {"data": {name: base64.b64encode(name.encode()).decode() for name in ("a.crt", "a.key")}}
START = datetime(2026, 1, 1, tzinfo=UTC)

Object = dict[str, Any]


def pod(owner: Owner = APISERVER, uid: str = "1", **changes: Any) -> Object:
    """A pod as the API has it: defaulted, bound, Ready."""
    replica_set = owner.kind == "Deployment"
    reference = {
        "kind": "ReplicaSet" if replica_set else owner.kind,
        "name": f"{owner.name}-5c8f" if replica_set else owner.name,
        "controller": True,
        "uid": "7",
    }
    return {
        "metadata": {
            "name": f"{owner.name}-{uid}",
            "namespace": owner.namespace,
            "uid": uid,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {ANNOTATION: "true"},
            "labels": {"pod-template-hash": "5c8f"} if replica_set else {"controller-revision-hash": "x"},
            "ownerReferences": [reference],
        },
        "spec": {
            "nodeName": "controller-1",
            "nodeSelector": {"node.kubernetes.io/controller": "true"},
            "affinity": {"nodeAffinity": {}},
            "serviceAccountName": "default",
            "serviceAccount": "default",
            "imagePullSecrets": [{"name": "registry"}],
            "automountServiceAccountToken": False,
            "hostNetwork": True,
            "priority": 2000001000,
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"runAsUser": os.getuid(), "fsGroup": os.getgid()},
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example/main:1",
                    "command": ["main", "--flag=1"],
                    "resources": {"requests": {"cpu": "50m"}},
                    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "volumeMounts": [{"name": "secrets", "mountPath": "/secrets"}],
                }
            ],
            "volumes": [
                {"name": "secrets", "secret": {"secretName": "main-1", "defaultMode": 0o440}},
                {"name": "modules", "hostPath": {"path": "/lib/modules"}},
            ],
            **changes,
        },
        "status": status(),
    }


def status(*, ready: bool = True, started: datetime = START, container: str = "c1") -> Object:
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [
            {
                "containerID": f"containerd://{container}",
                "state": {"running": {"startedAt": started.strftime("%Y-%m-%dT%H:%M:%SZ")}},
            }
        ],
    }


def secret(resource: str, name: str) -> Object | None:
    return SECRET if (resource, name) == ("secrets", "main-1") else None


def checkpoint(owner: Owner = APISERVER, flag: str = "--flag=1") -> Checkpoint:
    made = pod(owner)
    made["spec"]["containers"][0]["command"] = ["main", flag]
    return render(owner, made, secret)


# -- owners --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", OWNERS)
def test_pods_belong_to_what_they_were_made_from(owner: Owner) -> None:
    assert Owner.of(pod(owner, uid="1")) == Owner.of(pod(owner, uid="2")) == owner
    assert Owner.parse(str(owner)) == owner


@pytest.mark.parametrize("change", ["annotation", "value", "static", "owner", "controller"])
def test_other_pods_belong_to_nobody(change: str) -> None:
    made = pod()
    metadata = made["metadata"]
    match change:
        case "annotation":
            del metadata["annotations"]
        case "value":
            metadata["annotations"][ANNOTATION] = "false"
        case "static":
            metadata["annotations"]["kubernetes.io/config.mirror"] = "1"
        case "owner":
            del metadata["ownerReferences"]
        case "controller":
            metadata["ownerReferences"][0]["controller"] = False
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
        "annotations": {f"{ANNOTATION}-of": "DaemonSet/kube-apiserver"},
    }
    spec = made["spec"]
    dropped = {"nodeName", "nodeSelector", "affinity", "serviceAccountName", "serviceAccount"}
    assert real["spec"].keys() - spec.keys() == dropped | {"imagePullSecrets"}
    kept = spec.keys() - {"containers", "volumes"}
    assert {key: spec[key] for key in kept} == {key: real["spec"][key] for key in kept}
    (container,) = spec["containers"]
    (of_real,) = real["spec"]["containers"]
    assert container == {key: value for key, value in of_real.items() if key != "resources"}
    assert spec["volumes"] == [
        {"name": "modules", "hostPath": {"path": "/lib/modules"}},
        {"name": "secrets", "hostPath": {"path": "/revision/secrets", "type": "Directory"}},
    ]
    assert "status" not in made and "secretName" not in json.dumps(made)


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
    """Every annotated one, with the Secrets and ConfigMaps that are rendered beside it."""
    objects = render_assets(case.cfg, case.texts)
    manifests = [yaml.safe_load(file.text) for path, file in objects.items() if path.startswith("manifests/")]
    kinds = {"secrets": "Secret", "configmaps": "ConfigMap"}

    def get(resource: str, name: str) -> Object | None:
        wanted = (kinds[resource], name)
        return next((m for m in manifests if (m["kind"], m["metadata"]["name"]) == wanted), None)

    saved = set()
    for manifest in manifests:
        template: Object = manifest.get("spec", {}).get("template", {})
        if template.get("metadata", {}).get("annotations", {}).get(ANNOTATION) == "true":
            owner = Owner("kube-system", manifest["kind"], manifest["metadata"]["name"])
            made = render(owner, template, get)
            saved.add(owner)
            sources = {kind for volume in made.pod["spec"]["volumes"] for kind in volume} - {"name"}
            assert sources <= {"hostPath"}, owner
            assert made.volumes and all(files for files in made.volumes.values()), owner
    assert saved == {*OWNERS, Owner("kube-system", "Deployment", "kube-controller-manager")}


# -- on disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A host that boots: `arm-checkpoints` runs in it."""
    host = Sandbox(tmp_path)
    host.real("cp", "cut", "ls", "mv", "sha256sum", "sync", "tail", "touch")
    host.path("/etc/kubernetes/manifests").mkdir(parents=True)
    return host


@pytest.fixture
def store(host: Sandbox) -> Store:
    return Store(host.path("/etc/kubernetes"))


def _home(store: Store, owner: Owner = APISERVER) -> Path:
    return store.checkpoints / str(owner)


def _armed(store: Store) -> dict[str, Object]:
    return {path.name: json.loads(path.read_text()) for path in store.manifests.iterdir()}


def _flag(store: Store) -> str:
    made: Object = _armed(store)[APISERVER.manifest]
    return str(made["spec"]["containers"][0]["command"][1])


def _boot(host: Sandbox) -> str:
    done = host.run(script("arm-checkpoints"))
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_is_saved_is_there_and_private(store: Store) -> None:
    assert store.save(checkpoint())
    revision = store.generation(APISERVER)
    assert revision is not None
    assert (revision / "secrets" / "a.key").read_bytes() == b"a.key"
    for path in (store.checkpoints, _home(store), *revision.resolve().rglob("*"), revision.resolve()):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o400 if path.parent.name == "secrets" else 0o600), path
    assert not store.save(checkpoint()), "it is there already"


def test_an_armed_pod_reads_the_revision_that_it_was_made_with(store: Store) -> None:
    store.save(checkpoint())
    assert store.arm(APISERVER)
    (volume,) = [v for v in _armed(store)[APISERVER.manifest]["spec"]["volumes"] if v["name"] == "secrets"]
    for flag in ("--flag=2", "--flag=3", "--flag=4"):
        store.save(checkpoint(flag=flag))
        assert (Path(volume["hostPath"]["path"]) / "a.key").read_bytes() == b"a.key"
    store.disarm(APISERVER)
    store.save(checkpoint(flag="--flag=4"))
    assert len([each for each in _home(store).iterdir() if not each.is_symlink()]) == 2
    assert not Path(volume["hostPath"]["path"]).exists()


def test_a_boot_arms_what_the_program_would_arm(host: Sandbox, store: Store) -> None:
    for owner in OWNERS:
        store.save(checkpoint(owner))
    assert store.booted() == 0
    assert _boot(host) == ""
    by_boot = _armed(store)
    assert store.booted() > 0
    for owner in OWNERS:
        store.disarm(owner)
        assert not store.is_armed(owner)
        store.arm(owner)
    assert _armed(store) == by_boot
    assert sorted(by_boot) == sorted(owner.manifest for owner in OWNERS)


def test_a_boot_without_checkpoints_arms_nothing(host: Sandbox, store: Store) -> None:
    assert _boot(host) == ""
    store.checkpoints.mkdir()
    (store.checkpoints / "kube-system-DaemonSet-empty").mkdir()
    assert _boot(host) == ""
    assert _armed(store) == {}
    assert store.generation(APISERVER) is None and not store.arm(APISERVER)


def test_a_clock_that_went_back_does_not_make_every_pod_look_old(host: Sandbox, store: Store) -> None:
    _boot(host)
    later = datetime.now(UTC).timestamp() + 86400
    os.utime(host.path("/etc/kubernetes/checkpoints.booted"), (later, later))
    assert store.booted() == 0


def _damages() -> dict[str, Callable[[Path], object]]:
    """Ways to break a revision."""
    manifest = APISERVER.manifest

    def cut(name: str, size: int) -> Callable[[Path], object]:
        return lambda revision: os.truncate(revision / name, size)

    def swap(revision: Path) -> None:
        lines = (revision / "SHA256SUMS").read_text().splitlines()
        (revision / "SHA256SUMS").write_text("\n".join(reversed(lines)) + "\n")

    damages: dict[str, Callable[[Path], object]] = {
        "no digests": lambda revision: (revision / "SHA256SUMS").unlink(),
        "no manifest": lambda revision: (revision / manifest).unlink(),
        "no secret": lambda revision: (revision / "secrets" / "a.key").unlink(),
        "another secret": lambda revision: _overwrite(revision / "secrets" / "a.key", b"b.key"),
        "another manifest": lambda revision: _overwrite(revision / manifest, b"{}"),
        "digests in another order": swap,
        "no revision": lambda revision: revision.rename(revision.with_name("away")),
    }
    damages |= {f"manifest of {size} bytes": cut(manifest, size) for size in (0, 1, 100)}
    damages |= {f"secret of {size} bytes": cut("secrets/a.key", size) for size in (0, 4)}
    damages |= {f"digests of {size} bytes": cut("SHA256SUMS", size) for size in (0, 1, 64, 82, 83, 166, 200)}
    return damages


def _overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", _damages())
def test_a_damaged_checkpoint_is_never_used(host: Sandbox, store: Store, damage: str) -> None:
    store.save(checkpoint(flag="--flag=old"))
    store.save(checkpoint(flag="--flag=new"))
    revision = (_home(store) / "current").resolve()
    _damages()[damage](revision)
    assert not is_valid(revision, APISERVER.manifest)
    said = _boot(host)
    assert _flag(store) == "--flag=old"
    assert damage == "no revision" or f"{revision.parent}/current is damaged" in said
    store.disarm(APISERVER)
    assert store.arm(APISERVER)
    assert _flag(store) == "--flag=old"
    store.disarm(APISERVER)
    assert store.save(checkpoint(flag="--flag=new")), "it is mended"
    _boot(host)
    assert _flag(store) == "--flag=new"


def test_with_both_generations_damaged_nothing_is_armed(host: Sandbox, store: Store) -> None:
    for flag in ("--flag=1", "--flag=2"):
        store.save(checkpoint(flag=flag))
    for link in ("current", "previous"):
        (_home(store) / link / APISERVER.manifest).unlink()
    _boot(host)
    assert _armed(store) == {} and not store.arm(APISERVER)


@pytest.mark.parametrize("damage", ["whole", "no manifest", "digests of 83 bytes"])
def test_the_hand_over_asks_for_what_a_boot_would_use(host: Sandbox, store: Store, damage: str) -> None:
    store.save(checkpoint())
    if damage != "whole":
        _damages()[damage]((_home(store) / "current").resolve())
    done = host.run(f"set -- --check {APISERVER}\n{script('arm-checkpoints')}")
    assert (done.returncode == 0) == (damage == "whole")
    assert _armed(store) == {} and store.booted() == 0


def test_a_save_that_is_cut_short_anywhere_leaves_a_whole_generation(
    host: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    for steps in itertools.count():
        flag = f"--flag={steps}"
        store.save(checkpoint(flag="--flag=old"))
        left = itertools.repeat(None, steps)

        def fsync(descriptor: int, left: Any = left) -> None:
            if next(left, "over") == "over":
                raise OSError(28, "No space left on device")
            real(descriptor)

        with monkeypatch.context() as disk:
            disk.setattr(os, "fsync", fsync)
            try:
                store.save(checkpoint(flag=flag))
                whole = True
            except OSError:
                whole = False
        _boot(host)
        assert _flag(store) in ("--flag=old", flag)
        store.disarm(APISERVER)
        assert store.save(checkpoint(flag=flag)) or store.generation(APISERVER) is not None
        _boot(host)
        assert _flag(store) == flag
        store.disarm(APISERVER)
        if whole:
            assert steps > 8, "it was cut short at every file, directory and link"
            return


# -- decisions -----------------------------------------------------------------------------------------------


def test_decisions_exhaustively() -> None:
    """Every situation of three owners, with and without an API."""
    situations = [
        Situation(armed=armed, settled=settled, gone_for=gone_for)
        for armed in (False, True)
        for settled, gone_for in ((False, 0.0), (True, 0.0), (False, GONE_SECONDS - 1), (False, GONE_SECONDS))
    ]
    for dead_for in (0.0, DEAD_SECONDS - 1, DEAD_SECONDS):
        for found in itertools.product(situations, repeat=len(OWNERS)):
            owners = dict(zip(OWNERS, found, strict=True))
            actions = decide(owners, dead_for)
            others_armed = any(owners[owner].armed for owner in OWNERS if owner != SELF)
            for owner, situation in owners.items():
                action = actions.get(owner)
                gone, dead = situation.gone_for >= GONE_SECONDS, dead_for >= DEAD_SECONDS
                last = owner == SELF and others_armed
                assert (action == Action.ARM) == (dead and not situation.armed)
                assert (action == Action.DISARM) == (situation.armed and situation.settled and not last)
                keeps = last or (owner == APISERVER and situation.armed)
                assert (action == Action.FORGET) == (
                    gone and not keeps and not situation.settled and action != Action.ARM
                )


def test_a_timer_starts_anew_after_a_break() -> None:
    timers = Timers()
    timers.hold({"a"}, 10)
    timers.hold({"a", "b"}, 12)
    assert (timers.age("a", 15), timers.age("b", 15), timers.age("c", 15)) == (5, 3, 0)
    timers.hold({"b"}, 16)
    timers.hold({"a", "b"}, 18)
    assert (timers.age("a", 20), timers.age("b", 20)) == (2, 8)


# -- a model: events in any order ----------------------------------------------------------------------------


class World:
    """A controller and its cluster, as far as the program can tell."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.listening = True
        self.telling = True
        self.pods: dict[Owner, Object] = {}
        self.containers = itertools.count()
        self.store = Store(directory)
        self.store.manifests.mkdir(parents=True)
        self.directory = directory
        self.start()
        for owner in OWNERS:
            self.create(owner)

    def start(self) -> None:
        self.program = Checkpointer("controller-1", self, self.store, lambda: self.now)

    def answers(self) -> bool:
        return self.listening

    def get(self, path: str) -> Object | None:
        if not (self.listening and self.telling):
            raise Unavailable(path)
        if path == "/api/v1/pods?fieldSelector=spec.nodeName%3Dcontroller-1":
            return {"items": copy.deepcopy(list(self.pods.values()))}
        assert path == "/api/v1/namespaces/kube-system/secrets/main-1"
        return SECRET

    def create(self, owner: Owner) -> None:
        self.pods[owner] = pod(owner, uid=str(next(self.containers)))
        self.run(owner)

    def remove(self, owner: Owner) -> None:
        self.pods.pop(owner, None)

    def run(self, owner: Owner, *, ready: bool = True) -> None:
        if owner in self.pods:
            # A clock that the marks of boots are set by as well.
            started = datetime.now(UTC) + timedelta(seconds=2)
            self.pods[owner]["status"] = status(
                ready=ready, started=started, container=str(next(self.containers))
            )

    def reboot(self) -> None:
        """Statuses stay as they were, containers are gone, what is saved is armed."""
        old = datetime.now(UTC) - timedelta(days=1)
        for found in self.pods.values():
            for container in found["status"]["containerStatuses"]:
                container["state"] = {"running": {"startedAt": old.strftime("%Y-%m-%dT%H:%M:%SZ")}}
        (self.directory / "checkpoints.booted").touch()
        for owner in self.store.owners():
            self.store.arm(owner)
        self.start()

    def damage(self, owner: Owner) -> None:
        link = self.store.checkpoints / str(owner) / "current"
        if link.exists():
            (link / "SHA256SUMS").write_text("")

    def armed(self) -> set[Owner]:
        return {owner for owner in OWNERS if self.store.is_armed(owner)}

    def let(self, seconds: float) -> None:
        """Time goes by, with a look every two seconds; what must hold then is checked at each."""
        end = self.now + seconds
        while self.now < end:
            self.now += 2
            before = self.armed()
            dead_before = not self.listening
            self.program.tick()
            after = self.armed()
            for owner in before - after:
                assert self.listening and self.telling, "nothing is known, so nothing is taken away"
                found = self.pods.get(owner)
                assert found is None or is_ready(found, self.store.booted())
                assert found is not None or owner != APISERVER, "it may be the only one that answers"
                assert owner != SELF or not before - {SELF}, "itself last"
            assert after <= before or dead_before, "nothing is armed beside a living API"
            for path in self.store.manifests.iterdir():
                for volume in json.loads(path.read_text())["spec"]["volumes"]:
                    if volume["name"] == "secrets":
                        assert (Path(volume["hostPath"]["path"]) / "a.key").read_bytes() == b"a.key"


EVENTS: dict[str, Callable[[World, Owner], None]] = {
    "nothing listens": lambda world, owner: setattr(world, "listening", False),
    "something listens": lambda world, owner: setattr(world, "listening", True),
    "the API is sick": lambda world, owner: setattr(world, "telling", False),
    "the API is well": lambda world, owner: setattr(world, "telling", True),
    "a pod is made": lambda world, owner: world.create(owner),
    "a pod is gone": lambda world, owner: world.remove(owner),
    "a container starts anew": lambda world, owner: world.run(owner),
    "a container is not ready": lambda world, owner: world.run(owner, ready=False),
    "the host reboots": lambda world, owner: world.reboot(),
    "the program starts anew": lambda world, owner: world.start(),
    "a checkpoint is damaged": lambda world, owner: world.damage(owner),
}


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(EVENTS)), st.sampled_from(OWNERS), st.sampled_from([0, 2, 16, 40, 310])
        ),
        max_size=10,
    )
)
def test_whatever_happens_a_dead_api_is_armed_and_a_healthy_cluster_stands_alone(
    events: list[tuple[str, Owner, int]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        world.let(40)
        for event, owner, seconds in events:
            EVENTS[event](world, owner)
            world.let(seconds)
        saved = [owner for owner in OWNERS if world.store.generation(owner)]
        world.listening = False
        world.let(DEAD_SECONDS + 4)
        assert set(saved) <= world.armed()
        world.listening = world.telling = True
        for owner in OWNERS:
            world.create(owner)
        world.let(SETTLED_SECONDS + 10)
        assert world.armed() == set()
        assert all(world.store.generation(owner) for owner in OWNERS)


# -- the program ---------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "kubernetes")


def test_the_first_checkpoint_is_taken_at_once_and_the_next_when_it_has_settled(world: World) -> None:
    world.let(2)
    first = world.store.generation(APISERVER)
    assert first is not None
    before = first.resolve()
    world.create(APISERVER)
    world.pods[APISERVER]["spec"]["containers"][0]["command"] = ["main", "--flag=2"]
    world.let(SETTLED_SECONDS - 2)
    assert first.resolve() == before
    world.let(4)
    assert first.resolve() != before
    assert (_home(world.store) / "previous").resolve() == before


def test_a_pod_that_crashes_within_that_time_is_never_saved(world: World) -> None:
    world.let(2)
    link = _home(world.store) / "current"
    before = link.resolve()
    world.create(APISERVER)
    world.pods[APISERVER]["spec"]["containers"][0]["command"] = ["main", "--broken"]
    for _ in range(5):
        world.let(SETTLED_SECONDS - 2)
        world.run(APISERVER)
    assert link.resolve() == before


def test_a_refused_pod_is_named_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.pods[SCHEDULER]["spec"]["volumes"].append({"name": "token", "projected": {}})
    world.let(100)
    said = [line for line in capsys.readouterr().out.splitlines() if "kube-scheduler" in line]
    reason = "a static pod can have no volume of kind projected"
    assert said == [f"kube-system-Deployment-kube-scheduler is not saved: {reason}"]
    assert world.store.generation(SCHEDULER) is None and world.store.generation(APISERVER) is not None


def test_a_full_disk_keeps_what_is_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.let(2)
    before = world.store.generation(APISERVER)
    world.create(APISERVER)
    world.pods[APISERVER]["spec"]["containers"][0]["command"] = ["main", "--flag=2"]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        world.let(100)
    assert world.store.generation(APISERVER) == before
    assert before is not None and is_valid(before, APISERVER.manifest)
    world.let(4)
    assert "--flag=2" in (before / APISERVER.manifest).read_text()


def test_a_directory_that_somebody_removed_is_made_again(world: World) -> None:
    world.let(2)
    world.store.checkpoints.rename(world.directory / "away")
    world.let(4)
    assert all(world.store.generation(owner) for owner in OWNERS)


def test_an_owner_that_was_deleted_is_forgotten_after_a_while(world: World) -> None:
    world.let(40)
    del world.pods[SCHEDULER]
    world.let(GONE_SECONDS - 4)
    assert world.store.generation(SCHEDULER) is not None
    world.let(8)
    assert not _home(world.store, SCHEDULER).exists()
    assert world.store.generation(APISERVER) is not None
