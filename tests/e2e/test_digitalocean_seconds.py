"""How long a cluster on droplets takes, beside one of the lab's own on the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.e2e.digitalocean.cloud import Cloud, droplets_config
from tests.e2e.stacks import Checkout, Stack, lab_config

pytestmark = pytest.mark.e2e

MORE_SECONDS, DESTROY_SECONDS = 30, 60


def seconds_of(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def test_droplets_take_little_longer_than_containers(
    new_stack: Callable[..., Stack], checkout: Checkout
) -> None:
    lab = new_stack("beside", lab_config(17))
    lab_up = seconds_of(lab.up)
    lab.destroy()
    with Cloud.of(checkout, "timed", 206) as cloud:
        stack = new_stack("timed", droplets_config(122))
        up = seconds_of(stack.up)
        destroy = seconds_of(stack.destroy)
        print(f"up took {up:.1f} s, {lab_up:.1f} s on the lab; destroy took {destroy:.1f} s")
        assert cloud.api.everything() == {}
    assert up < lab_up + MORE_SECONDS
    assert destroy < DESTROY_SECONDS
