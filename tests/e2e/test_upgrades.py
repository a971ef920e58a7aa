"""Another patch of Kubernetes, there and back, under load: nobody notices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.stacks import Stack, eventually
from tests.e2e.unnoticed import unnoticed
from tests.e2e.upgrading import HOSTS, NEWER, OLDER, config, has_all_of, kubelets, upgraded

pytestmark = [pytest.mark.e2e, pytest.mark.builds]

SUBNET = 24
CONTROLLER = f"172.30.{SUBNET}.11"


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A cluster of the older patch, on a lab that serves both."""
    yield upgraded(new_stack, SUBNET)


@pytest.mark.parametrize(("before", "after"), [(OLDER, NEWER), (NEWER, OLDER)], ids=["there", "back"])
def test_nobody_notices_another_patch(stack: Stack, before: str, after: str, tmp_path: Path) -> None:
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{before}")
    stack.configure(config(SUBNET, after))
    print(stack.pulumi("preview", "--diff"))
    with unnoticed(stack, CONTROLLER, f"to-{after.replace('.', '-')}", tmp_path):
        begin = time.monotonic()
        print(stack.up())
        print(f"from {before} to {after}: {time.monotonic() - begin:.0f} s")
    has_all_of(stack, after)


def test_a_budget_that_blocks_stops_it_and_the_node_takes_pods_again(stack: Stack) -> None:
    stack.kubectl("patch", "poddisruptionbudget/served", "--patch", '{"spec": {"minAvailable": 2}}')
    stack.configure(config(SUBNET, NEWER, upgrade={"drain": {"seconds": 15}}))
    said = stack.up(fails=True)
    print(said)
    assert "default/served" in said
    assert kubelets(stack) == {"controller-1": f"v{NEWER}", "worker-1": f"v{OLDER}", "worker-2": f"v{OLDER}"}
    stack.kubectl("patch", "poddisruptionbudget/served", "--patch", '{"spec": {"minAvailable": 1}}')
    stack.kubectl("cordon", "worker-2")
    stack.up()
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{NEWER}") | {"worker-2": f"v{NEWER} cordoned"}
    stack.kubectl("uncordon", "worker-2")
    eventually(
        "both pods", 60, lambda: stack.get("deployment/served")["status"].get("availableReplicas") == 2
    )
    stack.second_up_changes_nothing()
