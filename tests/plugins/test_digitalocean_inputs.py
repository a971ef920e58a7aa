"""What the digitalocean stand-in says of inputs: what is wrong with them, and what a change of them means."""

from __future__ import annotations

import re
from typing import Any

import pulumi_digitalocean
import pytest
from pulumi._types import input_type_py_to_pulumi_names

from lab.plugins.common import UNKNOWN
from lab.plugins.digitalocean.provider import RESOURCES
from lab.plugins.digitalocean.resource import Resource
from tests.plugins.command_host import run
from tests.plugins.digitalocean_script import plugin
from tests.plugins.replay import Json

DROPLET: Json = {"image": "debian-12-x64", "size": "s-1vcpu-2gb", "name": "web"}
SSH: Json = {"protocol": "tcp", "portRange": "22", "sourceAddresses": ["10.0.0.0/8"]}
FORWARDING: Json = {"entryProtocol": "tcp", "entryPort": 6443, "targetProtocol": "tcp", "targetPort": 6443}
BALANCER: Json = {"region": "fra1", "forwardingRules": [FORWARDING]}
SWITCHES = ("redirectHttpToHttps", "enableProxyProtocol", "enableBackendKeepalive")
HEALTH: Json = {"protocol": "https", "port": 6443, "path": "/readyz"}


@pytest.mark.parametrize("kind", RESOURCES, ids=lambda kind: kind.__name__)
def test_properties_are_those_of_the_sdk(kind: type[Resource]) -> None:
    module = __import__(f"pulumi_digitalocean.{snake(kind.__name__)}", fromlist=["*"])
    inputs = input_type_py_to_pulumi_names(getattr(module, f"{kind.__name__}Args"))
    state = input_type_py_to_pulumi_names(getattr(module, f"_{kind.__name__}State"))
    assert kind.fields.keys() == {*state.values()}
    assert {name for name, known in kind.fields.items() if not known.output} == {*inputs.values()}
    assert getattr(pulumi_digitalocean, kind.__name__).pulumi_type == kind.token
    for name, known in kind.fields.items():
        inner = known.element if known.element is not None else known
        part = f"{kind.__name__}{name[0].upper()}{name[1:].removesuffix('s')}Args"
        nested = getattr(pulumi_digitalocean, part, None) or getattr(
            pulumi_digitalocean, f"{kind.__name__}{name[0].upper()}{name[1:]}Args", None
        )
        if inner.type == "object" and not known.output and not known.unserved:
            assert nested is not None, part
            assert inner.fields.keys() == {*input_type_py_to_pulumi_names(nested).values()}


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize(
    ("kind", "news", "inputs"),
    [
        ("Droplet", DROPLET, DROPLET | {"resizeDisk": True, "__defaults": ["resizeDisk"]}),
        (
            "LoadBalancer",
            BALANCER | {"name": "api", "healthcheck": HEALTH},
            BALANCER
            | {
                "name": "api",
                "healthcheck": HEALTH
                | {
                    "checkIntervalSeconds": 10,
                    "responseTimeoutSeconds": 5,
                    "unhealthyThreshold": 3,
                    "healthyThreshold": 5,
                },
                "__defaults": [],
            },
        ),
        ("Vpc", {"name": "n", "region": UNKNOWN}, {"name": "n", "region": UNKNOWN, "__defaults": []}),
    ],
)
def test_defaults(kind: str, news: Json, inputs: Json) -> None:
    async def scenario() -> None:
        async with plugin() as it:
            answer = await it.check(kind, **news)
        assert answer["response"] == {"inputs": inputs}

    run(scenario)


def test_name_is_made_up_once() -> None:
    async def scenario() -> None:
        async with plugin() as it:
            first = (await it.check("SshKey", publicKey="k"))["response"]["inputs"]
            assert re.fullmatch("it-[0-9a-f]{7}", first["name"])
            assert first["__defaults"] == ["name"]
            again = await ask_again(it.stub, first, {"publicKey": "k"})
            assert again["name"] == first["name"]
            given = first | {"name": "mine", "__defaults": []}
            assert (await ask_again(it.stub, given, {"publicKey": "k"}))["name"] != "mine"

    run(scenario)


async def ask_again(stub: Any, olds: Json, news: Json) -> Json:
    from tests.plugins.digitalocean_script import urn
    from tests.plugins.replay import ask

    answer = await ask(stub, "Check", {"urn": urn("SshKey"), "olds": olds, "news": news})
    return dict(answer["response"]["inputs"])


@pytest.mark.parametrize(
    ("kind", "news", "property", "reason"),
    [
        ("Droplet", DROPLET | {"flavor": "x"}, "flavor", "Invalid or unknown key"),
        ("Droplet", DROPLET | {"status": "active"}, "status", "Invalid or unknown key"),
        ("Droplet", {"size": "s"}, "image", "'image' is required"),
        ("Droplet", DROPLET | {"image": 12}, "image", "expected type 'string'"),
        ("Droplet", DROPLET | {"sshKeys": [""]}, "sshKeys[0]", "must not be empty"),
        ("Droplet", DROPLET | {"tags": ["a b"]}, "tags[0]", "may contain letters"),
        ("Droplet", DROPLET | {"backupPolicy": {"plan": "daily"}}, "backupPolicy", "must be specified"),
        ("Droplet", DROPLET | {"ipv6": "yes"}, "ipv6", "expected type 'boolean'"),
        ("Vpc", {"region": "fra1", "ipRange": "10.0.0.0"}, "ipRange", "expected to be a CIDR"),
        ("Vpc", {"region": "fra1", "description": "x" * 256}, "description", "range (0 - 255)"),
        ("Tag", {"name": "a b"}, "name", "may contain letters"),
        ("Firewall", {"dropletIds": ["7"]}, "dropletIds[0]", "expected type 'integer'"),
        ("Firewall", {"inboundRules": [{}]}, "inboundRules[0].protocol", "is required"),
        ("Firewall", {"inboundRules": [{"protocol": "gre"}]}, "inboundRules[0].protocol", "one of tcp"),
        ("Firewall", {"inboundRules": [SSH | {"source": "a"}]}, "inboundRules[0].source", "unknown key"),
        (
            "LoadBalancer",
            BALANCER | {"dropletIds": [1], "dropletTag": "t"},
            "dropletIds",
            "conflicts with droplet_tag",
        ),
        ("LoadBalancer", {"region": "fra1", "forwardingRules": []}, "forwardingRules", "1 item minimum"),
        (
            "LoadBalancer",
            {"forwardingRules": [FORWARDING | {"certificateName": "c"}]},
            "forwardingRules[0].certificateName",
            "not in the lab's stand-in",
        ),
        (
            "LoadBalancer",
            BALANCER | {"healthcheck": HEALTH | {"healthyThreshold": 1}},
            "healthcheck.healthyThreshold",
            "range (2 - 10)",
        ),
        ("DnsRecord", {"domain": "d", "type": "PTR", "value": "v"}, "type", "expected to be one of A"),
        ("ReservedIpAssignment", {"ipAddress": "x", "dropletId": 1}, "ipAddress", "valid IPv4 address"),
        ("ReservedIpAssignment", {"ipAddress": "1.2.3.4", "dropletId": 1.5}, "dropletId", "'integer'"),
        ("ProjectResources", {"resources": []}, "project", "is required"),
    ],
)
def test_check_refuses(kind: str, news: Json, property: str, reason: str) -> None:
    async def scenario() -> None:
        async with plugin() as it:
            answer = await it.check(kind, **news)
        [failure] = answer["response"]["failures"]
        assert failure["property"] == property
        assert reason in failure["reason"]

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "news", "error"),
    [
        ("Firewall", {"name": "f"}, "At least one rule must be specified"),
        ("Firewall", {"name": "f", "inboundRules": UNKNOWN}, "At least one rule must be specified"),
        (
            "Firewall",
            {"name": "f", "outboundRules": [{"protocol": "udp"}]},
            "`port_range` of outbound rules is required",
        ),
        (
            "LoadBalancer",
            BALANCER | {"healthcheck": {"protocol": "https", "port": 1}},
            "`path` is required for when protocol is `https`",
        ),
        (
            "LoadBalancer",
            BALANCER | {"healthcheck": {"protocol": "tcp", "port": 1, "path": "/"}},
            "`path` is not allowed",
        ),
        ("LoadBalancer", {"forwardingRules": [FORWARDING]}, "missing 'region' value"),
        ("LoadBalancer", {"type": "REGIONAL"}, "'region' must be set"),
        ("DnsRecord", {"domain": "d", "type": "MX", "value": "v"}, "`priority` is required"),
    ],
)
def test_plans_that_are_refused_in_a_preview(kind: str, news: Json, error: str) -> None:
    async def scenario() -> None:
        async with plugin() as it:
            answer = await it.create(kind, preview=True, **news)
        assert error in answer["errors"][0]

    run(scenario)


def test_preview_needs_neither_network_nor_token() -> None:
    """Nobody listens on the port that the plugin is given here."""

    async def scenario() -> None:
        async with plugin(token=None) as it:
            answer = await it.create("Droplet", preview=True, userData="secret", ipv6=True, **DROPLET)
        properties = answer["response"]["properties"]
        assert answer["response"].keys() == {"properties"}, "no id"
        assert {name for name, value in properties.items() if value == UNKNOWN} == {
            *("createdAt", "disk", "dropletUrn", "ipv4Address", "ipv4AddressPrivate", "locked", "memory"),
            *("priceHourly", "priceMonthly", "status", "vcpus"),
            *("ipv6Address", "privateNetworking", "publicNetworking", "region", "volumeIds", "vpcUuid"),
        }
        assert properties["userData"] == "e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4"
        assert properties.pop("__meta")
        assert (properties["image"], properties["size"]) == ("debian-12-x64", "s-1vcpu-2gb")

    run(scenario)


STATE: Json = {
    **DROPLET,
    "region": "fra1",
    "backups": False,
    "ipv6": False,
    "monitoring": False,
    "resizeDisk": True,
    "gracefulShutdown": False,
    "publicNetworking": True,
    "privateNetworking": True,
    "vpcUuid": "v",
    "sshKeys": ["1", "2"],
    "userData": "e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4",
    "tags": ["a"],
    "volumeIds": [],
}
"""A droplet, as it is in the state."""

BALANCER_STATE: Json = {
    **BALANCER,
    **dict.fromkeys((*SWITCHES, "disableLetsEncryptDnsRecords"), False),
    "name": "l",
    "algorithm": "round_robin",
    "sizeUnit": 1,
}

FIREWALL: Json = {"name": "f", "inboundRules": [SSH], "outboundRules": []}


@pytest.mark.parametrize(
    ("kind", "old", "new", "changes"),
    [
        ("Droplet", STATE, DROPLET | {"userData": "secret", "sshKeys": ["2", "1"], "tags": ["a"]}, {}),
        (
            "Droplet",
            STATE,
            DROPLET | {"size": "S-1VCPU-2GB", "userData": "secret", "sshKeys": ["1", "2"], "tags": ["a"]},
            {},
        ),
        (
            "Droplet",
            STATE,
            DROPLET | {"userData": "other", "sshKeys": ["1", "3"], "tags": ["a"]},
            {"userData": "UPDATE_REPLACE", "sshKeys[1]": "UPDATE_REPLACE"},
        ),
        (
            "Droplet",
            STATE,
            DROPLET | {"name": "w", "size": "s-2vcpu-2gb", "userData": "secret", "sshKeys": ["1", "2"]},
            {"name": "UPDATE", "size": "UPDATE", "tags": "DELETE"},
        ),
        ("Droplet", {**STATE, "ipv6": True}, {**STATE, "userData": "secret"}, {"ipv6": "UPDATE_REPLACE"}),
        ("Droplet", STATE, {**STATE, "userData": "secret", "ipv6": True}, {"ipv6": "UPDATE"}),
        (
            "Droplet",
            STATE,
            {**STATE, "userData": "secret", "dropletAgent": False},
            {"dropletAgent": "ADD_REPLACE"},
        ),
        ("Droplet", STATE, {**STATE, "userData": "secret", "image": UNKNOWN}, {"image": "UPDATE_REPLACE"}),
        ("Firewall", FIREWALL, {"name": "f", "inboundRules": [{**SSH, "sourceTags": []}]}, {}),
        (
            "Firewall",
            FIREWALL,
            {"name": "f", "inboundRules": [{"protocol": "icmp"}, SSH]},
            {"inboundRules[0]": "ADD"},
        ),
        (
            "Firewall",
            FIREWALL,
            {"name": "f", "inboundRules": [{**SSH, "portRange": "23", "sourceAddresses": ["10.0.0.0/9"]}]},
            {"inboundRules[0].portRange": "UPDATE", "inboundRules[0].sourceAddresses[0]": "UPDATE"},
        ),
        (
            "SshKey",
            {"name": "k", "publicKey": "ssh-ed25519 A"},
            {"name": "k", "publicKey": "ssh-ed25519 A\n"},
            {},
        ),
        ("SshKey", {"name": "k", "publicKey": "A"}, {"name": "l", "publicKey": "A"}, {"name": "UPDATE"}),
        ("Tag", {"name": "a"}, {"name": "b"}, {"name": "UPDATE_REPLACE"}),
        ("Vpc", {"name": "v", "region": "fra1", "description": ""}, {"name": "v", "region": "fra1"}, {}),
        (
            "LoadBalancer",
            {**BALANCER_STATE, "dropletTag": "Web"},
            {**BALANCER, "name": "l", "dropletTag": "web", "size": "lb-small"},
            {},
        ),
        (
            "LoadBalancer",
            {**BALANCER_STATE, "algorithm": ""},
            {**BALANCER, "name": "l", "vpcUuid": "v"},
            {"algorithm": "UPDATE", "vpcUuid": "ADD_REPLACE"},
        ),
        (
            "DnsRecord",
            {"name": "api", "domain": "d.io", "type": "A", "value": "1", "ttl": 1800, "port": 0},
            {"name": "api.d.io.", "domain": "d.io", "type": "A", "value": "2"},
            {"value": "UPDATE"},
        ),
    ],
)
def test_diff(kind: str, old: Json, new: Json, changes: dict[str, str]) -> None:
    async def scenario() -> None:
        async with plugin() as it:
            answer = await it.diff(kind, old, new)
        kinds = {path: change.get("kind", "ADD") for path, change in answer.get("detailedDiff", {}).items()}
        assert kinds == changes
        assert answer["changes"] == ("DIFF_SOME" if changes else "DIFF_NONE")
        replacing = {re.split(r"[.\[]", path)[0] for path, value in changes.items() if "REPLACE" in value}
        assert {*answer.get("replaces", [])} == replacing

    run(scenario)


@pytest.mark.parametrize(("defaults", "first"), [([], True), (["name"], False), (None, False)])
def test_a_given_name_means_delete_before_replace(defaults: list[str] | None, first: bool) -> None:
    async def scenario() -> None:
        async with plugin() as it:
            new: Json = {"name": "k", "publicKey": "B"} | (
                {} if defaults is None else {"__defaults": defaults}
            )
            answer = await it.diff("SshKey", {"name": "k", "publicKey": "A"}, new)
        assert answer.get("deleteBeforeReplace", False) == first

    run(scenario)


def test_an_unknown_type_is_an_error() -> None:
    async def scenario() -> None:
        async with plugin() as it:
            answer = await it.check("Project", name="p")
        assert "digitalocean:index/project:Project is not in the lab's stand-in" in answer["errors"][0]

    run(scenario)
