"""Labels and taints follow the config on a living worker; one that has died is taken out, and comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.engine import docker
from tests.e2e.stacks import Stack, eventually, lab_config

pytestmark = pytest.mark.e2e

SUBNET = 26
HOSTS = ("controller-1", "worker-1", "worker-2")
LABELLED, DEAD = "workers-worker-1", "workers-worker-2"
POOL, ZONE, GPU = "example.com/pool", "topology.kubernetes.io/zone", "example.com/gpu"
ADMINS = "example.com/admin"
OF_ADMIN = {"key": ADMINS, "value": "yes", "effect": "PreferNoSchedule"}
CORDON = "node.kubernetes.io/unschedulable"


def config(workers: int = 2, **worker: Any) -> dict[str, Any]:
    """The lab with so many workers, the first of which has that."""
    found = lab_config(SUBNET, workers=workers)
    found["hosts"]["worker-1"] |= worker
    return found


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    stack = new_stack("workers", config(labels={ZONE: "rack-0"}))
    stack.up()
    assert labels(stack)[ZONE] == "rack-0"
    yield stack


def node(stack: Stack) -> Any:
    return stack.get("node/worker-1")


def labels(stack: Stack) -> dict[str, str]:
    found: dict[str, str] = node(stack)["metadata"]["labels"]
    return found


def taints(stack: Stack) -> list[dict[str, str]]:
    found: list[dict[str, str]] = node(stack)["spec"].get("taints", [])
    return found


def mark_as_admin(stack: Stack) -> None:
    stack.kubectl("label", "node", "worker-1", f"{ADMINS}=yes")
    stack.kubectl("taint", "node", "worker-1", f"{ADMINS}=yes:PreferNoSchedule")


def ready(stack: Stack) -> dict[str, str]:
    """Whether each node is Ready."""
    return {
        node["metadata"]["name"]: condition["status"]
        for node in stack.get("nodes")["items"]
        for condition in node["status"].get("conditions", [])
        if condition["type"] == "Ready"
    }


def kubelets() -> dict[str, str]:
    """The kubelet's process on each host."""
    show = ("systemctl", "show", "--property=MainPID", "kubelet")
    return {name: docker("exec", f"workers-{name}", *show) for name in HOSTS}


def shown(stack: Stack) -> set[str]:
    """Names of what a preview would change, without the cluster's."""
    steps = json.loads(stack.pulumi("preview", "--json"))["steps"]
    changes = [each["urn"] for each in steps if each["op"] != "same"]
    return {urn.rpartition("::")[2].removeprefix("workers-") for urn in changes}


def up(stack: Stack, what: str) -> None:
    begin = time.monotonic()
    stack.up()
    print(f"{what}: pulumi up took {time.monotonic() - begin:.0f} s")


OF_WORKER = {f"worker-1-{step}" for step in ("labels", "node", "node-intent", "upgrade")}


def test_labels_and_taints_are_added_to_a_living_node(stack: Stack) -> None:
    before = kubelets()
    mark_as_admin(stack)
    stack.kubectl("cordon", "worker-1")
    stack.configure(config(labels={POOL: "batch", ZONE: "rack-1"}, taints=[f"{GPU}=true:NoSchedule"]))
    assert shown(stack) == OF_WORKER
    assert POOL in stack.pulumi("preview", "--diff")
    up(stack, "added")
    found = labels(stack)
    assert (found[POOL], found[ZONE], found[ADMINS]) == ("batch", "rack-1", "yes")
    by_key = {each["key"]: each for each in taints(stack)}
    assert by_key.keys() == {GPU, ADMINS, CORDON}
    assert by_key[GPU] == {"key": GPU, "value": "true", "effect": "NoSchedule"}
    assert by_key[ADMINS] == OF_ADMIN
    stack.kubectl("uncordon", "worker-1")
    assert kubelets() == before
    stack.second_up_changes_nothing()


def test_a_node_that_is_deleted_registers_with_those_of_the_config(stack: Stack) -> None:
    uid = node(stack)["metadata"]["uid"]
    stack.kubectl("delete", "node", "worker-1")
    eventually(
        "worker-1 to be back",
        90,
        lambda: (
            ready(stack).get("worker-1") == "True"
            and node(stack)["metadata"]["uid"] != uid
            and "kubernetes.io/hostname" in labels(stack)
        ),
    )
    found = labels(stack)
    assert (found[POOL], found[ZONE], ADMINS in found) == ("batch", "rack-1", False)
    eventually("no other taint", 30, lambda: [each["key"] for each in taints(stack)] == [GPU])
    stack.second_up_changes_nothing()


def test_they_are_changed_and_removed_and_the_admins_stay(stack: Stack) -> None:
    before = kubelets()
    mark_as_admin(stack)
    stack.configure(config(labels={POOL: "web"}, taints=[f"{GPU}=false:NoSchedule"]))
    assert shown(stack) == OF_WORKER
    up(stack, "changed")
    found = labels(stack)
    assert (found[POOL], found[ADMINS], ZONE in found) == ("web", "yes", False)
    assert {each["value"] for each in taints(stack)} == {"false", "yes"}
    stack.configure(config())
    assert shown(stack) == OF_WORKER
    up(stack, "removed")
    assert POOL not in labels(stack) and labels(stack)[ADMINS] == "yes"
    assert taints(stack) == [OF_ADMIN]
    assert kubelets() == before
    stack.second_up_changes_nothing()
    # One that starts puts its zone right, and has to know that there is none any more.
    docker("exec", LABELLED, "systemctl", "restart", "kubelet")
    registered = (
        "journalctl --unit=kubelet --since=-1min --output=cat | grep 'Node was previously registered'"
    )
    eventually("the kubelet", 60, lambda: docker("exec", LABELLED, "sh", "-c", f"{registered} || true"))
    assert not {POOL, ZONE} & labels(stack).keys()


def test_a_worker_that_is_dead_is_taken_out(stack: Stack) -> None:
    docker("kill", DEAD)
    eventually("worker-2 not to be Ready", 90, lambda: ready(stack)["worker-2"] != "True")
    stack.configure(config(workers=1))
    up(stack, "a dead worker taken out")
    assert ready(stack) == {"controller-1": "True", "worker-1": "True"}
    label = "label=kubepivot.cluster=workers"
    left = docker("container", "ls", "--all", "--format={{.Names}}", "--filter", label).split()
    assert sorted(left) == ["workers-controller-1", LABELLED]
    stack.second_up_changes_nothing()


def test_it_comes_back_as_a_new_one(stack: Stack) -> None:
    stack.configure(config())
    know_the_nodes = {"handover", "kubelet-policy", "csr-renewal-role-binding"}
    others = {name for name in shown(stack) if "worker-2" not in name}
    assert others == know_the_nodes
    up(stack, "put back")
    assert ready(stack) == dict.fromkeys(HOSTS, "True")
    stack.second_up_changes_nothing()
