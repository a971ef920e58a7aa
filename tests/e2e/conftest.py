"""What every scenario starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lab import lifecycle
from lab.progress import Progress
from tests.e2e.digitalocean.cloud import Cloud, on_droplets
from tests.e2e.stacks import Checkout, Stack, remove_hosts


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A copy of the checkout on a machine that is ready for hosts."""
    with lifecycle.machine(Progress()):
        yield Checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def cloud(request: pytest.FixtureRequest, checkout: Checkout) -> Iterator[Cloud]:
    """An account whose name and subnet the module's CLOUD says."""
    name, subnet = request.module.CLOUD
    with Cloud.of(checkout, name, subnet) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> str:
    """Where the clusters are whose config says lab."""
    return str(request.config.getoption("--platform"))


@pytest.fixture(scope="module")
def new_stack(checkout: Checkout, platform: str) -> Iterator[Callable[[str, dict[str, Any]], Stack]]:
    """Makes stacks, and removes what is left of them in the end."""
    made: list[str] = []
    with ExitStack() as clouds:

        def new(name: str, config: dict[str, Any]) -> Stack:
            made.append(name)
            if config["platform"] != "lab":
                return Stack(checkout, name, config)
            if platform == "digitalocean":
                clouds.enter_context(Cloud.of_lab(checkout, name, config))
                return Stack(checkout, name, config, on_droplets)
            remove_hosts(name)  # those of a test run that was killed
            return Stack(checkout, name, config)

        yield new
    for name in made:
        remove_hosts(name)
