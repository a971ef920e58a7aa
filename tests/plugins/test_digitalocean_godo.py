"""DigitalOcean's own client for Go finds nothing missing in what the imitation of its API answers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab import toolchain
from lab.progress import Progress
from lab.toolchain.gotoolchain import ensure_go
from tests.e2e.digitalocean.fake_machinery import FakeMachinery
from tests.e2e.digitalocean.server import Api, Delays

pytestmark = pytest.mark.e2e

PROGRAM = Path(__file__).parent.parent / "e2e/digitalocean/godo"
TOKEN = "dop_v1_test"
BUILD_SECONDS = 600
RUN_SECONDS = 60
DELAYS = Delays(create=0.1, action=0.05, destroy=0.1, leave=0.1, firewall=0.1, balancer=0.2)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    target = tmp_path / "godo"
    subprocess.run(
        [ensure_go(Progress(), toolchain.SITES), "build", "-o", target, "."],
        cwd=PROGRAM,
        env={
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": "-mod=readonly",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        },
        check=True,
        timeout=BUILD_SECONDS,
    )
    return target


def test_godo_finds_every_answer_complete(program: Path) -> None:
    """It goes through all that there is, in pages of one, and takes it away again."""
    with Api(
        FakeMachinery(), token=TOKEN, delays=DELAYS, default_vpcs=["fra1"], requests_a_minute=5000
    ) as api:
        environment = {"DIGITALOCEAN_API_URL": api.endpoint, "DIGITALOCEAN_TOKEN": TOKEN}
        run = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=RUN_SECONDS)
        assert run.returncode == 0, run.stderr
        assert api.everything() == {}
        assert not [request for request in api.requests if request.status >= 500]
