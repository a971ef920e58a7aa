"""The digitalocean stand-in makes, reads, changes and ends what is around droplets as the official does."""

from __future__ import annotations

import pytest

from tests.plugins.command_host import run
from tests.plugins.digitalocean_script import (
    CREATED,
    DROPLET,
    ENDED,
    NOT_FOUND,
    droplet,
    made_droplet,
    plugin,
    script,
    urn,
)
from tests.plugins.replay import Json

BUSY = (409, {"id": "conflict", "message": "Can not delete VPC with members"})


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
                old = await made_droplet(it, api, tags=["a"], userData="secret", sshKeys=["1"])
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
