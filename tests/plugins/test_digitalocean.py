"""The digitalocean stand-in makes, reads, changes and ends resources as the official plugin does: the same
requests, the same waits, the same failures."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import pytest
from google.protobuf import empty_pb2

from lab.plugins.common import EngineLog
from lab.plugins.digitalocean.api import Api, Settings
from lab.plugins.digitalocean.provider import VERSION, DigitalOceanProvider
from lab.plugins.digitalocean.waits import Clock
from tests.plugins.command_host import run
from tests.plugins.digitalocean_script import (
    LOST,
    NOT_FOUND,
    TOKEN,
    Plugin,
    Script,
    SkippingClock,
    plugin,
    script,
    urn,
)
from tests.plugins.replay import Json, ask, serving

CREATED = "2026-11-28T08:00:00Z"
PENDING = (422, {"id": "unprocessable_entity", "message": "Droplet already has a pending event."})
BUSY = (409, {"id": "conflict", "message": "Can not delete VPC with members"})
UNAVAILABLE = (503, {"id": "service_unavailable", "message": "Try again."})
ENDED: tuple[int, Json] = (204, {})

DROPLET: Json = {"image": "debian-12-x64", "size": "S-1vcpu-2gb", "region": "fra1", "name": "web"}
ADDRESSES: Json = {
    "v4": [
        {"ip_address": "10.1.0.2", "type": "private"},
        {"ip_address": "203.0.113.5", "type": "public"},
    ],
    "v6": [],
}


def droplet(status: str = "active", **settings: Any) -> Json:
    found: Json = {
        "id": 7,
        "name": "web",
        "status": status,
        "locked": status == "new",
        "created_at": CREATED,
        "disk": 50,
        "vcpus": 1,
        "memory": 2048,
        "vpc_uuid": "v",
        "tags": ["a"],
        "volume_ids": [],
        "region": {"slug": "fra1"},
        "size": {"slug": "s-1vcpu-2gb", "price_hourly": 0.01786, "price_monthly": 12.0},
        "networks": {"v4": [], "v6": []} if status == "new" else ADDRESSES,
        "features": ["private_networking"],
    }
    return {"droplet": found | settings}


async def made(it: Plugin, api: Script, **inputs: Any) -> Json:
    """A droplet as it is in the state once it was made."""
    api.on("POST /v2/droplets", (202, droplet("new")))
    api.on("GET /v2/droplets/7", droplet())
    answer = await it.create("Droplet", **DROPLET, **inputs)
    api.requests.clear()
    it.clock.slept.clear()
    return dict(answer["response"]["properties"])


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
                old = await made(it, api, tags=["a"])
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
                old = await made(it, api)
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
                old = await made(it, api)
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
                old = await made(it, api)
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
                old = await made(it, api)
                api.on("DELETE /v2/droplets/7", ENDED)
                failure = await it.delete("Droplet", "7", timeout=600, **old)
        assert "timeout while waiting for state to become 'Not Found'" in failure["errors"][0]
        assert "(last state: 'active', timeout: 1m0s)" in failure["errors"][0]
        assert sum(it.clock.slept) == 70

    run(scenario)


@pytest.mark.parametrize(("timeout", "seconds"), [(0, 120), (600, 600)])
def test_vpc_that_has_members_is_waited_for(timeout: float, seconds: float) -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("DELETE /v2/vpcs/v", BUSY)
            async with plugin(api.url) as it:
                failure = await it.delete("Vpc", "v", timeout=timeout, name="v")
                assert "409 Can not delete VPC with members" in failure["errors"][0]
                assert it.clock.slept[:7] == [0.5, 1, 2, 4, 8, 10, 10]
                assert sum(it.clock.slept) == seconds
                api.on("DELETE /v2/vpcs/v", (403, {"message": "default"}), BUSY, ENDED)
                assert await it.delete("Vpc", "v", name="v") == {"response": {}}

    run(scenario)


def test_vpc() -> None:
    vpc: Json = {"id": "v", "name": "n", "region": "fra1", "ip_range": "10.1.0.0/20", "urn": "do:vpc:v"}
    answer: Json = {
        "vpc": {**vpc, "description": "", "default": False, "created_at": "2026-11-28T08:00:00.1234Z"}
    }

    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/vpcs", (201, answer))
            api.on("GET /v2/vpcs/v", answer)
            api.on("PUT /v2/vpcs/v", answer)
            async with plugin(api.url) as it:
                made = await it.create("Vpc", name="n", region="fra1")
                new: Json = {"name": "n", "region": "fra1", "description": "d"}
                await it.update("Vpc", "v", made["response"]["properties"], new)
        assert api.body("POST /v2/vpcs") == {"name": "n", "region": "fra1"}
        assert api.body("PUT /v2/vpcs/v") == {"name": "n", "description": "d", "default": False}
        assert made["response"]["properties"] == {
            "name": "n",
            "region": "fra1",
            "description": "",
            "ipRange": "10.1.0.0/20",
            "vpcUrn": "do:vpc:v",
            "default": False,
            "createdAt": "2026-11-28 08:00:00.1234 +0000 UTC",
        }

    run(scenario)


BALANCER: Json = {
    "id": "b",
    "name": "api",
    "ip": "",
    "status": "new",
    "algorithm": "round_robin",
    "tag": "web",
    "vpc_uuid": "v",
    "size_unit": 1,
    "project_id": "p",
    "http_idle_timeout_seconds": 60,
    "type": "REGIONAL",
    "region": {"slug": "fra1"},
    "droplet_ids": [7, 5],
    "forwarding_rules": [
        {"entry_protocol": "tcp", "entry_port": 6443, "target_protocol": "tcp", "target_port": 6443}
    ],
    "health_check": {
        "protocol": "https",
        "port": 6443,
        "path": "/readyz",
        "check_interval_seconds": 10,
        "response_timeout_seconds": 5,
        "unhealthy_threshold": 3,
        "healthy_threshold": 5,
    },
    "sticky_sessions": {"type": "none"},
}
BALANCER_INPUTS: Json = {
    "name": "api",
    "region": "fra1",
    "dropletTag": "web",
    "vpcUuid": "v",
    "forwardingRules": [
        {"entryProtocol": "tcp", "entryPort": 6443, "targetProtocol": "tcp", "targetPort": 6443}
    ],
    "healthcheck": {"protocol": "https", "port": 6443, "path": "/readyz", "healthyThreshold": 2},
    "firewall": {"allows": ["cidr:192.0.2.0/24"]},
}


def test_load_balancer_is_waited_for_and_set_as_a_whole() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/load_balancers", (202, {"load_balancer": BALANCER}))
            active: Json = {"load_balancer": {**BALANCER, "status": "active", "ip": "203.0.113.9"}}
            api.on("GET /v2/load_balancers/b", *[{"load_balancer": BALANCER}] * 4, active)
            api.on("PUT /v2/load_balancers/b", (403, {"message": "busy"}), active)
            async with plugin(api.url) as it:
                made = (await it.create("LoadBalancer", **BALANCER_INPUTS))["response"]["properties"]
                assert it.clock.slept == [15, 10, 10, 10]
                new: Json = {**BALANCER_INPUTS, "name": "other"}
                request: Json = {"urn": urn("LoadBalancer"), "id": "b", "olds": made, "news": new}
                _, properties, reason = await it.half_made("Update", **request)
                assert "Error updating Load Balancer: PUT" in reason
                assert properties["name"] == "other", "as the official plugin: the state has it already"
                answer = await it.update("LoadBalancer", "b", made, new)
        assert answer["response"]["properties"]["name"] == "api"
        assert (made["ip"], made["dropletIds"], made["sizeUnit"]) == ("203.0.113.9", [5, 7], 1)
        first, second = api.body("POST /v2/load_balancers"), api.requests[-2][1]
        assert first == {
            "name": "api",
            "region": "fra1",
            "algorithm": "round_robin",
            "tag": "web",
            "vpc_uuid": "v",
            "forwarding_rules": BALANCER["forwarding_rules"],
            "health_check": {**BALANCER["health_check"], "healthy_threshold": 2},
            "firewall": {"allow": ["cidr:192.0.2.0/24"]},
            "disable_lets_encrypt_dns_records": False,
        }
        assert second == first | {
            "name": "other",
            "project_id": "p",
            "http_idle_timeout_seconds": 60,
            "size_unit": 1,
            "type": "REGIONAL",
            "sticky_sessions": {"type": "none"},
        }

    run(scenario)


def test_load_balancer_that_errs_is_kept() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/load_balancers", (202, {"load_balancer": BALANCER}))
            errored = {"load_balancer": {**BALANCER, "status": "errored"}}
            api.on("GET /v2/load_balancers/b", errored)
            async with plugin(api.url) as it:
                request: Json = {"urn": urn("LoadBalancer"), "properties": BALANCER_INPUTS}
                id, _, reason = await it.half_made("Create", **request)
        assert id == "b"
        assert "(api) to become active: unexpected state 'errored'" in reason

    run(scenario)


def test_firewall() -> None:
    inputs: Json = {
        "name": "f",
        "tags": ["web"],
        "inboundRules": [
            {"protocol": "tcp", "portRange": "all", "sourceAddresses": ["10.0.0.0/8"], "sourceTags": ["web"]},
            {"protocol": "icmp", "sourceDropletIds": [9, 8]},
        ],
    }
    body: Json = {
        "name": "f",
        "tags": ["web"],
        "droplet_ids": None,
        "outbound_rules": None,
        "inbound_rules": [
            {"protocol": "tcp", "ports": "all", "sources": {"addresses": ["10.0.0.0/8"], "tags": ["web"]}},
            {"protocol": "icmp", "sources": {"droplet_ids": [9, 8]}},
        ],
    }
    rules = [{**rule, "ports": "0"} for rule in body["inbound_rules"]]
    answer: Json = {
        "firewall": {
            **body,
            "inbound_rules": rules,
            "id": "f",
            "created_at": CREATED,
            "status": "waiting",
            "pending_changes": [{"droplet_id": 7, "removing": False, "status": "waiting"}],
        }
    }

    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/firewalls", (202, answer))
            api.on("GET /v2/firewalls/f", answer)
            async with plugin(api.url) as it:
                made = (await it.create("Firewall", **inputs))["response"]["properties"]
                difference = await it.diff("Firewall", made, inputs)
        assert api.body("POST /v2/firewalls") == body
        assert difference["changes"] == "DIFF_NONE"
        assert made["pendingChanges"] == [{"dropletId": 7, "removing": False, "status": "waiting"}]

    run(scenario)


KEY: Json = {"ssh_key": {"id": 3, "name": "k", "fingerprint": "ab:cd", "public_key": "ssh-ed25519 A"}}


def test_ssh_key_is_waited_for() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/account/keys", (201, KEY))
            api.on("GET /v2/account/keys/3", NOT_FOUND, NOT_FOUND, KEY)
            async with plugin(api.url) as it:
                answer = await it.create("SshKey", name="k", publicKey="ssh-ed25519 A\n")
        assert it.clock.slept == [0.5, 1]
        assert answer["response"] == {
            "id": "3",
            "properties": {"name": "k", "publicKey": "ssh-ed25519 A", "fingerprint": "ab:cd"},
        }

    run(scenario)


def test_record() -> None:
    record: Json = {
        "id": 4,
        "type": "CNAME",
        "name": "www",
        "data": "web.example.com",
        "ttl": 1800,
        "tag": None,
    }
    answer: Json = {
        "domain_record": {**record, "priority": None, "port": None, "weight": None, "flags": None}
    }

    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/domains/example.com/records", (201, answer))
            api.on("GET /v2/domains/example.com/records/4", answer)
            inputs: Json = {
                "domain": "example.com",
                "type": "CNAME",
                "name": "www",
                "value": "web.example.com.",
            }
            async with plugin(api.url) as it:
                made = (await it.create("DnsRecord", **inputs))["response"]["properties"]
                difference = await it.diff("DnsRecord", made, inputs)
        assert api.body("POST /v2/domains/example.com/records") == {
            "type": "CNAME",
            "name": "www",
            "data": "web.example.com.",
            "priority": 0,
            "port": 0,
            "weight": 0,
            "flags": 0,
        }
        assert (made["value"], made["ttl"], made["fqdn"]) == ("web.example.com.", 1800, "www.example.com")
        assert difference["changes"] == "DIFF_NONE"

    run(scenario)


ADDRESS = "203.0.113.20"
RESERVED: Json = {"reserved_ip": {"ip": ADDRESS, "region": {"slug": "fra1"}, "droplet": None}}
ASSIGNED: Json = {"reserved_ip": {**RESERVED["reserved_ip"], "droplet": droplet()["droplet"]}}
ACTION: Json = {"action": {"id": 11, "status": "in-progress"}}


def test_reserved_ip_is_made_and_then_assigned() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/reserved_ips", (202, RESERVED))
            idle, busy = ({"actions": [{"id": 1, "status": each}]} for each in ("completed", "in-progress"))
            api.on("GET /v2/droplets/7/actions", busy, busy, idle)
            api.on(f"POST /v2/reserved_ips/{ADDRESS}/actions", (201, ACTION))
            done: Json = {"action": {"id": 11, "status": "completed"}}
            api.on(f"GET /v2/reserved_ips/{ADDRESS}/actions/11", NOT_FOUND, ACTION, done)
            api.on(f"GET /v2/reserved_ips/{ADDRESS}", RESERVED, ASSIGNED)
            async with plugin(api.url) as it:
                answer = await it.create("ReservedIp", region="fra1", dropletId=7)
        assert it.clock.slept == [3, 2, 4, 10, 3, 6]
        assert api.body("POST /v2/reserved_ips") == {"region": "fra1"}
        assert answer["response"]["properties"] == {
            "region": "fra1",
            "dropletId": 7,
            "ipAddress": ADDRESS,
            "reservedIpUrn": f"do:reservedip:{ADDRESS}",
        }

    run(scenario)


def test_assignment() -> None:
    inputs: Json = {"ipAddress": ADDRESS, "dropletId": 7}

    async def scenario() -> None:
        with script() as api:
            api.on("GET /v2/droplets/7/actions", {"actions": []})
            api.on(f"POST /v2/reserved_ips/{ADDRESS}/actions", (201, ACTION))
            done: Json = {"action": {"id": 11, "status": "completed"}}
            api.on(f"GET /v2/reserved_ips/{ADDRESS}/actions/11", done)
            api.on(f"GET /v2/reserved_ips/{ADDRESS}", ASSIGNED)
            async with plugin(api.url) as it:
                answer = await it.create("ReservedIpAssignment", **inputs)
                assert answer["response"]["id"].startswith(f"7-{ADDRESS}-")
                assert await it.delete("ReservedIpAssignment", "x", **inputs) == {"response": {}}
                assert api.requests[-2][1] == {"type": "unassign"}
                api.on(f"GET /v2/reserved_ips/{ADDRESS}", RESERVED)
                assert await it.read("ReservedIpAssignment", "x", inputs, inputs) == {
                    "properties": {},
                    "inputs": {},
                }
                failure = await it.delete("ReservedIpAssignment", "x", **inputs)
        assert "the official plugin 4.76.0 crashes here" in failure["errors"][0]

    run(scenario)


def test_project_resources() -> None:
    project = "/v2/projects/p"

    async def scenario() -> None:
        with script() as api:
            api.on(f"GET {project}", {"project": {"id": "p"}})
            api.on("GET /v2/projects/default", {"project": {"id": "d"}})
            api.on(f"POST {project}/resources", {"resources": []})
            api.on("POST /v2/projects/d/resources", {"resources": []})
            more: Json = {"links": {"pages": {"next": "http://next"}}, "resources": [{"urn": "do:droplet:1"}]}
            last: Json = {"links": {}, "resources": [{"urn": "do:droplet:2"}, {"urn": "do:droplet:9"}]}
            api.on(f"GET {project}/resources", *[more, last] * 2)
            async with plugin(api.url) as it:
                inputs: Json = {"project": "p", "resources": ["do:droplet:2", "do:droplet:1"]}
                made = (await it.create("ProjectResources", **inputs))["response"]["properties"]
                new: Json = {"project": "p", "resources": ["do:droplet:2"]}
                await it.update("ProjectResources", "p", made, new)
                await it.delete("ProjectResources", "p", **new)
        assert made["resources"] == ["do:droplet:1", "do:droplet:2"]
        assert [(request, body) for request, body in api.requests if body] == [
            (f"POST {project}/resources", {"resources": ["do:droplet:1", "do:droplet:2"]}),
            ("POST /v2/projects/d/resources", {"resources": ["do:droplet:1"]}),
            ("POST /v2/projects/d/resources", {"resources": ["do:droplet:2"]}),
        ]

    run(scenario)


PATHS = {
    "Vpc": ("v", "/v2/vpcs/v"),
    "Tag": ("t", "/v2/tags/t"),
    "SshKey": ("3", "/v2/account/keys/3"),
    "Firewall": ("f", "/v2/firewalls/f"),
    "ReservedIp": (ADDRESS, f"/v2/reserved_ips/{ADDRESS}"),
    "LoadBalancer": ("b", "/v2/load_balancers/b"),
    "DnsRecord": ("4", "/v2/domains/example.com/records/4"),
}


@pytest.mark.parametrize("kind", PATHS)
def test_what_is_gone(kind: str) -> None:
    """A refresh says so; to delete it again is an error for all but two."""
    id, path = PATHS[kind]
    properties: Json = {"name": "n", "domain": "example.com"} if kind == "DnsRecord" else {"name": "n"}

    async def scenario() -> None:
        with script() as api:
            async with plugin(api.url) as it:
                assert "id" not in await it.read(kind, id, properties, properties)
                answer = await it.delete(kind, id, **properties)
        assert api.asked == [f"GET {path}", f"DELETE {path}"]
        if kind in ("LoadBalancer", "DnsRecord"):
            assert answer == {"response": {}}
        else:
            assert "404 The resource was not found." in answer["errors"][0]

    run(scenario)


def test_refresh_shows_what_has_changed_and_no_more() -> None:
    async def scenario() -> None:
        with script() as api:
            async with plugin(api.url) as it:
                inputs: Json = {
                    **DROPLET,
                    "tags": ["a"],
                    "userData": "secret",
                    "sshKeys": ["1"],
                    "monitoring": True,
                    "__defaults": [],
                }
                old = await made(it, api, tags=["a"], userData="secret", sshKeys=["1"])
                api.on("GET /v2/droplets/7", droplet(name="renamed", tags=["b"], status="off"))
                answer = await it.read("Droplet", "7", old, inputs)
        assert answer["id"] == "7"
        assert answer["properties"]["status"] == "off"
        assert answer["inputs"] == {
            **DROPLET,
            "name": "renamed",
            "tags": [],
            "userData": "secret",
            "sshKeys": ["1"],
            "monitoring": False,
        }

    run(scenario)


def test_requests_are_repeated() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/tags", LOST, UNAVAILABLE, (500, {}), (201, {"tag": {"name": "t"}}))
            api.on("GET /v2/tags/t", tag_counts())
            async with plugin(api.url) as it:
                answer = await it.create("Tag", name="t")
        assert "errors" not in answer
        assert api.asked == [*["POST /v2/tags"] * 4, "GET /v2/tags/t"]
        assert it.clock.slept == [1, 2, 4]

    run(scenario)


def tag_counts(**more: Any) -> Json:
    kinds = ("droplets", "images", "volumes", "volume_snapshots", "databases")
    return {"tag": {"name": "t", "resources": {"count": 0, **{kind: {"count": 0} for kind in kinds}, **more}}}


@pytest.mark.parametrize(
    ("answer", "headers", "times", "slept", "error"),
    [
        (
            (429, {"message": "slow"}),
            {"retry-after": "7"},
            5,
            [7] * 4,
            ": 429 slow; giving up after 5 attempt",
        ),
        ((429, {"message": "slow"}), {}, 5, [1, 2, 4, 8], ": 429 slow"),
        ((502, {"message": "bad"}), {"retry-after": "7"}, 5, [1, 2, 4, 8], ": 502 bad; giving up"),
        ((501, {"message": "no"}), {}, 1, [], ": 501 no"),
        ((422, {"message": "no", "request_id": "r"}), {}, 1, [], ': 422 (request "r") no'),
        ((401, {"id": "unauthorized", "message": "Unable"}), {}, 1, [], ": 401 Unable"),
        (NOT_FOUND, {"x-request-id": "x"}, 1, [], ': 404 (request "x") The resource was not found.'),
    ],
)
def test_requests_that_fail(answer: Any, headers: Json, times: int, slept: list[float], error: str) -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/tags", answer)
            api.headers = headers
            async with plugin(api.url) as it:
                failure = await it.create("Tag", name="t")
        assert (
            f"1 error occurred:\n\t* Error creating tag: POST {api.url}/v2/tags{error}"
            in failure["errors"][0]
        )
        assert len(api.asked) == times
        assert it.clock.slept == slept

    run(scenario)


def test_retries_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITALOCEAN_HTTP_RETRY_WAIT_MAX", "3")
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", TOKEN)

    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/tags", UNAVAILABLE)
            config: Json = {"token": None, "httpRetryMax": "2", "httpRetryWaitMin": "2"}
            async with plugin(api.url, **config) as it:
                await it.create("Tag", name="t")
            assert it.clock.slept == [2, 3]

    run(scenario)


def test_requests_a_second() -> None:
    clock = SkippingClock()

    async def scenario() -> None:
        with script() as api:
            api.on("GET /v2/tags/t", tag_counts())
            config: Json = {"token": TOKEN, "apiEndpoint": api.url, "requestsPerSecond": "4"}
            spaced = Api(Settings.from_config(config), clock)
            await asyncio.gather(*(spaced.call("tags.get", "t") for _ in range(4)))
        assert sorted(clock.slept) == [0.25, 0.5, 0.75]

    run(scenario)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"tokens": "x"}, "unknown key 'tokens'"),
        ({"httpRetryMax": "many"}, "httpRetryMax is not a number"),
        ({"apiEndpoint": "http://127.0.0.1:1/api"}, "has a path"),
    ],
)
def test_configuration_that_is_refused(config: Json, reason: str) -> None:
    async def scenario() -> None:
        async with serving(DigitalOceanProvider(EngineLog(None)), VERSION) as stub:
            provider = "urn:pulumi:dev::rec::pulumi:providers:digitalocean::default"
            request: Json = {"urn": provider, "olds": {}, "news": {"version": VERSION, **config}}
            answer = await ask(stub, "CheckConfig", request)
        [failure] = answer["response"]["failures"]
        assert reason in failure["reason"]

    run(scenario)


def test_cancel_ends_a_wait_and_keeps_what_is_made() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/droplets", (202, droplet("new")))
            provider = DigitalOceanProvider(EngineLog(None), Clock())
            async with serving(provider, VERSION) as stub:
                await ask(stub, "Configure", {"args": {"apiEndpoint": api.url, "token": TOKEN}})
                it = Plugin(stub, SkippingClock())
                request = it.half_made("Create", urn=urn("Droplet"), properties=DROPLET)
                waiting = asyncio.create_task(request)
                begin = time.monotonic()
                while not api.asked:
                    assert time.monotonic() < begin + 5
                    await asyncio.sleep(0.01)
                await stub.Cancel(empty_pb2.Empty())
                id, _, reason = await waiting
        assert time.monotonic() < begin + 5
        assert id == "7"
        assert reason.endswith("to become ready: canceled\n\n")

    run(scenario)


def test_answer_that_would_crash_the_official_plugin() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/tags", (201, {"tag": {"name": "t"}}))
            api.on("GET /v2/tags/t", tag_counts(images=None))
            async with plugin(api.url) as it:
                id, _, reason = await it.half_made("Create", urn=urn("Tag"), properties={"name": "t"})
        assert id == "t"
        assert "crashes here" in reason

    run(scenario)
