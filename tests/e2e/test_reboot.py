"""Hosts that go away and come back: nothing but what is on their disks starts the control plane again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from lab.engine import docker
from tests.e2e.probing import credentials, wait_until_ready
from tests.e2e.stacks import Stack, eventually, lab_config
from tests.e2e.witnesses import USERS, Writer, lost, users

pytestmark = pytest.mark.e2e

ENDPOINT = "https://172.30.6.11:6443"
CONTROLLER, WORKER = "reboot-controller-1", "reboot-worker-1"
READY_SECONDS = 60
SETTLED_SECONDS = 240


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    stack = new_stack("reboot", lab_config(6))
    begin = time.monotonic()
    stack.up()
    print(f"pulumi up took {time.monotonic() - begin:.0f} s")
    stack.kubectl("apply", "--filename=-", stdin=USERS)
    stack.kubectl("rollout", "status", "deployment/users", "--timeout=90s")
    yield stack


def stop(*hosts: str) -> None:
    docker("stop", "--time", "20", *hosts)


def power_cut(*hosts: str) -> None:
    docker("kill", *hosts)


def manifests() -> set[str]:
    return set(docker("exec", CONTROLLER, "ls", "-A", "/etc/kubernetes/manifests").split())


def start(stack: Stack, *hosts: str) -> float:
    """Starts hosts; the seconds from then until the API is ready."""
    known = credentials(stack)
    assert known is not None
    begin = time.monotonic()
    docker("start", *hosts)
    wait_until_ready(ENDPOINT, known["ca"], READY_SECONDS)
    return time.monotonic() - begin


def fresh(stack: Stack, since: datetime, *nodes: str) -> bool:
    """Whether every pod of kube-system is Ready, with containers on those nodes that began after `since`."""
    for pod in stack.get("pods", "--namespace=kube-system")["items"]:
        conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
        if conditions.get("Ready") != "True":
            return False
        if pod["spec"]["nodeName"] in nodes:
            for container in pod["status"]["containerStatuses"]:
                began = container["state"].get("running", {}).get("startedAt")
                if not began or datetime.fromisoformat(began) < since:
                    return False
    return True


def armed_pods(stack: Stack) -> list[str]:
    names = [pod["metadata"]["name"] for pod in stack.get("pods", "--namespace=kube-system")["items"]]
    return [name for name in names if "checkpoint-" in name]


def as_before(stack: Stack, since: datetime, *nodes: str) -> None:
    """Waits until the real control plane stands alone, and everything else is as it was."""
    eventually("the armed pods to go", SETTLED_SECONDS, lambda: manifests() == {"etcd.yaml"})
    eventually("every pod to run again", SETTLED_SECONDS, lambda: fresh(stack, since, *nodes))
    stack.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
    stack.kubectl("rollout", "status", "deployment/users", "--timeout=60s")
    # They drain for a while after their manifests are gone.
    eventually("no armed pod to be left", SETTLED_SECONDS, lambda: not armed_pods(stack))
    stack.second_up_changes_nothing()


def now() -> datetime:
    """In whole seconds, as the API has times."""
    return datetime.now(UTC).replace(microsecond=0)


def test_every_pod_of_the_control_plane_is_saved(stack: Stack) -> None:
    saved = set(docker("exec", CONTROLLER, "ls", "/etc/kubernetes/checkpoints").split())
    assert {"kube-system-DaemonSet-kube-apiserver", "kube-system-DaemonSet-pod-checkpointer"} <= saved
    both = {f"kube-system-Deployment-kube-{name}" for name in ("controller-manager", "scheduler")}
    eventually("checkpoints of the leaders", 30, lambda: both <= set(_saved()))
    readable = docker(
        "exec", CONTROLLER, "find", "/etc/kubernetes/checkpoints", "-type", "f", "-perm", "/077"
    )
    assert readable == ""
    assert manifests() == {"etcd.yaml"}


def _saved() -> list[str]:
    return docker("exec", CONTROLLER, "ls", "/etc/kubernetes/checkpoints").split()


@pytest.mark.parametrize("way", [stop, power_cut], ids=["reboot", "power cut"])
def test_the_controller_comes_back(stack: Stack, way: Callable[..., None]) -> None:
    before = users(stack)
    with Writer(stack, way.__name__.replace("_", "-")) as writer:
        eventually("something to lose", 20, lambda: len(writer.acknowledged) >= 5)
        way(CONTROLLER)
        since = now()
        seconds = start(stack, CONTROLLER)
        print(f"ready {seconds:.1f} s after the host's start ({way.__name__})")
        as_before(stack, since, "controller-1")
    assert len(writer.acknowledged) > 20, "it wrote on after the reboot"
    assert lost(stack, writer.acknowledged) == set()
    assert users(stack) == before, "pods on other hosts did not notice"


def test_all_hosts_come_back_twice_in_a_row(stack: Stack) -> None:
    """The second time before the first is over: the armed pods are still there."""
    before = users(stack)
    with Writer(stack, "all") as writer:
        eventually("something to lose", 20, lambda: len(writer.acknowledged) >= 5)
        for _ in range(2):
            stop(CONTROLLER, WORKER)
            since = now()
            seconds = start(stack, CONTROLLER, WORKER)
            print(f"ready {seconds:.1f} s after the hosts' start")
            assert "kube-apiserver-checkpoint.json" in manifests()
        as_before(stack, since, "controller-1", "worker-1")
    assert lost(stack, writer.acknowledged) == set()
    assert users(stack).keys() == before.keys()


def test_an_apiserver_that_nobody_would_make_again_is_armed(stack: Stack) -> None:
    """Its pod is deleted while no controller manager runs: neither would bring the other back."""
    system = "--namespace=kube-system"
    known = credentials(stack)
    assert known is not None
    stack.kubectl("scale", system, "deployment/kube-controller-manager", "--replicas=0")
    of_manager = "--selector=app.kubernetes.io/name=kube-controller-manager"
    eventually("no controller manager", 60, lambda: not stack.get("pods", system, of_manager)["items"])
    of_apiserver = "--selector=app.kubernetes.io/name=kube-apiserver"
    (old,) = stack.get("pods", system, of_apiserver)["items"]
    stack.kubectl("delete", system, "pod", old["metadata"]["name"], "--force", "--grace-period=0")
    eventually("the armed pods", 90, lambda: "kube-apiserver-checkpoint.json" in manifests())
    wait_until_ready(ENDPOINT, known["ca"], READY_SECONDS)
    stack.kubectl("scale", system, "deployment/kube-controller-manager", "--replicas=1")
    as_before(stack, datetime.min.replace(tzinfo=UTC))
    (new,) = stack.get("pods", system, of_apiserver)["items"]
    assert new["metadata"]["uid"] != old["metadata"]["uid"]


def test_destroy_leaves_nothing(stack: Stack) -> None:
    stack.destroy()
    assert docker("container", "ls", "--all", "--quiet", "--filter", "label=kubepivot.cluster=reboot") == ""
