"""Pulumi is killed in an upgrade and the host at work loses its power; the next run ends it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from lab.engine import docker
from tests.e2e.disasters import power_cut
from tests.e2e.killing import end, is_updating, kill
from tests.e2e.probing import credentials, wait_until_ready
from tests.e2e.stacks import Stack
from tests.e2e.upgrading import config, has_all_of, other, upgraded

pytestmark = [pytest.mark.e2e, pytest.mark.builds]

SUBNET = 28
READY_SECONDS = 90


@dataclass(frozen=True)
class Point:
    """A run changes this resource and, if told, a shell's condition holds on the host at work."""

    resource: str
    host: str
    holds: str = "true"


SWAPPING = "test -e /var/lib/kubepivot/unproven"
POINTS = {
    "download": Point("worker-2-download", "worker-2"),
    "controller-stages": Point("controller-1-node", "controller-1"),
    "worker-stages": Point("worker-2-node", "worker-2"),
    # Those that come after it wait for its roll.
    "kube-apiserver-rolls": Point("kube-controller-manager", "controller-1"),
    "leaders-roll": Point("kube-scheduler", "controller-1"),
    "kube-proxy-rolls": Point("kube-proxy", "controller-1"),
    "handover": Point("handover", "controller-1"),
    "controller-swaps": Point("controller-1-upgrade", "controller-1", SWAPPING),
    "worker-drains": Point("worker-1-upgrade", "worker-1"),
    "worker-swaps": Point("worker-2-upgrade", "worker-2", SWAPPING),
}


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A cluster that is of either version between two tests."""
    yield upgraded(new_stack, SUBNET, "cut")


@pytest.mark.parametrize("at", POINTS)
def test_the_next_run_ends_it(stack: Stack, at: str) -> None:
    point = POINTS[at]
    container = f"{stack.name}-{point.host}"
    known = credentials(stack)
    assert known is not None
    _, after = other(stack)
    stack.configure(config(SUBNET, after))
    kill(stack, "up", at, lambda: is_updating(stack, point.resource) and _holds(container, point.holds))
    power_cut(container)
    docker("start", container)
    wait_until_ready(f"https://172.30.{SUBNET}.11:6443", known["ca"], READY_SECONDS)
    end(stack, "up")
    has_all_of(stack, after)


def _holds(container: str, condition: str) -> bool:
    command = ["docker", "exec", container, "sh", "-c", condition]
    return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
