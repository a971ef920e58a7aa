"""An upgrade that is killed is taken back by the former values."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.killing import end, is_updating, kill
from tests.e2e.stacks import Stack
from tests.e2e.upgrading import config, has_all_of, other, upgraded

pytestmark = [pytest.mark.e2e, pytest.mark.builds]

SUBNET = 27


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A cluster that is of either version between two tests."""
    yield upgraded(new_stack, SUBNET, "killed")


@pytest.mark.parametrize(
    "at", ["worker-1-node", "kube-apiserver", "kube-controller-manager", "kube-proxy", "worker-1-upgrade"]
)
def test_it_is_taken_back_by_the_former_values(stack: Stack, at: str) -> None:
    before, after = other(stack)
    stack.configure(config(SUBNET, after))
    kill(stack, "up", at, lambda: is_updating(stack, at))
    stack.configure(config(SUBNET, before))
    end(stack, "up")
    has_all_of(stack, before)
