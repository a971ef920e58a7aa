"""Asks the imitation of DigitalOcean's API, through pydo and, for what that hides, as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.e2e.digitalocean.fake_machinery import FakeMachinery, Machine
from tests.e2e.digitalocean.machinery import Rule
from tests.e2e.digitalocean.server import Api, Delays

# pydo takes a quarter of a second to import, in each of the processes that collect the tests.
if TYPE_CHECKING:
    from pydo import Client

TOKEN = "dop_v1_test"
SECONDS = 5
FAST = Delays(create=0.02, action=0.02, destroy=0.02, leave=0.04, firewall=0.02, balancer=0.02)
SLOW = 60
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
OTHER_KEY = KEY[:-1] + "B"
NOBODY = "00000000-0000-4000-8000-000000000000"
SSH = {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["203.0.113.0/24"]}}
OUT = {"protocol": "tcp", "ports": "all", "destinations": {"addresses": ["0.0.0.0/0", "::/0"]}}
FORWARDING = {
    "entry_protocol": "tcp",
    "entry_port": 6443,
    "target_protocol": "tcp",
    "target_port": 6443,
}
ANYWHERE = Rule(protocol="tcp", ports=None, addresses=("0.0.0.0/0", "::/0"))
Json = dict[str, Any]


def until(so: Callable[[], object]) -> None:
    """Waits until that is so."""
    deadline = time.monotonic() + SECONDS
    while not so():
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(0.005)


def droplet(**fields: object) -> Json:
    return {"name": "one", "region": "fra1", "size": "s-1vcpu-2gb", "image": "debian-12-x64", **fields}


def balancer(**fields: object) -> Json:
    return {"name": "api", "region": "fra1", "forwarding_rules": [FORWARDING], **fields}


def ask(api: Api, method: str, path: str, body: object = None, token: str = TOKEN) -> httpx.Response:
    """What pydo hides: headers, statuses, and bodies that are wrong."""
    headers = {"authorization": f"Bearer {token}"}
    # Without certificates, which take most of the time to read.
    return httpx.request(
        method, f"{api.endpoint}{path}", json=body, headers=headers, timeout=SECONDS, verify=False
    )


def refused(work: Callable[[], Any]) -> tuple[int, str]:
    """The status and the message with which pydo's call is refused."""
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError) as caught:
        work()
    return caught.value.status_code or 0, caught.value.message.splitlines()[0].removeprefix("(None) ")


@contextmanager
def client_of(api: Api) -> Iterator[Client]:
    from azure.core.pipeline.policies import HeadersPolicy
    from pydo import Client

    # azure-core's own policy sends no token over plain HTTP.
    policy = HeadersPolicy({"Authorization": f"Bearer {TOKEN}"})
    with closing(Client(TOKEN, endpoint=api.endpoint, authentication_policy=policy, retry_total=0)) as client:
        yield client


def active(client: Client, **fields: object) -> Json:
    """A droplet that is up."""
    made = client.droplets.create(droplet(**fields))["droplet"]["id"]
    until(lambda: client.droplets.get(made)["droplet"]["status"] == "active")
    found: Json = client.droplets.get(made)["droplet"]
    return found


def address(found: Json, kind: str) -> str:
    (found_address,) = (each["ip_address"] for each in found["networks"]["v4"] if each["type"] == kind)
    return str(found_address)


def machine(machinery: FakeMachinery, found: Json) -> Machine:
    return machinery.machines[found["id"]]
