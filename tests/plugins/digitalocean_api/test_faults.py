"""Faults that a test orders, and those of the machinery."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.e2e.digitalocean.fake_machinery import FakeMachinery
from tests.e2e.digitalocean.server import Api, Delays
from tests.plugins.digitalocean_api.asking import (
    FAST,
    SECONDS,
    SLOW,
    SSH,
    TOKEN,
    active,
    ask,
    balancer,
    client_of,
    droplet,
    until,
)

if TYPE_CHECKING:
    from pydo import Client


def test_ordered_faults(api: Api) -> None:
    api.faults.refuse("GET", "/v2/(sizes|regions)", 503, times=2, message="later")
    api.faults.limit("GET", "/v2/sizes", 7)
    answers = [ask(api, "GET", f"/v2/{noun}") for noun in ("regions", "account", "sizes", "sizes", "sizes")]
    assert [each.status_code for each in answers] == [503, 200, 503, 429, 200]
    assert answers[0].json()["message"] == "later"
    assert answers[3].headers["retry-after"] == "7"
    api.faults.delay("GET", "/v2/sizes", 0.1)
    began = time.monotonic()
    assert ask(api, "GET", "/v2/sizes").status_code == 200
    assert time.monotonic() - began >= 0.1
    api.faults.refuse("GET", "/v2/account", 500, times=None)
    assert {ask(api, "GET", "/v2/account").status_code for _ in range(3)} == {500}
    api.faults.clear()
    assert ask(api, "GET", "/v2/account").status_code == 200
    assert [(each.path, each.status) for each in api.requests[:2]] == [
        ("/v2/regions", 503),
        ("/v2/account", 200),
    ]


def test_a_lost_answer_is_of_work_that_was_done(api: Api) -> None:
    api.faults.lose_answer("POST", "/v2/tags")
    with pytest.raises(httpx.RemoteProtocolError):
        ask(api, "POST", "/v2/tags", {"name": "t"})
    assert api.everything() == {"tags": ["t"]}
    assert (api.requests[-1].method, api.requests[-1].status) == ("POST", 201)


def test_an_answer_that_is_held_is_of_work_that_was_done(api: Api) -> None:
    with ThreadPoolExecutor() as pool:
        with api.faults.hold_answer("POST", "/v2/tags") as done:
            asked = pool.submit(ask, api, "POST", "/v2/tags", {"name": "t"})
            assert done.wait(10)
            assert api.everything() == {"tags": ["t"]} and not asked.done()
        assert asked.result(10).status_code == 201
    with api.faults.hold_answer("POST", "/v2/tags"):
        pass  # an order that nobody met is gone
    assert ask(api, "POST", "/v2/tags", {"name": "u"}).status_code == 201


def test_a_droplet_vanishes(api: Api, client: Client, machinery: FakeMachinery) -> None:
    made = active(client)
    api.faults.vanish(made["id"])
    assert client.droplets.get(made["id"])["id"] == "not_found"
    assert machinery.machines == {}
    machinery.booting.clear()
    booting = client.droplets.create(droplet())["droplet"]["id"]
    api.faults.vanish(booting)
    assert client.droplets.list()["droplets"] == []
    machinery.booting.set()
    until(lambda: client.actions.list()["actions"][0]["status"] == "completed")
    assert machinery.machines == {}


class _Broken(FakeMachinery):
    def make(self, droplet: object) -> None:
        raise OSError("no more hosts")

    def set_balancer(self, balancer: object) -> None:
        raise OSError("no balancer")


def test_what_the_machinery_fails_to_do_is_seen_and_raised() -> None:
    with (
        pytest.raises(ExceptionGroup) as caught,
        Api(_Broken(), token=TOKEN, delays=FAST, default_vpcs=["fra1"]) as api,
        client_of(api) as client,
    ):
        action = client.droplets.create(droplet())["links"]["actions"][0]["id"]
        until(lambda: client.actions.get(action)["action"]["status"] == "errored")
        assert client.droplets.list()["droplets"][0]["status"] == "new"
        broken = client.load_balancers.create(balancer())["load_balancer"]["id"]
        until(lambda: client.load_balancers.get(broken)["load_balancer"]["status"] == "errored")
    assert {str(each) for each in caught.value.exceptions} == {"no more hosts", "no balancer"}


def test_nothing_runs_after_the_end(machinery: FakeMachinery) -> None:
    before = threading.active_count()
    began = time.monotonic()
    slow = Delays(create=SLOW, leave=SLOW, firewall=SLOW)
    with httpx.Client() as kept, Api(machinery, token=TOKEN, delays=slow) as api:
        headers = {"authorization": f"Bearer {TOKEN}"}
        for path, body in (
            ("droplets", droplet()),
            ("firewalls", {"name": "fw", "inbound_rules": [SSH]}),
        ):
            assert kept.post(f"{api.endpoint}/v2/{path}", json=body, headers=headers).status_code == 202
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert time.monotonic() - began < SECONDS
