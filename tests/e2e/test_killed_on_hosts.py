"""`make up` killed before there is an API, `make down` while the cluster is taken away; each ends well."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.killing import POINTS, down_that_is_killed_ends_well, up_that_is_killed_ends_well
from tests.e2e.stacks import Stack, lab_config

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    yield new_stack("killed", lab_config(2))


@pytest.mark.parametrize(("up", "down"), POINTS[:5])
def test_what_is_killed_ends_well(stack: Stack, up: str, down: str) -> None:
    up_that_is_killed_ends_well(stack, up)
    down_that_is_killed_ends_well(stack, down)
