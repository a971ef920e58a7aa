"""What the program needs of the digitalocean provider, from the stand-in or the official plugin alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import asyncssh
import httpx
import pytest

from tests.e2e.digitalocean.fake_machinery import FakeMachinery
from tests.e2e.digitalocean.server import Api
from tests.e2e.stacks import Stack

pytestmark = pytest.mark.e2e

UP = ("up", "--yes", "--skip-preview")
TOKEN = "dop_v1_test"
EMPTY = {"domains": ["example.com"], "projects": ["cluster"]}
"""What is there before the first `up`."""

Programs = Callable[[str, dict[str, Any]], Stack]


def made(api: Api) -> dict[str, Any]:
    """Makes what the program takes as given; its config."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=api.endpoint, headers=headers) as client:
        client.post("/v2/domains", json={"name": "example.com"}).raise_for_status()
        project = client.post("/v2/projects", json={"name": "cluster", "purpose": "Web Application"})
        project.raise_for_status()
    return {
        "endpoint": api.endpoint,
        "token": TOKEN,
        "project": project.json()["project"]["id"],
        "names": {"key": "key", "machine": "machine", "balancer": "balancer"},
        "description": "first",
        "publicKey": public_key(),
        "size": "s-1vcpu-2gb",
        "userData": "#cloud-config",
        "admins": ["192.0.2.0/24"],
    }


def public_key() -> str:
    return asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()


def timed(stack: Stack, *arguments: str, **options: Any) -> str:
    begin = time.monotonic()
    output = stack.pulumi(*arguments, **options)
    print(f"{' '.join(arguments)}: {time.monotonic() - begin:.1f} s")
    return output


def ids(stack: Stack) -> dict[str, str]:
    return {
        name: each["id"] for name, each in stack.state().items() if each["type"].startswith("digitalocean:")
    }


def test_every_type_lives(new_program: Programs) -> None:
    with Api(FakeMachinery(), token=TOKEN, default_vpcs=["fra1"]) as api:
        config = made(api)
        stack = new_program("digitalocean", config)
        asked = len(api.requests)
        stack.pulumi("preview")
        assert len(api.requests) == asked, "a preview of what is not there asks for nothing"
        timed(stack, *UP)
        stack.second_up_changes_nothing()
        before = ids(stack)
        state = stack.state()
        assert state["firewall"]["outputs"]["name"].startswith("firewall-")
        assert state["machine"]["outputs"]["userData"] != "#cloud-config"

        changed = {
            "description": "second",
            "admins": ["198.51.100.0/24", "192.0.2.0/24"],
            "names": {"key": "k", "machine": "m", "balancer": "b"},
            "size": "s-2vcpu-2gb",
        }
        stack.configure({**config, **changed})
        timed(stack, *UP)
        assert ids(stack) == before, "all in place"
        stack.second_up_changes_nothing()
        (other,) = [name for name in api.everything()["droplets"] if name != "m"]
        assert other.startswith("other-")

        stack.configure({**config, **changed, "publicKey": public_key()})
        timed(stack, *UP)
        replaced = {name for name, id in ids(stack).items() if before[name] != id}
        assert replaced == {"key", "machine"}
        stack.second_up_changes_nothing()

        timed(stack, "destroy", "--yes", "--skip-preview", timeout=120)
        assert stack.state() == {}
        assert api.everything() == EMPTY


def test_what_fails_is_kept_and_mended(new_program: Programs) -> None:
    """A droplet that was ordered is never ordered again, nor is one that is gone forgotten in silence."""
    with Api(FakeMachinery(), token=TOKEN, default_vpcs=["fra1"]) as api:
        config = {"endpoint": api.endpoint, "token": TOKEN, "publicKey": public_key()}
        stack = new_program("droplet", config)
        api.faults.refuse("GET", r"/v2/droplets/\d+", 403)
        assert "to become ready: Error retrieving droplet: " in timed(stack, *UP, fails=True)
        half = stack.state()["machine"]
        assert half["initErrors"]
        timed(stack, *UP)
        assert stack.state()["machine"]["id"] == half["id"]
        assert "initErrors" not in stack.state()["machine"]
        assert api.everything()["droplets"] == ["machine"]
        stack.second_up_changes_nothing()

        api.faults.vanish(int(half["id"]))
        destroy = ("destroy", "--yes", "--skip-preview")
        assert "unexpected state 'Not Found'" in timed(stack, *destroy, fails=True)
        timed(stack, *UP, "--refresh")
        assert stack.state()["machine"]["id"] != half["id"]
        api.faults.vanish(int(stack.state()["machine"]["id"]))
        timed(stack, *destroy, "--refresh")
        assert stack.state() == {}
        assert api.everything() == {}
