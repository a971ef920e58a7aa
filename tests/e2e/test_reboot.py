"""Hosts that go away and come back: nothing but what is on their disks starts the control plane again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from lab.engine import docker
from tests.e2e.disasters import (
    APISERVER,
    CHECKPOINTER,
    CHECKPOINTS,
    LEADERS,
    READY_SECONDS,
    SYSTEM,
    Cluster,
    now,
    power_cut,
    stop,
)
from tests.e2e.probing import wait_until_ready
from tests.e2e.stacks import Stack, eventually
from tests.e2e.witnesses import lost, users

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def cluster(new_stack: Callable[..., Stack]) -> Iterator[Cluster]:
    cluster = Cluster(new_stack, "reboot", 6)
    cluster.up()
    eventually("checkpoints of the leaders", 30, lambda: cluster.is_saved(*LEADERS))
    yield cluster


@pytest.mark.life
def test_every_pod_of_the_control_plane_is_saved(cluster: Cluster) -> None:
    assert cluster.is_saved(APISERVER, CHECKPOINTER, *LEADERS)
    assert cluster.on_controller(f"find {CHECKPOINTS} -type f -perm /077") == ""
    assert cluster.manifests() == {"etcd.yaml"}


@pytest.mark.parametrize(
    "way", [pytest.param(stop, id="reboot", marks=pytest.mark.life), pytest.param(power_cut, id="power cut")]
)
def test_the_controller_comes_back(cluster: Cluster, way: Callable[..., None]) -> None:
    before = users(cluster.stack)
    with cluster.writer(way.__name__.replace("_", "-")) as writer:
        way(cluster.controller)
        since = now()
        seconds = cluster.start()
        print(f"ready {seconds:.1f} s after the host's start ({way.__name__})")
        cluster.stands_alone(since, "controller-1")
        writer.writes_on()
    assert lost(cluster.stack, writer.acknowledged) == set()
    assert users(cluster.stack) == before, "pods on other hosts did not notice"
    cluster.stack.second_up_changes_nothing()


def test_all_hosts_come_back_twice_in_a_row(cluster: Cluster) -> None:
    """The second time before the first is over: the armed pods are still there."""
    before = users(cluster.stack)
    with cluster.writer("all") as writer:
        for _ in range(2):
            stop(cluster.controller, cluster.worker)
            since = now()
            seconds = cluster.start(cluster.controller, cluster.worker)
            print(f"ready {seconds:.1f} s after the hosts' start")
            assert "kube-apiserver-checkpoint.json" in cluster.manifests()
        cluster.stands_alone(since, "controller-1", "worker-1")
        writer.writes_on()
    assert lost(cluster.stack, writer.acknowledged) == set()
    assert users(cluster.stack).keys() == before.keys()
    cluster.stack.second_up_changes_nothing()


def scale(cluster: Cluster, leader: str, replicas: int) -> None:
    """Scales a leader's Deployment, to nothing at once: its pods are gone then."""
    stack = cluster.stack
    stack.kubectl("scale", SYSTEM, f"deployment/{leader}", f"--replicas={replicas}")
    if not replicas:
        pods = f"--selector=app.kubernetes.io/name={leader}"
        eventually(f"no {leader}", 60, lambda: not stack.get("pods", SYSTEM, pods)["items"])


def test_an_apiserver_that_nobody_would_make_again_is_armed(cluster: Cluster) -> None:
    """Its pod is deleted while neither scheduler nor controller manager runs: none would bring the others."""
    stack, old, before = cluster.stack, cluster.apiserver(), users(cluster.stack)
    leaders = ("kube-scheduler", "kube-controller-manager")  # the latter takes the former's pods away
    with cluster.writer("nobody") as writer:
        for leader in leaders:
            scale(cluster, leader, 0)
        stack.kubectl("delete", SYSTEM, "pod", old["metadata"]["name"], "--force", "--grace-period=0")
        eventually("the armed pods", 90, lambda: "kube-apiserver-checkpoint.json" in cluster.manifests())
        wait_until_ready(cluster.endpoint, cluster.known["ca"], READY_SECONDS)
        for leader in leaders:
            scale(cluster, leader, 1)
        cluster.stands_alone(datetime.min.replace(tzinfo=UTC))
        writer.writes_on()
    assert cluster.apiserver()["metadata"]["uid"] != old["metadata"]["uid"]
    assert lost(stack, writer.acknowledged) == set()
    assert users(stack) == before
    stack.second_up_changes_nothing()


def test_destroy_leaves_nothing(cluster: Cluster) -> None:
    cluster.stack.destroy()
    assert docker("container", "ls", "--all", "--quiet", "--filter", "label=kubepivot.cluster=reboot") == ""
