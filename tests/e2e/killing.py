"""Pulumi and its plugins killed at one moment of `make up` and one of `make down`, each then run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.engine import docker
from tests.e2e.stacks import Stack, remove_hosts

DEADLINE_SECONDS = 300
MANIFESTS = "/etc/kubernetes/manifests"


@dataclass(frozen=True)
class Point:
    """A run has begun with this resource and, if told, a shell's condition holds on the controller."""

    resource: str
    holds: str | None = None


# In the order of the run, and by what there is by then: its time depends on what else the machine does.
UP = {
    "keys": Point("ca-key"),
    "containers": Point("controller-1-container"),
    "preflights": Point("controller-1-preflight"),
    "downloads": Point("controller-1-download", "test -s /var/cache/kubepivot/kubelet"),
    "nodes": Point("controller-1-node", "test -e /var/lib/kubepivot/containerd"),
    "bootstrap": Point("bootstrap", f"test -e {MANIFESTS}/bootstrap-apiserver.yaml"),
    "objects": Point("kube-apiserver-secret"),
    "objects-almost-all": Point("kube-apiserver"),
    "hand-over": Point("handover", f"! test -e {MANIFESTS}/bootstrap-controller-manager.yaml"),
    "pivoted": Point("handover", "test -e /var/lib/kubepivot/pivoted"),
}
# Each of these depends on the next one.
DOWN = {
    "role": Point("controller-1-role"),
    "hand-over": Point("handover"),
    "objects": Point("kube-apiserver"),
    "objects-almost-all": Point("kube-apiserver-secret"),
    "bootstrap": Point("bootstrap"),
    "nodes": Point("controller-1-node"),
    "downloads": Point("controller-1-download"),
    "preflights": Point("controller-1-preflight"),
    "containers": Point("controller-1-container"),
    "keys": Point("controller-1-ssh-host"),
}
POINTS = [pytest.param(up, down, id=f"up-at-{up}-down-at-{down}") for up, down in zip(UP, DOWN, strict=True)]


def up_that_is_killed_ends_well(stack: Stack, at: str) -> None:
    """From nothing."""
    remove_hosts(stack.name)  # of a test that has failed
    state_file(stack).unlink(missing_ok=True)
    kill(stack, "up", at, lambda: _reached(stack, "up", UP[at]))
    end(stack, "up")
    for node in stack.get("nodes")["items"]:
        ready = {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"]
        assert ready == "True", node["metadata"]["name"]
    assert docker("exec", f"{stack.name}-controller-1", "ls", MANIFESTS) == "etcd.yaml"
    assert stack.get("deployment/coredns", "--namespace=kube-system")["status"]["availableReplicas"] == 2
    names = [pod["metadata"]["name"] for pod in stack.get("pods", "--namespace=kube-system")["items"]]
    assert not [name for name in names if name.startswith("bootstrap-")], names
    stack.second_up_changes_nothing()


def down_that_is_killed_ends_well(stack: Stack, at: str) -> None:
    """Nothing is left."""
    kill(stack, "down", at, lambda: _reached(stack, "down", DOWN[at]))
    end(stack, "down")
    label = f"label=kubepivot.cluster={stack.name}"
    assert docker("container", "ls", "--all", "--quiet", "--filter", label) == ""
    assert not state_file(stack).exists()


def state_file(stack: Stack) -> Path:
    """Where the backend has the stack's state."""
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


def end(stack: Stack, verb: str) -> None:
    """Runs `make VERB`, which ends well."""
    begin = time.monotonic()
    done = stack.checkout.lab(verb, stack.name)
    assert done.returncode == 0, done.stderr
    print(f"{verb} after it took {time.monotonic() - begin:.1f} s")


def kill(stack: Stack, verb: str, at: str, reached: Callable[[], bool]) -> set[str]:
    """Kills `make VERB` and all that it started, once it has got so far. The names of the resources that
    the state has then.
    """
    process = stack.checkout.start_lab(verb, stack.name)
    begin = time.monotonic()
    while not reached():
        assert process.poll() is None, (
            f"{verb} has ended, and was not {at}:\n{stack.checkout.said.read_text()}"
        )
        assert time.monotonic() < begin + DEADLINE_SECONDS, f"{verb} has not got so far: {at}"
        time.sleep(0.02)
    killed = set()
    for pid in descendants(process.pid):
        try:
            killed.add(Path(f"/proc/{pid}/comm").read_text().strip())
            os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert "pulumi" in killed, f"Pulumi had ended: {killed}"
    # Pulumi writes these in place; without them no kill can leave a state that it can't read.
    assert not list(state_file(stack).parent.glob("*.attrs"))
    state = _state(stack)
    pending = [operation["resource"]["urn"].rsplit("::", 1)[-1] for operation in state["pending_operations"]]
    print(
        f"{verb} was killed at {at}, {time.monotonic() - begin:.1f} s after its start, "
        f"with {len(state['resources'])} resources and in the midst of {' '.join(pending) or 'none'}"
    )
    return {resource["urn"].rsplit("::", 1)[-1] for resource in state["resources"]}


def _reached(stack: Stack, verb: str, point: Point) -> bool:
    return has_begun(stack, verb, point.resource) and _holds(stack, point)


def _state(stack: Stack) -> dict[str, Any]:
    """Resources and pending operations as the backend's file has them."""
    try:
        # Nothing is the latest of a stack that was made a moment ago.
        latest = json.loads(state_file(stack).read_text())["checkpoint"].get("latest") or {}
    except FileNotFoundError:
        latest = {}
    return {part: latest.get(part) or [] for part in ("resources", "pending_operations")}


def has_begun(stack: Stack, verb: str, resource: str) -> bool:
    """Whether `up` has made the resource or is at it, or `down` has deleted it or is at it."""
    state = _state(stack)
    end = f"::{stack.name}-{resource}"
    operations = {
        operation["type"]
        for operation in state["pending_operations"]
        if operation["resource"]["urn"].endswith(end)
    }
    there = any(each["urn"].endswith(end) for each in state["resources"])
    return there or "creating" in operations if verb == "up" else not there or "deleting" in operations


def is_updating(stack: Stack, resource: str) -> bool:
    """Whether a run is changing the resource."""
    return any(
        operation["type"] == "updating"
        and operation["resource"]["urn"].endswith(f"::{stack.name}-{resource}")
        for operation in _state(stack)["pending_operations"]
    )


def _holds(stack: Stack, point: Point) -> bool:
    if point.holds is None:
        return True
    command = ["docker", "exec", f"{stack.name}-controller-1", "sh", "-c", point.holds]
    return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
