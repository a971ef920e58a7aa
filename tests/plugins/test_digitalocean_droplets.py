"""The digitalocean stand-in makes, changes and ends droplets as the official plugin does: the same
requests, the same waits, the same failures."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.plugins.command_host import run
from tests.plugins.digitalocean_script import (
    CREATED,
    DROPLET,
    ENDED,
    LOST,
    NOT_FOUND,
    UNAVAILABLE,
    droplet,
    made_droplet,
    plugin,
    script,
    urn,
)
from tests.plugins.replay import Json

PENDING = (422, {"id": "unprocessable_entity", "message": "Droplet already has a pending event."})


def test_droplet_is_waited_for() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/droplets", (202, droplet("new")))
            found: list[Any] = [NOT_FOUND, droplet("new"), droplet("new"), droplet(locked=True), droplet()]
            api.on("GET /v2/droplets/7", *found)
            async with plugin(api.url) as it:
                answer = await it.create(
                    "Droplet", **DROPLET, userData="#cloud", sshKeys=["ab:cd", "12"], tags=["a"], vpcUuid="v"
                )
        assert it.clock.slept == [10, 3, 6, 10, 10]
        assert api.body("POST /v2/droplets") == {
            "name": "web",
            "region": "fra1",
            "size": "S-1vcpu-2gb",
            "image": "debian-12-x64",
            "ssh_keys": [12, "ab:cd"],
            "tags": ["a"],
            "user_data": "#cloud",
            "vpc_uuid": "v",
            "backups": False,
            "ipv6": False,
            "monitoring": False,
            "private_networking": False,
        }
        assert answer["response"]["id"] == "7"
        properties = answer["response"]["properties"]
        expected: Json = {
            "ipv4Address": "203.0.113.5",
            "ipv4AddressPrivate": "10.1.0.2",
            "ipv6Address": "",
            "size": "s-1vcpu-2gb",
            "status": "active",
            "locked": False,
            "priceMonthly": 12,
            "publicNetworking": True,
            "privateNetworking": True,
            "dropletUrn": "do:droplet:7",
            "image": "debian-12-x64",
            "sshKeys": ["ab:cd", "12"],
            "createdAt": CREATED,
            "userData": hashlib.sha1(b"#cloud").hexdigest(),
            "__meta": '{"schema_version":"1"}',
        }
        assert {name: properties[name] for name in expected} == expected

    run(scenario)


def test_droplet_that_never_gets_ready_is_kept() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/droplets", (202, droplet("new")))
            api.on("GET /v2/droplets/7", droplet("new", locked=False))
            async with plugin(api.url) as it:
                request: Json = {"urn": urn("Droplet"), "properties": DROPLET, "timeout": 30}
                id, properties, reason = await it.half_made("Create", **request)
        assert (id, properties["status"], properties["name"]) == ("7", "new", "web")
        assert "Error waiting for droplet (7) to become ready: context deadline exceeded" in reason
        assert sum(it.clock.slept) == 30

    run(scenario)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (droplet("off", locked=False), "unexpected state 'off', wanted target 'active'"),
        (NOT_FOUND, "couldn't find resource (121 retries)"),
        (droplet(region=None), "crashes here"),
        (LOST, "Error retrieving droplet: "),
    ],
)
def test_droplet_that_fails_while_it_is_waited_for(found: Any, error: str) -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/droplets", (202, droplet("new")))
            api.on("GET /v2/droplets/7", found)
            async with plugin(api.url) as it:
                id, _, reason = await it.half_made("Create", urn=urn("Droplet"), properties=DROPLET)
        assert id == "7"
        assert error in reason

    run(scenario)


def test_droplet_is_resized_and_renamed_in_place() -> None:
    async def scenario() -> None:
        with script() as api:
            async with plugin(api.url) as it:
                old = await made_droplet(it, api, tags=["a"])
                power = {"action": {"id": 1, "status": "in-progress", "completed_at": None}}
                api.on("POST /v2/droplets/7/actions", (201, power))
                api.on(
                    "GET /v2/droplets/7",
                    *[droplet(), droplet("off"), droplet(), droplet(), droplet(name="db")],
                )
                done: Json = {"status": "in-progress", "completed_at": CREATED}
                api.on("GET /v2/actions/1", power, {"action": {"id": 1, **done}})
                for tag in ("a", "b"):
                    api.on(f"DELETE /v2/tags/{tag}/resources", ENDED)
                    api.on(f"POST /v2/tags/{tag}/resources", ENDED)
                api.on("POST /v2/tags", (201, {"tag": {"name": "b"}}))
                new: Json = {
                    **DROPLET,
                    "size": "s-2vcpu-2gb",
                    "name": "db",
                    "tags": ["b"],
                    "resizeDisk": True,
                }
                answer = await it.update("Droplet", "7", old, new)
        assert "errors" not in answer
        assert [(request, body) for request, body in api.requests if not request.startswith("GET")] == [
            ("POST /v2/droplets/7/actions", {"type": "power_off"}),
            ("POST /v2/droplets/7/actions", {"type": "resize", "size": "s-2vcpu-2gb", "disk": True}),
            ("POST /v2/droplets/7/actions", {"type": "power_on"}),
            ("POST /v2/droplets/7/actions", {"type": "rename", "name": "db"}),
            (
                "DELETE /v2/tags/a/resources",
                {"resources": [{"resource_id": "7", "resource_type": "droplet"}]},
            ),
            ("POST /v2/tags", {"name": "b"}),
            (
                "POST /v2/tags/b/resources",
                {"resources": [{"resource_id": "7", "resource_type": "droplet"}]},
            ),
        ]
        assert it.clock.slept == [10, 3, 10, 3, 10, 10, 3]

    run(scenario)


def test_update_that_fails_keeps_what_the_api_says() -> None:
    async def scenario() -> None:
        with script() as api:
            async with plugin(api.url) as it:
                old = await made_droplet(it, api)
                off = {"action": {"id": 1, "status": "in-progress"}}
                api.on("POST /v2/droplets/7/actions", (201, off), PENDING, (201, off))
                api.on("GET /v2/droplets/7", droplet("off"), droplet())
                request: Json = {"urn": urn("Droplet"), "id": "7", "olds": old}
                new: Json = {**DROPLET, "size": "s-2vcpu-2gb"}
                _, properties, reason = await it.half_made("Update", **request, news=new)
        assert "Error resizing droplet (7): POST" in reason
        assert properties["size"] == "s-1vcpu-2gb"
        assert properties["status"] == "active", "powered on again"

    run(scenario)


def test_droplet_is_deleted() -> None:
    async def scenario() -> None:
        with script() as api:
            async with plugin(api.url) as it:
                old = await made_droplet(it, api)
                api.on("GET /v2/droplets/7", droplet(locked=True), droplet(), droplet(), NOT_FOUND)
                api.on("DELETE /v2/droplets/7", ENDED)
                assert await it.delete("Droplet", "7", **old) == {"response": {}}
        assert it.clock.slept == [10, 3, 10, 3]

    run(scenario)


@pytest.mark.parametrize(
    ("found", "answer", "error", "seconds"),
    [
        ([NOT_FOUND], ENDED, "unlocked for destroy (7): unexpected state 'Not Found', wanted target", 10),
        ([droplet(locked=True)], ENDED, "unlocked for destroy (7): context deadline exceeded", 60),
        ([droplet()], PENDING, "Error deleting droplet: context deadline exceeded", 60),
        ([droplet()], LOST, "the official plugin 4.76.0 crashes here", 25),
        ([droplet()], UNAVAILABLE, "the official plugin 4.76.0 crashes here", 25),
    ],
)
def test_deletions_of_droplets_that_fail(found: list[Any], answer: Any, error: str, seconds: float) -> None:
    async def scenario() -> None:
        with script() as api:
            async with plugin(api.url) as it:
                old = await made_droplet(it, api)
                api.on("GET /v2/droplets/7", *found)
                api.on("DELETE /v2/droplets/7", answer)
                failure = await it.delete("Droplet", "7", **old)
        assert error in failure["errors"][0]
        assert sum(it.clock.slept) == seconds

    run(scenario)


def test_custom_timeout_does_not_lengthen_the_wait_for_the_end() -> None:
    async def scenario() -> None:
        with script() as api:
            async with plugin(api.url) as it:
                old = await made_droplet(it, api)
                api.on("DELETE /v2/droplets/7", ENDED)
                failure = await it.delete("Droplet", "7", timeout=600, **old)
        assert "timeout while waiting for state to become 'Not Found'" in failure["errors"][0]
        assert "(last state: 'active', timeout: 1m0s)" in failure["errors"][0]
        assert sum(it.clock.slept) == 70

    run(scenario)
