"""Pulumi and its plugins killed in the middle of everything; the next run ends well all the same."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.engine import docker
from tests.e2e.stacks import Stack, lab_config

pytestmark = pytest.mark.e2e

# How much is in the state when the run is killed, and how many seconds later. One `up` of this stack goes
# from keys and containers (0-51) over preflights and nodes (52-55), the temporary control plane (56) and
# the cluster's objects (57-97) to the hand-over (98).
UP_POINTS = [(1, 0), (30, 0), (50, 0), (52, 0.5), (54, 1.5), (55, 1), (56, 3), (70, 0), (90, 2), (97, 3)]
# `down` takes the hosts' resets and the cluster's objects (101-57), then the certificates, and the containers
# and the keys at last (10-0).
DOWN_POINTS = [101, 98, 90, 80, 70, 60, 45, 30, 20, 10]


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    yield new_stack("killed", lab_config(2))


def state_size(stack: Stack) -> int:
    """Number of resources in the state, read from the backend's file."""
    checkpoint = json.loads(state_file(stack).read_text())["checkpoint"]["latest"] or {}
    return len(checkpoint.get("resources") or [])


def state_file(stack: Stack) -> Path:
    data = Path(stack.environment["XDG_DATA_HOME"])
    return data / f"kubepivot/state/.pulumi/stacks/kubepivot/{stack.name}.json"


def descendants(pid: int) -> list[int]:
    """A process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for known in found:
        found.extend(children.get(known, []))
    return found


def kill(stack: Stack, verb: str, at: range, seconds: float = 0) -> bool:
    """Kills `make VERB` and all that it started, so long after its state had a size. False if it ended."""
    process = stack.checkout.start_lab(verb, stack.name)
    deadline = time.monotonic() + 300
    while state_size(stack) not in at:
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, f"{verb} has not got so far within 300 s"
        time.sleep(0.02)
    time.sleep(seconds)  # how far into the next resource it is killed
    for pid in descendants(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(timeout=30)
    return True


def test_up_that_is_killed_ten_times_ends_well(stack: Stack) -> None:
    killed = [kill(stack, "up", range(at, 1000), seconds) for at, seconds in UP_POINTS]
    assert killed == [True] * len(UP_POINTS)
    # Pulumi writes these in place; without them no kill can leave a state that it can't read.
    assert not list(state_file(stack).parent.glob("*.attrs"))
    done = stack.checkout.lab("up", stack.name)
    assert done.returncode == 0, done.stderr
    for node in stack.get("nodes")["items"]:
        ready = {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"]
        assert ready == "True", node["metadata"]["name"]
    assert docker("exec", "killed-controller-1", "ls", "/etc/kubernetes/manifests") == "etcd.yaml"
    assert stack.get("deployment/coredns", "--namespace=kube-system")["status"]["availableReplicas"] == 2
    names = [pod["metadata"]["name"] for pod in stack.get("pods", "--namespace=kube-system")["items"]]
    assert not [name for name in names if name.startswith("bootstrap-")], names
    stack.second_up_changes_nothing()


def test_a_roll_right_after_the_hand_over_ends(stack: Stack) -> None:
    begin = time.monotonic()
    stack.up("--replace", stack.state()["killed-apiserver-cert"]["urn"], timeout=200)
    print(f"the roll took {time.monotonic() - begin:.0f} s")
    stack.second_up_changes_nothing()


def test_down_that_is_killed_ten_times_ends_well(stack: Stack) -> None:
    # Each run has deleted something before it is killed, wherever the one before it got to.
    killed = [kill(stack, "down", range(min(at, state_size(stack)))) for at in DOWN_POINTS]
    assert killed == [True] * len(DOWN_POINTS)
    done = stack.checkout.lab("down", stack.name)
    assert done.returncode == 0, done.stderr
    label = "label=kubepivot.cluster=killed"
    assert docker("container", "ls", "--all", "--quiet", "--filter", label) == ""
    assert not state_file(stack).exists()
