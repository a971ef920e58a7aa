"""The script that starts the temporary control plane, in a sandbox with a made-up cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cases import load
from tests.unit.sandbox import Sandbox
from tests.unit.temporary_control_plane import (
    APISERVER,
    MANAGER,
    PIVOTED,
    SCHEDULER,
    SECRETS,
    arrange,
    manifest_names,
    start,
)


@pytest.fixture
def controller(tmp_path: Path) -> Sandbox:
    return arrange(Sandbox(tmp_path))


def test_the_temporary_control_plane_is_put_in_place(controller: Sandbox) -> None:
    assert start(controller) == (0, "")
    assert manifest_names(controller) == [APISERVER, MANAGER, SCHEDULER, "etcd.yaml"]
    assert (controller.path(SECRETS) / "kube-apiserver" / "apiserver.key").is_file()


def test_the_image_that_the_real_one_waits_for_comes_meanwhile(controller: Sandbox) -> None:
    assert start(controller) == (0, "")
    (begun,) = controller.path("/var/begun").read_text().splitlines()
    image = load("lab").cfg.workload_images["pod-checkpointer"]
    mirrors = controller.path("/etc/containerd/certs.d")
    assert begun == f"--quiet --collect ctr --namespace k8s.io images pull --hosts-dir {mirrors} {image}"


def test_a_second_start_changes_nothing(controller: Sandbox) -> None:
    start(controller)
    before = {path: path.stat().st_ino for path in controller.root.rglob("*.yaml")}
    assert start(controller) == (0, "")
    assert {path: path.stat().st_ino for path in controller.root.rglob("*.yaml")} == before


@pytest.mark.parametrize("answers", [True, False])
def test_a_second_start_makes_the_kubelet_take_what_was_mended(controller: Sandbox, answers: bool) -> None:
    """Without an API it goes on with the static pods that it has, whatever their manifests say now."""
    assert start(controller) == (0, "")
    assert not controller.path("/var/units").exists()
    if not answers:
        controller.write("/var/no-api")
    assert start(controller)[0] == (0 if answers else 1)
    assert controller.path("/var/units").exists() != answers
    if not answers:
        assert controller.path("/var/units").read_text() == "restart kubelet\n"


def test_a_start_after_the_hand_over_starts_nothing(controller: Sandbox) -> None:
    controller.write(PIVOTED)
    assert start(controller) == (0, "")
    assert manifest_names(controller) == ["etcd.yaml"]
    assert not controller.path(SECRETS).exists()
    assert not controller.path("/var/begun").exists()


def test_a_start_waits_for_the_controllers_to_register(controller: Sandbox) -> None:
    """The control plane goes where their role is, and that needs a node."""
    controller.write("/var/unregistered")
    code, error = start(controller)
    assert code == 1
    assert "timed out waiting for the controllers to register" in error
    assert "not found: controller-1" in error


@pytest.mark.parametrize("pivoted", [False, True])
def test_a_start_waits_for_the_api_and_says_where_to_look(controller: Sandbox, pivoted: bool) -> None:
    controller.write("/var/no-api")
    if pivoted:
        controller.write(PIVOTED)
    code, error = start(controller)
    assert code == 1
    assert "timed out waiting for the API at https://172.30.0.11:6443/readyz" in error
    assert "journalctl -u kubelet" in error


def test_a_start_that_fails_shows_what_the_containers_said(controller: Sandbox) -> None:
    controller.write("/var/no-api")
    for pod, container, count in (
        ("etcd-controller-1_123", "etcd", 1),
        ("bootstrap-apiserver-controller-1_456", "kube-apiserver", 30),
        ("coredns-abc_789", "coredns", 1),
    ):
        lines = [f"2026-11-21T14:00:{n:02}.000000000Z stderr F {container} says {n}\n" for n in range(count)]
        controller.write(f"/var/log/pods/kube-system_{pod}/{container}/0.log", "".join(lines))
    controller.fake(
        "journalctl", "echo 'E1121 pod_workers.go] Failed to pull image registry/kube-apiserver:x'"
    )
    code, error = start(controller)
    assert code == 1
    assert "\netcd says 0\n" in error
    assert [line for line in error.splitlines() if line.startswith("kube-apiserver says")] == [
        f"kube-apiserver says {n}" for n in range(22, 30)
    ]
    assert "Failed to pull image registry/kube-apiserver:x" in error
    assert "coredns" not in error
