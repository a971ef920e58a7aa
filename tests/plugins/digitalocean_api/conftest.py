"""The imitation of DigitalOcean's API with machinery that only notes what it is to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.digitalocean.fake_machinery import FakeMachinery
from tests.e2e.digitalocean.server import Api
from tests.plugins.digitalocean_api.asking import FAST, TOKEN, client_of

if TYPE_CHECKING:
    from pydo import Client


@pytest.fixture
def machinery() -> FakeMachinery:
    return FakeMachinery()


@pytest.fixture
def api(machinery: FakeMachinery) -> Iterator[Api]:
    with Api(machinery, token=TOKEN, delays=FAST, default_vpcs=["fra1"], droplet_limit=3) as api:
        yield api


@pytest.fixture(scope="module")
def empty_api() -> Iterator[Api]:
    """For tests that make nothing."""
    with Api(FakeMachinery(), token=TOKEN, default_vpcs=["fra1"], droplet_limit=3) as api:
        yield api


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    with client_of(api) as client:
        yield client
