"""The files of a host, byte for byte, and what must hold of them whatever they say."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml

from components.archive import File
from components.assets.backup import SCRIPT
from components.assets.bootstrap import bootstrap_files
from components.assets.controlplane import UID
from components.assets.handover import handover_files
from components.assets.node import MIRRORED_REGISTRIES, node_files
from components.assets.preflight import preflight_files
from components.assets.recovery import recovery_files
from components.assets.registration import KEEP_NODE
from components.assets.render import render
from components.assets.upgrade import upgrade_files
from components.config import parse
from components.config.images import release_images
from components.config.k8s_names import CONTROL_PLANE_ROLE, Taint
from tests.cases import Case, load

Files = dict[str, File]

# What only the machine knows; its scripts fill it in.
LEFT_TO_THE_HOST = {"@ARCH@", "@RESTRICT_OOM_SCORE_ADJ@", "@RUNC@", "@SERVICE_IP@", "@SYSTEMD_CGROUP@"}
STEPS_OWN = ("claims", "download", "lib.sh", "network-check.sh", "preflight", "rollout.sh", "stage")
WITH_PLACEHOLDERS = {"env", "containerd.toml", "download", "network-check.yaml", "network-check.sh"}
WITH_PLACEHOLDERS |= {"preflight", "preflight.env"}

THEIRS = ("root/etc/kubernetes/pki/etcd/", "root/etc/kubernetes/bootstrap-secrets/")


@pytest.fixture(scope="module")
def steps(case: Case) -> dict[str, Files]:
    """Files of every step on every host, by `<host>/<step>`."""
    found: dict[str, Files] = {}
    for name, machine in case.machines.items():
        found[f"{name}/preflight"] = preflight_files(case.cfg, machine)
        found[f"{name}/node"] = node_files(case.cfg, machine, case.machines, case.texts)
        found[f"{name}/upgrade"] = upgrade_files(case.cfg)
    first = case.machines[case.cfg.bootstrap_controller]
    found[f"{first.name}/bootstrap"] = bootstrap_files(case.cfg, first, case.machines, case.texts)
    found[f"{first.name}/handover"] = handover_files(case.cfg, first, case.machines, case.texts)
    return found


def _placed(files: Files) -> Files:
    return {path.removeprefix("root"): file for path, file in files.items() if path.startswith("root/")}


def _env(files: Files) -> dict[str, str]:
    name = "env" if "env" in files else "preflight.env"
    return dict(line.split("=", 1) for line in shlex.split(files[name].text))


def _registered_taints(files: Files) -> Any:
    return yaml.safe_load(_placed(files)["/etc/kubernetes/kubelet.d/taints.conf"].text)["registerWithTaints"]


def _kubelet(files: Files) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load(_placed(files)["/etc/kubernetes/kubelet.yaml"].text)
    return configuration


def test_every_file_is_as_expected(
    case: Case, steps: dict[str, Files], golden: Callable[[str, Mapping[str, File]], None]
) -> None:
    # The other hosts differ in names and addresses.
    shown = (case.cfg.bootstrap_controller, *case.cfg.workers)
    files = {
        f"{step}/{path}": file
        for step, found in steps.items()
        for path, file in found.items()
        if step.split("/")[0] in shown
    }
    # The rest of it is other steps' files, and the manifests (see test_recovery_graph).
    first = case.machines[case.cfg.bootstrap_controller]
    cfg = parse(case.raw | {"recovery": {"generation": 1}}, stack=case.name)
    files[f"{first.name}/recover/env"] = recovery_files(cfg, first, case.machines, case.texts)["env"]
    golden("hosts", files)


def test_every_yaml_and_toml_parses(steps: dict[str, Files]) -> None:
    for step, files in steps.items():
        for path, file in files.items():
            if path.endswith((".yaml", "kubeconfig")):
                assert yaml.safe_load(file.text)["kind"], f"{step}: {path}"
            if path.endswith(".toml"):
                text = file.text.replace("@RESTRICT_OOM_SCORE_ADJ@", "true").replace(
                    "@SYSTEMD_CGROUP@", "true"
                )
                assert tomllib.loads(text), f"{step}: {path}"


def test_no_placeholder_is_left_but_for_the_host(steps: dict[str, Files]) -> None:
    for step, files in steps.items():
        for path, file in files.items():
            allowed = LEFT_TO_THE_HOST if path in WITH_PLACEHOLDERS else set()
            assert set(re.findall("@[A-Z_]+@", file.text)) <= allowed, f"{step}: {path}"
            # The others are templates as they stand, with the shell's own variables.
            if path.removeprefix("root") not in (*STEPS_OWN, SCRIPT, KEEP_NODE):
                text = file.text.replace("--node-labels=${NODE_LABELS}", "")  # systemd's
                assert not re.search(r"\$\{|⟦|\bNone\b", text), f"{step}: {path}"


def test_secrets_are_in_private_files_only(case: Case, steps: dict[str, Files]) -> None:
    for step, files in steps.items():
        for path, file in files.items():
            secret = "PRIVATE KEY" in file.text or "client-key-data" in file.text
            secret = secret or "SECRET_ACCESS_KEY" in file.text
            assert file.mode == 0o600 or not secret, f"{step}: {path}"


def test_nothing_but_the_pods_of_the_control_plane_belongs_to_their_user(steps: dict[str, Files]) -> None:
    for step, files in steps.items():
        for path, file in files.items():
            theirs = path.startswith(
                ("root/etc/kubernetes/pki/etcd/", "root/etc/kubernetes/bootstrap-secrets/")
            )
            assert file.owner == (UID if theirs else 0), f"{step}: {path}"
            assert file.mode == 0o600 or not theirs, f"{step}: {path}"


def test_a_worker_gets_no_key_of_the_control_plane(case: Case, steps: dict[str, Files]) -> None:
    for worker in case.cfg.workers:
        own = {case.texts[f"kubelet-{use}-{worker}.key"] for use in ("serving", "client")}
        others = [text for name, text in case.texts.items() if name.endswith(".key") and text not in own]
        for path, file in steps[f"{worker}/node"].items():
            assert not any(other in file.text for other in others), path


def test_a_host_gets_no_key_of_another(case: Case, steps: dict[str, Files]) -> None:
    for step, files in steps.items():
        for other in case.cfg.hosts.keys() - {step.split("/")[0]}:
            keys = [text for name, text in case.texts.items() if name.endswith(f"-{other}.key")]
            assert keys
            assert not any(key in file.text for key in keys for file in files.values()), step


def test_no_authority_key_leaves_the_bootstrap_controller(case: Case, steps: dict[str, Files]) -> None:
    """The controller manager signs kubelets' requests with the cluster's; nobody needs the others'."""
    for step, files in steps.items():
        held = {
            name
            for name in ("ca.key", "etcd/ca.key", "front-proxy-ca.key")
            for file in files.values()
            if case.texts[name] in file.text
        }
        assert held == ({"ca.key"} if step.endswith("/bootstrap") else set()), step


def test_static_pods_on_disk_are_the_rendered_ones(case: Case, steps: dict[str, Files]) -> None:
    rendered = render(case.cfg, case.machines, case.texts)
    on_disk = {
        f"{step} {path.rpartition('/')[2]}": file.text
        for step, files in steps.items()
        for path, file in files.items()
        if path.startswith("root/etc/kubernetes/manifests/")
    }
    first = case.cfg.bootstrap_controller
    expected = {
        f"{name}/node etcd.yaml": rendered["static-manifests/etcd.yaml"].text for name in case.cfg.controllers
    } | {
        f"{first}/bootstrap {path.rpartition('/')[2]}": file.text
        for path, file in rendered.items()
        if path.startswith("bootstrap-manifests/")
    }
    assert on_disk == expected


def test_static_pods_mount_what_their_step_brings(case: Case, steps: dict[str, Files]) -> None:
    """A hostPath of type Directory that is not there keeps the pod from starting."""
    made_by_the_script = {"/var/lib/etcd", "/var/lib/etcd/member"}
    for step, files in steps.items():
        placed = _placed(files)
        for path, file in placed.items():
            if path.startswith("/etc/kubernetes/manifests/"):
                for volume in yaml.safe_load(file.text)["spec"]["volumes"]:
                    mounted = volume["hostPath"]["path"]
                    brought = any(other == mounted or other.startswith(f"{mounted}/") for other in placed)
                    assert brought or mounted in made_by_the_script, f"{step}: {path}"


def test_the_kubelet_is_closed_to_the_anonymous(case: Case, steps: dict[str, Files]) -> None:
    for name in case.cfg.hosts:
        configuration = _kubelet(steps[f"{name}/node"])
        assert configuration["authentication"]["anonymous"] == {"enabled": False}
        assert configuration["authentication"]["webhook"] == {"enabled": True}
        assert configuration["authorization"] == {"mode": "Webhook"}
        assert configuration["readOnlyPort"] == 0
        assert configuration["tlsMinVersion"] == "VersionTLS12"


def test_every_file_that_the_kubelet_names_is_there(case: Case, steps: dict[str, Files]) -> None:
    for name in case.cfg.hosts:
        files = steps[f"{name}/node"]
        configuration = _kubelet(files)
        named = {
            configuration["authentication"]["x509"]["clientCAFile"],
            configuration["tlsCertFile"],
            configuration["tlsPrivateKeyFile"],
        }
        assert named <= set(_placed(files)), name


def test_no_taint_stands_twice() -> None:
    """The API refuses a node with two of one key and effect."""
    case = load("baremetal")
    named = Taint(key=CONTROL_PLANE_ROLE, effect="NoSchedule")
    files = node_files(case.cfg, replace(case.machines["alpha"], taints=(named,)), case.machines, case.texts)
    assert _registered_taints(files) == [{"key": CONTROL_PLANE_ROLE, "value": "", "effect": "NoSchedule"}]


def test_labels_and_taints_are_those_of_config_and_role(case: Case, steps: dict[str, Files]) -> None:
    for name, host in case.cfg.hosts.items():
        files = steps[f"{name}/node"]
        controller = host.role == "controller"
        taints = [{"key": t.key, "value": t.value, "effect": t.effect} for t in host.taints]
        if controller:
            taints.append({"key": CONTROL_PLANE_ROLE, "value": "", "effect": "NoSchedule"})
        assert _registered_taints(files) == taints
        (setting,) = shlex.split(_placed(files)["/etc/kubernetes/kubelet.env"].text)
        labels = dict(part.split("=", 1) for part in setting.removeprefix("NODE_LABELS=").split(",") if part)
        # The role is not the kubelet's to give.
        assert labels == host.labels


def test_downloads_come_from_the_mirror_or_else_from_the_official_sites(
    case: Case, steps: dict[str, Files]
) -> None:
    sites = ("dl.k8s.io/", "github.com/")
    prefix = f"{case.cfg.mirror.artifacts}/" if case.cfg.mirror else "https://"
    for name in case.cfg.hosts:
        urls = {
            key: value
            for step in ("node", "preflight")
            for key, value in _env(steps[f"{name}/{step}"]).items()
            if "://" in value
        }
        assert len(urls) == 13, urls
        assert all(url.startswith(tuple(f"{prefix}{site}" for site in sites)) for url in urls.values()), urls
        placed = _placed(steps[f"{name}/node"]).items()
        toml = [file.text for path, file in placed if path.startswith("/etc/containerd/certs.d/")]
        assert bool(toml) == (case.cfg.mirror is not None)
        # containerd knows the servers by itself: that of docker.io has another name.
        assert not any("server" in tomllib.loads(text) for text in toml)


@pytest.mark.parametrize(
    ("images", "served_at"),
    [
        ("http://mirror.example.com:5000", "http://mirror.example.com:5000/v2"),
        ("https://harbor.example.com/proxy", "https://harbor.example.com/v2/proxy"),
        ("https://harbor.example.com/v2/a/b/", "https://harbor.example.com/v2/a/b"),
        ("https://10.0.0.1/v2", "https://10.0.0.1/v2"),
    ],
)
def test_a_registry_serves_paths_below_the_version_of_its_api(images: str, served_at: str) -> None:
    case = load("lab")
    mirror = case.raw["mirror"] | {"images": images}
    cfg = parse(case.raw | {"mirror": mirror}, stack=case.name)
    placed = _placed(node_files(cfg, case.machines["worker-1"], case.machines, case.texts))
    for registry in MIRRORED_REGISTRIES:
        hosts = tomllib.loads(placed[f"/etc/containerd/certs.d/{registry}/hosts.toml"].text)
        # So that containerd adds nothing to it.
        assert hosts == {
            "host": {f"{served_at}/{registry}": {"capabilities": ["pull", "resolve"], "override_path": True}}
        }


def test_every_download_has_a_checksum(case: Case, steps: dict[str, Files]) -> None:
    env = _env(steps[f"{case.cfg.bootstrap_controller}/node"])
    downloads = {key.removesuffix("_URL") for key in env if key.endswith("_URL")}
    assert downloads == {key.removesuffix("_SUMS") for key in env if key.endswith("_SUMS")}
    assert downloads == {"CONTAINERD", "CNI", "ETCD", "KUBELET", "KUBECTL", "RUNC"}


def test_every_image_comes_from_a_registry_that_the_mirror_stands_for() -> None:
    cfg = load("lab").cfg
    release = cfg.release
    images = [release.etcd_image, release.pause_image, *release_images(release).values()]
    assert {image.split("/")[0] for image in images} <= set(MIRRORED_REGISTRIES)


def test_the_preflight_knows_every_port_that_the_host_will_serve(case: Case, steps: dict[str, Files]) -> None:
    for name, host in case.cfg.hosts.items():
        ports = {int(port) for port in _env(steps[f"{name}/preflight"])["PORTS"].split()}
        of_controllers = {case.cfg.api.port, 2379, 2380, 2381, 10257, 10259}
        assert ports == {10250, 10256} | (of_controllers if host.role == "controller" else set())


def test_the_hand_over_looks_at_the_network_of_every_node(case: Case, steps: dict[str, Files]) -> None:
    env = _env(steps[f"{case.cfg.bootstrap_controller}/handover"])
    assert env["NODES"].split() == sorted(case.cfg.hosts)
