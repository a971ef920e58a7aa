"""`make up` killed from the first API to the hand-over, `make down` while its hosts and keys go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.killing import POINTS, down_that_is_killed_ends_well, up_that_is_killed_ends_well
from tests.e2e.stacks import Stack, lab_config

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    yield new_stack("slain", lab_config(14))


@pytest.mark.parametrize(("up", "down"), POINTS[5:])
def test_what_is_killed_ends_well(stack: Stack, up: str, down: str) -> None:
    up_that_is_killed_ends_well(stack, up)
    if up == "pivoted":
        roll(stack)
    down_that_is_killed_ends_well(stack, down)


def roll(stack: Stack) -> None:
    """A roll right after the hand-over ends."""
    begin = time.monotonic()
    stack.up("--replace", stack.state()[f"{stack.name}-apiserver-cert"]["urn"], timeout=200)
    print(f"the roll took {time.monotonic() - begin:.0f} s")
    stack.second_up_changes_nothing()
