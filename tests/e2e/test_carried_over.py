"""A cluster that an earlier commit made goes on under this one, and nobody notices."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab import lifecycle, pins
from lab.artifacts import artifacts_of, ensure_tree
from lab.engine import docker
from lab.images import Image, ensure_images
from lab.progress import Progress
from tests.e2e.probing import Prober, credentials
from tests.e2e.root_on_a_worker import check, taken
from tests.e2e.stacks import Checkout, Stack, lab_config

pytestmark = [pytest.mark.e2e, pytest.mark.builds]

SUBNET, RECENT_SUBNET = 16, 29

# Published, with other templates of the pods than today's, so that they roll.
RECENT = "6ab51d2043a59add54f2a071fe2ddf242237dd93"

# The last one whose workers joined with a token, and whose control plane went where a kubelet could send it.
BEFORE = "f6a778552a2ce28a2428e5e274f0ea8245902da4"
RELEASE = "1.36.3"
ETCD_BEFORE = replace(pins.find_release(RELEASE), etcd="3.6.8")
PROGRAM = ("components", "__main__.py", "Pulumi.yaml")


def prepare() -> None:
    """The lab serves what the cluster ran then, and what it runs now."""
    progress = Progress()
    lifecycle.prepare_release(RELEASE, progress)
    ensure_tree(progress, artifacts_of(ETCD_BEFORE))
    files = tuple((f"usr/local/bin/{name}", name) for name in ("etcd", "etcdctl", "etcdutl"))
    ensure_images(progress, [Image(name="registry.k8s.io/etcd:3.6.8-0", files=files, release=ETCD_BEFORE)])


def make(
    checkout: Checkout, new_stack: Callable[..., Stack], name: str, commit: str, config: dict[str, Any]
) -> Stack:
    """A cluster that the commit's program has made, in a checkout of now."""
    archive = subprocess.run(
        ["git", "archive", commit, *PROGRAM], cwd=pins.CHECKOUT, capture_output=True, check=False
    )
    if archive.returncode != 0:
        pytest.skip(f"this clone has no history: {archive.stderr.decode()}")
    now = checkout.directory / "now"
    now.mkdir()
    for part in PROGRAM:
        shutil.move(checkout.directory / part, now / part)
    subprocess.run(["tar", "--extract"], cwd=checkout.directory, input=archive.stdout, check=True)
    selfhosted = checkout.directory / "components/selfhosted.py"
    # The SDK of now has no such argument: its provider always does so.
    selfhosted.write_text(selfhosted.read_text().replace("            upsert_existing_objects=True,\n", ""))
    stack = new_stack(name, config)
    stack.up()
    shutil.rmtree(checkout.directory / "components")
    shutil.copytree(now, checkout.directory, dirs_exist_ok=True)
    shutil.rmtree(now)
    return stack


@pytest.fixture(scope="module")
def older(checkout: Checkout, new_stack: Callable[..., Stack]) -> Stack:
    """A cluster of long ago."""
    prepare()
    config = lab_config(SUBNET) | {"kubernetesVersion": RELEASE}
    return make(checkout, new_stack, "older", BEFORE, config)


@pytest.fixture(scope="module")
def recent(checkout: Checkout, new_stack: Callable[..., Stack]) -> Stack:
    """A cluster of the last state that was published."""
    return make(checkout, new_stack, "recent", RECENT, lab_config(RECENT_SUBNET))


def carry_over(stack: Stack, subnet: int) -> None:
    """Makes it one of this commit under load. No request may be lost."""
    known = credentials(stack)
    assert known is not None
    with (
        Prober.start(known, f"172.30.{subnet}.11", 6443) as at_endpoint,
        Prober.start(known, "10.3.0.1", 443, inside=f"{stack.name}-controller-1") as at_service,
    ):
        stack.up()
        counts = {"endpoint": at_endpoint.stop(), "service": at_service.stop()}
    print(counts)
    for client in counts.values():
        assert client["requests"] > 1000
        assert client["failed_after_retry"] == 0, client


def test_a_recent_one_is_carried_over_without_a_lost_request(recent: Stack) -> None:
    carry_over(recent, RECENT_SUBNET)
    recent.second_up_changes_nothing()


def test_it_is_carried_over_without_a_lost_request(older: Stack) -> None:
    labels = older.get("node", "controller-1")["metadata"]["labels"]
    assert labels["node.kubernetes.io/controller"] == "true", "it is one of before"
    carry_over(older, SUBNET)


def test_nothing_is_left_of_what_it_no_longer_has(older: Stack) -> None:
    for host in ("older-controller-1", "older-worker-1"):
        assert docker("exec", host, "sh", "-c", "ls /etc/kubernetes | grep -c bootstrap || true") == "0"
    tokens = "--field-selector=type=bootstrap.kubernetes.io/token"
    assert older.get("secrets", "--all-namespaces", tokens)["items"] == []
    bindings = {each["metadata"]["name"] for each in older.get("clusterrolebindings")["items"]}
    assert not {"kubepivot:csr-approver", "kubepivot:csr-bootstrap"} & bindings


def test_root_on_a_worker_has_that_worker_and_nothing_more(older: Stack) -> None:
    with taken(older) as worker:
        check(worker)


def test_a_second_up_changes_nothing(older: Stack) -> None:
    older.second_up_changes_nothing()
