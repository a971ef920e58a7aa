"""Minors of Kubernetes, one after the other, with another etcd: nobody notices, and there are ways back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.config.releases import RELEASES, minor_of
from lab.engine import docker
from tests.e2e.killing import end, is_updating, kill
from tests.e2e.stacks import Stack, lab_config
from tests.e2e.unnoticed import unnoticed
from tests.e2e.upgrading import config, has_all_of, upgraded

pytestmark = [pytest.mark.e2e, pytest.mark.builds]

SUBNET = 31
CONTROLLER = f"172.30.{SUBNET}.11"
OLDEST, MIDDLE, NEWEST = list({minor_of(version): version for version in RELEASES}.values())[-3:]
"""The newest version of each of the last three minors."""
ETCDCTL = (
    "etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt "
    "--cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key"
)


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A cluster of the oldest minor, on a lab that serves all."""
    yield upgraded(new_stack, SUBNET, "minors", OLDEST, MIDDLE, NEWEST)


def etcd(stack: Stack) -> str:
    """The version of etcd that answers, which is the one that the API shows."""
    said = docker(
        "exec", f"{stack.name}-controller-1", "sh", "-c", f"{ETCDCTL} endpoint status --write-out=json"
    )
    version: str = json.loads(said)[0]["Status"]["version"]
    pod = stack.get("pod/etcd-controller-1", "--namespace=kube-system")
    assert pod["spec"]["containers"][0]["image"].endswith(f":v{version}")
    return version


def etcd_container(stack: Stack) -> str:
    pod = stack.get("pod/etcd-controller-1", "--namespace=kube-system")
    container: str = pod["status"]["containerStatuses"][0]["containerID"]
    return container


def upgrade(stack: Stack, before: str, after: str, tmp_path: Path) -> None:
    stack.configure(config(SUBNET, after))
    container = etcd_container(stack)
    with unnoticed(stack, CONTROLLER, f"to-{after.replace('.', '-')}", tmp_path):
        begin = time.monotonic()
        print(stack.up())
        print(f"from {before} to {after}: {time.monotonic() - begin:.0f} s")
    has_all_of(stack, after)
    assert etcd(stack) == RELEASES[after].etcd
    # One that is of the same version in both runs on.
    assert (etcd_container(stack) == container) == (RELEASES[before].etcd == RELEASES[after].etcd)


def test_nobody_notices_another_minor(stack: Stack, tmp_path: Path) -> None:
    upgrade(stack, OLDEST, MIDDLE, tmp_path)


def test_no_minor_is_skipped(stack: Stack) -> None:
    stack.configure(config(SUBNET, OLDEST))
    said = stack.pulumi("preview", fails=True)
    assert f"has begun to run {MIDDLE}, and 1.{minor_of(OLDEST)} may not read what that has stored" in said


def test_a_preview_refuses_a_host_that_is_new_beside_another_minor(stack: Stack) -> None:
    stack.configure(lab_config(SUBNET, workers=3) | {"kubernetesVersion": NEWEST})
    said = stack.pulumi("preview", fails=True)
    assert "host worker-3 is no node yet: add it in a run of its own" in " ".join(said.split())
    assert f"Kubernetes {MIDDLE} -> {NEWEST}" not in said, "there is a plan of what may not begin"


def test_until_kube_apiserver_has_begun_a_minor_is_taken_back_with_its_etcd(stack: Stack) -> None:
    stack.configure(config(SUBNET, NEWEST))
    kill(stack, "up", "bootstrap", lambda: is_updating(stack, "bootstrap"))
    assert etcd(stack) == RELEASES[NEWEST].etcd
    stack.configure(config(SUBNET, MIDDLE))
    end(stack, "up")
    assert etcd(stack) == RELEASES[MIDDLE].etcd
    has_all_of(stack, MIDDLE)


def test_nobody_notices_the_newest_minor_and_its_etcd(stack: Stack, tmp_path: Path) -> None:
    upgrade(stack, MIDDLE, NEWEST, tmp_path)
    stack.configure(config(SUBNET, MIDDLE))
    assert f"the cluster has begun to run {NEWEST}" in stack.pulumi("preview", fails=True)
