"""The imitation of DigitalOcean's API: what it answers, what it refuses, and what the machinery is to do."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.policies import HeadersPolicy
from hypothesis import given
from hypothesis import strategies as st
from pydo import Client

from tests.e2e.digitalocean.asked import InboundRule
from tests.e2e.digitalocean.calls import Call
from tests.e2e.digitalocean.fake_machinery import FakeMachinery, Machine
from tests.e2e.digitalocean.machinery import Rule
from tests.e2e.digitalocean.server import Api, Delays

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
    with pytest.raises(HttpResponseError) as caught:
        work()
    return caught.value.status_code or 0, caught.value.message.splitlines()[0].removeprefix("(None) ")


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


@contextmanager
def client_of(api: Api) -> Iterator[Client]:
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


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer other", f"Basic {TOKEN}"])
def test_no_answer_without_the_token(api: Api, authorization: str) -> None:
    answer = httpx.get(f"{api.endpoint}/v2/account", headers={"authorization": authorization})
    assert answer.status_code == 401
    assert answer.json()["id"] == "unauthorized"


def test_a_token_does_what_its_scopes_say_and_sees_no_more(api: Api, client: Client) -> None:
    made = active(client, tags=["a"])
    api.tokens["narrow"] = {"droplet:read", "tag:read"}
    shown = ask(api, "GET", f"/v2/droplets/{made['id']}", token="narrow").json()["droplet"]
    assert made.keys() - shown.keys() == {"image", "vpc_uuid"}
    answer = ask(api, "DELETE", f"/v2/droplets/{made['id']}", token="narrow")
    assert (answer.status_code, answer.json()["id"]) == (403, "forbidden")
    del api.tokens["narrow"]
    assert ask(api, "GET", "/v2/droplets", token="narrow").status_code == 401


def test_every_answer_has_an_id_and_the_limits(api: Api) -> None:
    answers = [ask(api, "GET", path) for path in ("/v2/sizes", "/v2/nothing", "/v2/droplets/0")]
    assert [each.status_code for each in answers] == [200, 404, 404]
    assert len({uuid.UUID(each.headers["x-request-id"]) for each in answers}) == 3
    assert [each.headers["ratelimit-remaining"] for each in answers] == ["4999", "4998", "4997"]
    assert {each.headers["ratelimit-limit"] for each in answers} == {"5000"}
    assert 3500 < int(answers[0].headers["ratelimit-reset"]) - time.time() <= 3600
    assert answers[1].json() == {
        "id": "not_found",
        "message": "The resource you requested could not be found.",
        "request_id": answers[1].headers["x-request-id"],
    }


def test_a_burst_is_told_when_to_ask_again(api: Api) -> None:
    statuses = [ask(api, "GET", "/v2/account/keys").status_code for _ in range(11)]
    assert statuses == [200] * 10 + [429]
    answer = ask(api, "GET", "/v2/account/keys")
    assert 50 < int(answer.headers["retry-after"]) <= 61
    assert ask(api, "GET", "/v2/account").status_code == 200


@given(total=st.integers(0, 30), per_page=st.integers(1, 9))
def test_pages_hold_everything_once(total: int, per_page: int) -> None:
    shown, url = [], f"https://api/v2/tags?tag_name=x&per_page={per_page}"
    for page in range(1, total + 2):
        assert httpx.URL(url).params["tag_name"] == "x"
        call = Call(
            origin="https://api",
            path="/v2/tags",
            arguments={},
            query=dict(httpx.URL(url).params),
            content=b"",
            scopes=None,
        )
        body = call.listed("tags", range(total), lambda each: each).body
        assert body is not None
        assert body["meta"] == {"total": total}
        shown += body["tags"]
        pages = body["links"].get("pages", {})
        assert ("pages" in body["links"]) == (total > per_page)
        assert {"first", "prev"} <= pages.keys() or page == 1
        if "next" not in pages:
            assert "last" not in pages
            break
        assert httpx.URL(pages["last"]).params["page"] == str(-(-total // per_page))
        url = pages["next"]
    assert shown == [*range(total)]


def test_pages_over_http(api: Api, client: Client) -> None:
    for name in "abcde":
        client.tags.create({"name": name})
    first = client.tags.list(per_page=2)
    assert first["links"]["pages"]["next"] == f"{api.endpoint}/v2/tags?per_page=2&page=2"
    assert [each["name"] for each in client.tags.list(per_page=2, page=3)["tags"]] == ["e"]
    assert client.tags.list()["links"] == {}
    for query in ("per_page=0", "per_page=201", "per_page=x", "page=0"):
        assert ask(api, "GET", f"/v2/tags?{query}").status_code == 422


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v2/droplets", {**droplet(), "size": None}, "size: Input should be a valid string"),
        ("/v2/droplets", {**droplet(), "ssh_keys": [[]]}, "ssh_keys.0"),
        ("/v2/droplets", {**droplet(), "backups": "true"}, "backups: Input should be a valid boolean"),
        ("/v2/droplets", {**droplet(), "colour": "red"}, "colour: Extra inputs are not permitted"),
        ("/v2/droplets", {**droplet(), "name": "under_score"}, "name: Only valid hostname characters"),
        ("/v2/droplets", {**droplet(), "names": ["a"]}, "name: one of name and names is needed"),
        ("/v2/droplets", {**droplet(), "region": "mars1"}, "region: You specified an invalid region"),
        ("/v2/droplets", {**droplet(), "region": "sfo1"}, "region: You specified an invalid region"),
        ("/v2/droplets", {**droplet(), "size": "s-9vcpu"}, "size: You specified an invalid size"),
        (
            "/v2/droplets",
            {**droplet(), "region": "syd1", "size": "so1_5-2vcpu-16gb"},
            "size: Size is not available in this region.",
        ),
        ("/v2/droplets", {**droplet(), "image": 7}, "image: You specified an invalid image"),
        ("/v2/droplets", {**droplet(), "image": "cp/m"}, "image: You specified an invalid image"),
        ("/v2/droplets", {**droplet(), "ssh_keys": [7, "aa:bb"]}, "ssh_keys: 7, aa:bb are invalid key ident"),
        ("/v2/droplets", {**droplet(), "user_data": "ä" * 32769}, "user_data: must not exceed 64 KiB"),
        ("/v2/droplets", {**droplet(), "tags": ["no spaces"]}, "tags.0: String should match pattern"),
        ("/v2/droplets", {**droplet(), "vpc_uuid": NOBODY}, f"vpc_uuid: there is no VPC {NOBODY} in fra1"),
        ("/v2/droplets", {**droplet(), "ipv6": True, "public_networking": False}, "ipv6: must be false"),
        ("/v2/droplets", {**droplet(), "name": None, "names": [*"abcd"]}, "creating this/these droplet(s)"),
        ("/v2/account/keys", {"name": "n", "public_key": "ssh-rsa x"}, "public_key: Key invalid"),
        ("/v2/account/keys", {"name": "n", "public_key": KEY.replace("ssh-ed", "ssh-xx")}, "public_key: Key"),
        ("/v2/vpcs", {"name": "a_b", "region": "fra1"}, "name: String should match pattern"),
        ("/v2/vpcs", {"name": "v", "region": "mars1"}, "region: mars1 is not a region"),
        ("/v2/vpcs", {"name": "v", "region": "fra1", "ip_range": "10.1.0.1/24"}, "ip_range: 10.1.0.1/24 has"),
        ("/v2/vpcs", {"name": "v", "region": "fra1", "ip_range": "10.0.0.0/15"}, "ip_range: must not be"),
        (
            "/v2/vpcs",
            {"name": "v", "region": "fra1", "ip_range": "8.8.8.0/24"},
            "ip_range: must be in the pr",
        ),
        ("/v2/vpcs", {"name": "v", "region": "fra1", "ip_range": "10.244.0.0/24"}, "ip_range: overlaps with"),
        ("/v2/vpcs", {"name": "v", "region": "fra1", "ip_range": "10.104.0.0/24"}, "ip_range: This range/si"),
        ("/v2/vpcs", {"name": "default-fra1", "region": "fra1"}, "name: VPC names must be unique"),
        ("/v2/firewalls", {"name": "f"}, "name: String should match"),
        ("/v2/firewalls", {"name": "fw"}, "inbound_rules and outbound_rules: must be 1 to 50 together"),
        (
            "/v2/firewalls",
            {"name": "fw", "inbound_rules": [SSH, SSH]},
            "inbound_rules or outbound_rules: dup",
        ),
        (
            "/v2/firewalls",
            {"name": "fw", "inbound_rules": [{**SSH, "ports": "9-8"}]},
            "inbound_rules.0.ports",
        ),
        ("/v2/firewalls", {"name": "fw", "inbound_rules": [{**SSH, "ports": 22}]}, "inbound_rules.0.ports"),
        (
            "/v2/firewalls",
            {"name": "fw", "inbound_rules": [{**SSH, "ports": None}]},
            "inbound_rules.0: You m",
        ),
        (
            "/v2/firewalls",
            {"name": "fw", "inbound_rules": [{**SSH, "protocol": "icmp"}]},
            "inbound_rules.0: p",
        ),
        (
            "/v2/firewalls",
            {"name": "fw", "inbound_rules": [{**SSH, "sources": {}}]},
            "inbound_rules.0.sources",
        ),
        ("/v2/firewalls", {"name": "fw", "outbound_rules": [SSH]}, "outbound_rules.0.destinations"),
        (
            "/v2/firewalls",
            {"name": "fw", "inbound_rules": [SSH], "tags": ["x"]},
            "tags: tag x does not exist",
        ),
        (
            "/v2/firewalls",
            {"name": "fw", "inbound_rules": [SSH], "droplet_ids": [7]},
            "droplet_ids: droplet 7",
        ),
        (
            "/v2/firewalls",
            {"name": "fw", "inbound_rules": [{**SSH, "sources": {"tags": ["x"]}}]},
            "inbound_rules.sources.tags: tag x does not exist",
        ),
        (
            "/v2/firewalls",
            {"name": "fw", "inbound_rules": [{**SSH, "sources": {"load_balancer_uids": ["x"]}}]},
            "inbound_rules.sources.load_balancer_uids: load balancer x does not exist",
        ),
        ("/v2/load_balancers", balancer(region="mars1"), "region: mars1 is not a region"),
        ("/v2/load_balancers", balancer(forwarding_rules=[]), "forwarding_rules: List should"),
        ("/v2/load_balancers", balancer(tag="x", droplet_ids=[7]), "droplet_ids and tag: only one"),
        ("/v2/load_balancers", balancer(tag="x"), "tag: tag x does not exist"),
        ("/v2/load_balancers", balancer(droplet_ids=[7]), "droplet_ids: droplet 7 does not exist"),
        ("/v2/load_balancers", balancer(project_id=NOBODY), f"project_id: there is no project {NOBODY}"),
        (
            "/v2/load_balancers",
            balancer(forwarding_rules=[{**FORWARDING, "entry_port": 50053}]),
            "forwarding_rules.0: entry_port: 50053 is reserved",
        ),
        ("/v2/load_balancers", balancer(health_check={"protocol": "tcp", "path": "/"}), "health_check: path"),
        (
            "/v2/load_balancers",
            balancer(firewall={"allow": ["1.2.3.4"]}),
            "firewall.allow.0: must begin with",
        ),
        ("/v2/tags", {"name": "no spaces"}, "name: String should match pattern"),
        ("/v2/domains", {"name": "nodots"}, "name: must be a domain"),
        ("/v2/reserved_ips", {}, "region: one of region and droplet_id is needed"),
        ("/v2/reserved_ips", {"droplet_id": 7}, "droplet_id: droplet 7 does not exist"),
        ("/v2/projects", {"name": "p"}, "purpose: Field required"),
        (
            "/v2/projects",
            {"name": "p", "purpose": "x", "environment": "Moon"},
            "environment: Input should be",
        ),
    ],
)
def test_what_is_wrong_is_named(empty_api: Api, path: str, body: Json, message: str) -> None:
    answer = ask(empty_api, "POST", path, body)
    assert (answer.status_code, answer.json()["id"]) == (422, "unprocessable_entity")
    assert answer.json()["message"].startswith(message)
    assert empty_api.everything() == {}


def test_a_body_that_is_no_json(api: Api) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(f"{api.endpoint}/v2/tags", content=b"{", headers=headers)
    assert (answer.status_code, answer.json()["id"]) == (400, "bad_request")


def test_a_droplet_from_order_to_end(api: Api, client: Client, machinery: FakeMachinery) -> None:
    key = client.ssh_keys.create({"name": "k", "public_key": f"{KEY} me"})["ssh_key"]
    machinery.booting.clear()
    answer = client.droplets.create(
        droplet(
            ssh_keys=[key["fingerprint"], key["id"]],
            user_data="#cloud-config",
            tags=["b", "a"],
            monitoring=True,
        )
    )
    made, (link,) = answer["droplet"], answer["links"]["actions"]
    assert (made["status"], made["locked"], made["networks"]) == ("new", True, {"v4": [], "v6": []})
    assert (link["rel"], link["href"]) == ("create", f"{api.endpoint}/v2/actions/{link['id']}")
    assert client.actions.get(link["id"])["action"]["status"] == "in-progress"
    assert client.actions.get(link["id"])["action"]["completed_at"] is None
    assert refused(lambda: client.droplets.destroy(made["id"]))[0] == 422

    machinery.booting.set()
    until(lambda: client.actions.get(link["id"])["action"]["status"] == "completed")
    found = client.droplets.get(made["id"])["droplet"]
    assert (found["status"], found["locked"], found["tags"]) == ("active", False, ["b", "a"])
    assert found["features"] == ["monitoring", "private_networking"]
    assert {each["type"]: each["gateway"] for each in found["networks"]["v4"]} == {
        "public": "172.30.200.1",
        "private": "nil",
    }
    assert (address(found, "public"), address(found, "private")) == ("172.30.200.2", "10.104.0.2")
    booted = machine(machinery, found).droplet
    assert (booted.public, booted.private) == ("172.30.200.2", "10.104.0.2")
    assert (booted.authorized_keys, booted.user_data) == ((f"{KEY} me", f"{KEY} me"), "#cloud-config")
    assert client.droplet_actions.get(made["id"], link["id"])["action"]["completed_at"]
    assert api.everything() == {"droplets": ["one"], "ssh_keys": ["k"], "tags": ["a", "b"]}

    assert client.droplets.destroy(made["id"]) is None
    assert client.droplets.get(made["id"])["droplet"]["status"] == "active"  # it takes a while
    until(lambda: client.droplets.get(made["id"]).get("id") == "not_found")
    assert machinery.machines == {}


def test_droplets_are_made_by_name_and_found_by_tag_and_name(client: Client) -> None:
    answer = client.droplets.create({**droplet(tags=["Web"]), "name": None, "names": ["x", "Y"]})
    assert [each["name"] for each in answer["droplets"]] == ["x", "Y"]
    assert len({each["id"] for each in answer["links"]["actions"]}) == 2
    active(client, name="z", tags=["web"], region="fra", size="S-2VCPU-4GB", image=194382907)
    listed = {
        "tag": client.droplets.list(tag_name="Web")["droplets"],
        "name": client.droplets.list(name="y")["droplets"],
        "gpus": client.droplets.list(type="gpus")["droplets"],
    }
    assert {name: [each["name"] for each in found] for name, found in listed.items()} == {
        "tag": ["x", "Y", "z"],
        "name": ["Y"],
        "gpus": [],
    }
    found = listed["tag"][-1]
    assert (found["region"]["slug"], found["size_slug"], found["size"]["memory"]) == (
        "fra1",
        "s-2vcpu-4gb",
        4096,
    )
    assert (found["tags"], found["image"]["slug"]) == (["Web"], "debian-12-x64")
    assert refused(lambda: client.droplets.create(droplet(name="w")))[0] == 422  # the limit is 3

    until(lambda: not any(each["locked"] for each in client.droplets.list()["droplets"]))
    client.droplets.destroy_by_tag(tag_name="Web")
    until(lambda: client.droplets.list()["droplets"] == [])
    client.droplets.destroy_by_tag(tag_name="Web")


def test_power_and_size(client: Client, machinery: FakeMachinery) -> None:
    made = active(client)

    def act(**fields: object) -> Json:
        action: Json = client.droplet_actions.post(made["id"], fields)["action"]
        until(lambda: client.actions.get(action["id"])["action"]["status"] == "completed")
        found: Json = client.droplets.get(made["id"])["droplet"]
        return found

    def refusal(**fields: object) -> tuple[int, str]:
        return refused(lambda: client.droplet_actions.post(made["id"], fields))

    assert refusal(type="power_on") == (422, "Droplet is already powered on.")
    assert refusal(type="resize", size="s-2vcpu-4gb")[1].startswith("Droplet must be powered off")
    assert refusal(type="snapshot")[0] == 422
    assert act(type="power_off")["status"] == "off"
    assert not machine(machinery, made).running
    assert refusal(type="shutdown") == (422, "Droplet is already powered off.")
    assert refusal(type="resize", size="s-1vcpu-1gb")[1].startswith(
        "size: This size is not available because"
    )
    resized = act(type="resize", size="s-2vcpu-4gb", disk=False)
    assert (resized["size_slug"], resized["disk"], resized["memory"]) == ("s-2vcpu-4gb", 50, 4096)
    assert act(type="resize", size="s-4vcpu-8gb", disk=True)["disk"] == 160
    assert act(type="power_on")["status"] == "active"
    machine(machinery, made).running = False  # halted from within
    assert client.droplets.get(made["id"])["droplet"]["status"] == "off"
    assert act(type="power_cycle")["status"] == "active"
    assert act(type="reboot")["status"] == "active"
    assert act(type="rename", name="other")["name"] == "other"
    assert act(type="rebuild", image="ubuntu-24-04-x64")["image"]["slug"] == "ubuntu-24-04-x64"
    assert "backups" in act(type="enable_backups", backup_policy={"plan": "daily", "hour": 4})["features"]
    assert client.droplets.get(made["id"])["droplet"]["next_backup_window"]["start"].endswith("T00:00:00Z")
    assert "backups" not in act(type="disable_backups")["features"]
    assert act(type="enable_ipv6")["networks"]["v6"][0]["type"] == "public"
    assert len(client.droplet_actions.list(made["id"])["actions"]) == 12


def test_one_action_at_a_time(api: Api, client: Client, machinery: FakeMachinery) -> None:
    made = active(client)
    with api.faults.hold_action("power_off", made["id"]):
        action = client.droplet_actions.post(made["id"], {"type": "power_off"})["action"]["id"]
        until(lambda: not machine(machinery, made).running)
        assert client.droplets.get(made["id"])["droplet"]["status"] == "active"
        assert client.droplets.get(made["id"])["droplet"]["locked"]
        for again in (
            lambda: client.droplet_actions.post(made["id"], {"type": "power_off"}),
            lambda: client.droplets.destroy(made["id"]),
            lambda: client.reserved_ips.create({"droplet_id": made["id"]}),
        ):
            assert refused(again) == (422, "Droplet already has a pending event.")
        assert client.actions.get(action)["action"]["status"] == "in-progress"
    until(lambda: client.droplets.get(made["id"])["droplet"]["status"] == "off")


def test_keys(client: Client) -> None:
    made = client.ssh_keys.create({"name": "k", "public_key": f"{KEY} me\n"})["ssh_key"]
    blob = base64.b64decode(KEY.split()[1])
    assert made["fingerprint"] == hashlib.md5(blob, usedforsecurity=False).digest().hex(":")
    assert made["public_key"] == f"{KEY} me"
    assert refused(lambda: client.ssh_keys.create({"name": "again", "public_key": KEY})) == (
        422,
        "public_key: SSH Key is already in use on your account",
    )
    assert client.ssh_keys.update(made["id"], {"name": "new"})["ssh_key"]["name"] == "new"
    assert client.ssh_keys.get(made["fingerprint"])["ssh_key"]["id"] == made["id"]
    client.ssh_keys.delete(made["fingerprint"])
    assert client.ssh_keys.list()["ssh_keys"] == []


def test_the_first_vpc_of_a_region_is_its_default_for_good(machinery: FakeMachinery) -> None:
    with Api(machinery, token=TOKEN, delays=FAST) as api, client_of(api) as client:
        first = client.vpcs.create({"name": "first", "region": "nyc1"})["vpc"]
        second = client.vpcs.create({"name": "second", "region": "nyc1", "ip_range": "10.1.0.0/16"})["vpc"]
        assert (first["default"], second["default"]) == (True, False)
        assert first["ip_range"].endswith("/20")
        assert machinery.networks == {first["id"]: first["ip_range"], second["id"]: "10.1.0.0/16"}
        assert refused(lambda: client.vpcs.delete(first["id"]))[0] == 403
        assert refused(lambda: client.vpcs.patch(first["id"], {"default": False}))[0] == 422
        client.vpcs.update(second["id"], {"name": "second", "default": True})
        assert not client.vpcs.get(first["id"])["vpc"]["default"]
        client.vpcs.delete(first["id"])
        assert api.everything() == {"vpcs": ["second"]}
        assert machinery.networks == {second["id"]: "10.1.0.0/16"}


def test_a_droplet_leaves_its_vpc_after_its_end(machinery: FakeMachinery) -> None:
    delays = Delays(create=0, destroy=0, leave=0.2)
    with Api(machinery, token=TOKEN, delays=delays, default_vpcs=["fra1"]) as api, client_of(api) as client:
        vpc = client.vpcs.create({"name": "v", "region": "fra1", "ip_range": "192.168.7.0/28"})["vpc"]
        made = active(client, vpc_uuid=vpc["id"])
        assert address(made, "private") == "192.168.7.2"
        assert client.vpcs.list_members(vpc["id"], resource_type="droplet")["members"] == [
            {"urn": f"do:droplet:{made['id']}", "name": "one", "created_at": made["created_at"]}
        ]
        client.droplets.destroy(made["id"])
        until(lambda: client.droplets.get(made["id"]).get("id") == "not_found")
        assert refused(lambda: client.vpcs.delete(vpc["id"])) == (409, "Can not delete VPC with members")
        until(lambda: client.vpcs.list_members(vpc["id"])["members"] == [])
        client.vpcs.delete(vpc["id"])
        assert api.everything() == {}


def test_who_names_no_vpc_gets_the_default_one(client: Client, machinery: FakeMachinery) -> None:
    assert client.vpcs.list()["meta"]["total"] == 1
    made = active(client, region="ams3")
    vpc = client.vpcs.get(made["vpc_uuid"])["vpc"]
    assert (vpc["name"], vpc["default"], vpc["region"]) == ("default-ams3", True, "ams3")
    assert vpc["ip_range"] == "10.104.16.0/20"
    elsewhere = active(client, name="two")["vpc_uuid"]
    assert refused(lambda: client.droplets.create(droplet(region="ams3", vpc_uuid=elsewhere)))[0] == 422


def test_tags(client: Client) -> None:
    made = active(client, tags=["PROD"])
    assert client.tags.create({"name": "prod"})["tag"]["name"] == "PROD"  # it is there already
    assert client.tags.get("prod")["id"] == "not_found"
    resources = {"resources": [{"resource_id": str(made["id"]), "resource_type": "droplet"}]}
    client.tags.create({"name": "new"})
    client.tags.assign_resources("new", resources)
    tagged = client.tags.get("new")["tag"]["resources"]
    assert tagged["count"] == tagged["droplets"]["count"] == 1
    assert tagged["last_tagged_uri"].endswith(f"/v2/droplets/{made['id']}")
    assert {kind: tagged[kind] for kind in ("images", "volumes", "volume_snapshots", "databases")} == {
        kind: {"count": 0} for kind in ("images", "volumes", "volume_snapshots", "databases")
    }
    client.tags.unassign_resources("new", resources)
    client.tags.delete("PROD")
    assert client.droplets.get(made["id"])["droplet"]["tags"] == []


def test_firewalls_of_a_droplet_add_up(client: Client, machinery: FakeMachinery) -> None:
    client.tags.create({"name": "node"})
    open_one, one, two = active(client), active(client, name="a", tags=["node"]), active(client, name="b")
    assert machine(machinery, one).inbound is None
    icmp = {"protocol": "icmp", "sources": {"tags": ["node"], "droplet_ids": [two["id"]]}}
    fields = {"inbound_rules": [SSH, icmp], "outbound_rules": [OUT], "tags": ["node"]}
    answer = client.firewalls.create({"name": "one", **fields})["firewall"]
    assert answer["status"] == "waiting"
    assert answer["pending_changes"] == [{"droplet_id": one["id"], "removing": False, "status": "waiting"}]
    assert answer["inbound_rules"][1] == {**icmp, "ports": "0"}
    assert answer["outbound_rules"] == [{**OUT, "ports": "0"}]
    assert refused(lambda: client.firewalls.create({"name": "one", **fields})) == (409, "duplicate name")
    other = {**SSH, "ports": "8000-9000"}
    client.firewalls.create({"name": "two", "inbound_rules": [other], "droplet_ids": [one["id"], two["id"]]})
    until(lambda: {each["status"] for each in client.firewalls.list()["firewalls"]} == {"succeeded"})
    assert client.firewalls.get(answer["id"])["firewall"]["pending_changes"] == []
    members = tuple(address(each, kind) for each in (one, two) for kind in ("public", "private"))
    ssh = Rule(protocol="tcp", ports=(22, 22), addresses=("203.0.113.0/24",))
    high = Rule(protocol="tcp", ports=(8000, 9000), addresses=("203.0.113.0/24",))
    assert machine(machinery, one).inbound == (
        ssh,
        Rule(protocol="icmp", ports=None, addresses=members),
        high,
    )
    assert machine(machinery, one).outbound == (ANYWHERE,)
    assert (machine(machinery, two).inbound, machine(machinery, two).outbound) == ((high,), ())
    assert (machine(machinery, open_one).inbound, machine(machinery, open_one).outbound) == (None, None)

    # Whoever gets the tag is protected, and let in by the others.
    client.tags.assign_resources(
        "node", {"resources": [{"resource_id": str(open_one["id"]), "resource_type": "droplet"}]}
    )
    until(lambda: machine(machinery, open_one).outbound == (ANYWHERE,))
    until(lambda: address(open_one, "private") in machine(machinery, one).inbound[1].addresses)  # type: ignore[index]

    # What a PUT leaves out is gone.
    client.firewalls.update(answer["id"], {"name": "one", "inbound_rules": [SSH]})
    until(lambda: machine(machinery, open_one).inbound is None)
    until(lambda: machine(machinery, one).inbound == (high,))
    client.droplets.destroy(two["id"])
    until(lambda: client.droplets.get(two["id"]).get("id") == "not_found")
    assert client.firewalls.list()["firewalls"][1]["droplet_ids"] == [one["id"]]
    client.firewalls.delete(client.firewalls.list()["firewalls"][1]["id"])
    until(lambda: machine(machinery, one).inbound is None)


PORTS = st.builds(sorted, st.tuples(st.integers(1, 65535), st.integers(1, 65535)))
RULES = st.one_of(
    st.builds(
        lambda protocol, ports: {"protocol": protocol, "ports": ports, "sources": {"addresses": ["::/0"]}},
        st.sampled_from(["tcp", "udp"]),
        st.one_of(st.sampled_from(["0", "all", "1"]), PORTS.map(lambda ports: f"{ports[0]}-{ports[1]}")),
    ),
    st.just({"protocol": "icmp", "sources": {"droplet_ids": [1], "tags": ["a"]}}),
)


@given(RULES)
def test_what_is_read_of_a_rule_can_be_written_again(rule: Json) -> None:
    written = InboundRule.model_validate_json(json.dumps(rule))
    again = InboundRule.model_validate_json(json.dumps(written.shown()))
    assert again.shown() == written.shown()
    assert again.range() == written.range()
    first, last = written.range() or (0, 0)
    assert written.shown()["ports"] in {f"{first}-{last}", f"{first}"}


def test_members_and_rules_of_a_firewall_one_by_one(client: Client, machinery: FakeMachinery) -> None:
    made = active(client, tags=["a"])
    firewall = client.firewalls.create({"name": "fw", "inbound_rules": [SSH]})["firewall"]["id"]

    def shown() -> Json:
        found: Json = client.firewalls.get(firewall)["firewall"]
        return found

    client.firewalls.assign_droplets(firewall, {"droplet_ids": [made["id"]]})
    client.firewalls.add_tags(firewall, {"tags": ["a"]})
    client.firewalls.add_rules(firewall, {"outbound_rules": [OUT]})
    until(lambda: machine(machinery, made).outbound == (ANYWHERE,))
    assert (shown()["droplet_ids"], shown()["tags"]) == ([made["id"]], ["a"])
    client.firewalls.delete_droplets(firewall, {"droplet_ids": [made["id"]]})
    client.firewalls.delete_rules(firewall, {"outbound_rules": [OUT]})
    until(lambda: machine(machinery, made).outbound == ())
    client.firewalls.delete_tags(firewall, {"tags": ["a"]})
    until(lambda: machine(machinery, made).inbound is None)
    assert refused(lambda: client.firewalls.delete_rules(firewall, {"inbound_rules": [SSH]}))[0] == 422


def test_a_balancer(api: Api, client: Client, machinery: FakeMachinery) -> None:
    made = active(client, tags=["controller"])
    check = {"protocol": "https", "port": 6443, "path": "/readyz", "healthy_threshold": 2}
    order = balancer(
        tag="controller", health_check=check, firewall={"allow": ["cidr:203.0.113.0/24", "ip:1.2.3.4"]}
    )
    fresh = client.load_balancers.create(order)["load_balancer"]
    assert (fresh["status"], fresh["ip"], fresh["region"]["slug"]) == ("new", "", "fra1")
    assert fresh["sticky_sessions"] == {"type": "none"}
    assert refused(lambda: client.load_balancers.create(order)) == (422, "name is not unique")
    assert refused(lambda: client.load_balancers.update(fresh["id"], order))[0] == 403
    until(lambda: client.load_balancers.get(fresh["id"])["load_balancer"]["status"] == "active")
    found = client.load_balancers.get(fresh["id"])["load_balancer"]
    assert (found["ip"], found["droplet_ids"], found["tag"]) == ("172.30.200.3", [made["id"]], "controller")
    wanted = machinery.balancers[fresh["id"]]
    assert (wanted.public, wanted.allowed) == ("172.30.200.3", ("203.0.113.0/24", "1.2.3.4/32"))
    assert dict(wanted.backends) == {made["id"]: address(made, "private")}
    assert (wanted.check.path, wanted.check.healthy, wanted.check.unhealthy) == ("/readyz", 2, 5)

    # A firewall that lets the balancer in knows both of its addresses.
    sources = {"load_balancer_uids": [fresh["id"]]}
    rules = [{"protocol": "tcp", "ports": "6443", "sources": sources}]
    client.firewalls.create({"name": "fw", "inbound_rules": rules, "tags": ["controller"]})
    addresses = ("172.30.200.3", machinery.private_address(fresh["id"]))
    until(
        lambda: machine(machinery, made).inbound
        == (Rule(protocol="tcp", ports=(6443, 6443), addresses=addresses),)
    )

    second = active(client, name="two", tags=["controller"])
    until(lambda: machinery.balancers[fresh["id"]].backends.keys() == {made["id"], second["id"]})
    assert (
        refused(lambda: client.load_balancers.add_droplets(fresh["id"], {"droplet_ids": [made["id"]]}))[0]
        == 422
    )
    client.load_balancers.update(fresh["id"], balancer(droplet_ids=[second["id"]]))
    assert refused(lambda: client.load_balancers.update(fresh["id"], balancer()))[0] == 403
    until(lambda: machinery.balancers[fresh["id"]].backends.keys() == {second["id"]})
    assert machinery.balancers[fresh["id"]].allowed == ()

    client.load_balancers.delete(fresh["id"])
    assert client.load_balancers.get(fresh["id"])["id"] == "not_found"
    until(lambda: machinery.balancers == {})
    until(lambda: machine(machinery, made).inbound == ())
    assert "load_balancers" not in api.everything()


def test_what_is_behind_a_balancer_is_in_its_vpc(client: Client) -> None:
    other = client.vpcs.create({"name": "v", "region": "fra1"})["vpc"]["id"]
    made = active(client)
    wrong = balancer(vpc_uuid=other, droplet_ids=[made["id"]])
    assert refused(lambda: client.load_balancers.create(wrong)) == (
        422,
        f"droplet_ids: droplet {made['id']} is not in the load balancer's VPC",
    )
    balancer_id = client.load_balancers.create(balancer(vpc_uuid=other))["load_balancer"]["id"]
    assert refused(lambda: client.vpcs.delete(other))[0] == 409
    client.load_balancers.delete(balancer_id)
    until(lambda: client.vpcs.list_members(other)["members"] == [])
    client.vpcs.delete(other)


def test_a_test_says_which_addresses_and_ranges_there_are() -> None:
    with (
        Api(
            FakeMachinery(),
            token=TOKEN,
            default_vpcs=["fra1"],
            reserved_addresses=["172.30.6.11"],
            generated_vpcs="10.96.96.0/20",
        ) as api,
        client_of(api) as client,
    ):
        (vpc,) = client.vpcs.list()["vpcs"]
        assert vpc["ip_range"] == "10.96.96.0/20"
        no_range = "ip_range: no range is left in 10.96.96.0/20"
        assert refused(lambda: client.vpcs.create({"name": "v", "region": "fra1"})) == (422, no_range)
        wanted = {"region": "fra1"}
        assert client.reserved_ips.create(wanted)["reserved_ip"]["ip"] == "172.30.6.11"
        no_address = "no address is left in 172.30.200.0/24"
        assert refused(lambda: client.reserved_ips.create(wanted)) == (422, no_address)
        client.reserved_ips.delete("172.30.6.11")
        until(lambda: ask(api, "POST", "/v2/reserved_ips", wanted).status_code == 202)
        assert api.everything() == {"reserved_ips": ["172.30.6.11"]}


def test_a_reserved_ip(api: Api, client: Client, machinery: FakeMachinery) -> None:
    made, other = active(client), active(client, name="two")
    answer = client.reserved_ips.create({"region": "fra1"})
    ip = answer["reserved_ip"]["ip"]
    assert (answer["reserved_ip"]["droplet"], answer["links"]) == (None, {})

    def assign(droplet_id: int) -> Json:
        action: Json = client.reserved_ips_actions.post(ip, {"type": "assign", "droplet_id": droplet_id})[
            "action"
        ]
        return action

    with api.faults.hold_action("assign_ip"):
        action = assign(made["id"])
        assert (action["type"], action["resource_type"]) == ("assign_ip", "reserved_ip")
        assert refused(lambda: assign(other["id"])) == (422, "The reserved IP already has a pending event.")
        assert refused(lambda: client.reserved_ips.delete(ip))[0] == 422
        assert client.reserved_ips.get(ip)["reserved_ip"]["locked"]
    until(lambda: client.reserved_ips_actions.get(ip, action["id"])["action"]["status"] == "completed")
    assert client.reserved_ips.get(ip)["reserved_ip"]["droplet"]["id"] == made["id"]
    assert machine(machinery, made).reserved == {ip}
    again = client.reserved_ips.create({"region": "fra1"})["reserved_ip"]["ip"]
    assert (
        refused(
            lambda: client.reserved_ips_actions.post(again, {"type": "assign", "droplet_id": made["id"]})
        )[0]
        == 422
    )

    assign(other["id"])
    until(lambda: machine(machinery, other).reserved == {ip} and not machine(machinery, made).reserved)
    until(lambda: not client.reserved_ips.get(ip)["reserved_ip"]["locked"])
    client.droplets.destroy(other["id"])
    until(lambda: client.reserved_ips.get(ip)["reserved_ip"]["droplet"] is None)
    assert refused(lambda: client.reserved_ips_actions.post(ip, {"type": "unassign"}))[0] == 422
    assert api.everything()["reserved_ips"] == sorted([ip, again])
    client.reserved_ips.delete(ip)
    assert client.reserved_ips.get(ip)["id"] == "not_found"


def test_records(api: Api, client: Client) -> None:
    client.domains.create({"name": "example.com", "ip_address": "192.0.2.1"})
    record = {
        "type": "A",
        "name": "api",
        "data": "192.0.2.2",
        "priority": 0,
        "port": 0,
        "weight": 0,
        "flags": 0,
    }
    made = client.domains.create_record("example.com", record)["domain_record"]
    assert made == {
        "id": made["id"],
        "type": "A",
        "name": "api",
        "data": "192.0.2.2",
        "ttl": 1800,
        **dict.fromkeys(("priority", "port", "weight", "flags", "tag")),
    }
    client.domains.create_record("example.com", {**record, "data": "192.0.2.3", "ttl": 60})
    listed = client.domains.list_records("example.com", name="api.example.com", type="A")["domain_records"]
    assert [(each["data"], each["ttl"]) for each in listed] == [("192.0.2.2", 60), ("192.0.2.3", 60)]
    alias = {"type": "CNAME", "name": "www", "data": "api.example.com."}
    assert client.domains.create_record("example.com", alias)["domain_record"]["data"] == "api.example.com"
    for wrong in (
        {**record, "data": "example.com."},
        {**alias, "name": "other", "data": "api.example.com"},
        {**alias, "name": "api"},
        {"type": "MX", "name": "@", "data": "mail.example.com."},
        {**record, "ttl": 5},
    ):
        assert ask(api, "POST", "/v2/domains/example.com/records", wrong).status_code == 422
    changed = client.domains.update_record("example.com", made["id"], {"type": "A", "data": "192.0.2.9"})
    assert (changed["domain_record"]["name"], changed["domain_record"]["data"]) == ("api", "192.0.2.9")
    assert api.everything() == {
        "domains": ["example.com"],
        "records": ["A api.example.com", "A api.example.com", "A example.com", "CNAME www.example.com"],
    }
    assert "api.example.com. 60 IN A 192.0.2.9" in client.domains.get("example.com")["domain"]["zone_file"]
    client.domains.delete_record("example.com", made["id"])
    assert client.domains.get_record("example.com", made["id"])["id"] == "not_found"
    client.domains.delete("example.com")
    assert api.everything() == {}


def test_projects(api: Api, client: Client) -> None:
    default = client.projects.get_default()["project"]
    project = client.projects.create({"name": "p", "purpose": "mine", "environment": "production"})["project"]
    assert (project["purpose"], project["environment"], project["is_default"]) == (
        "Other: mine",
        "Production",
        False,
    )
    made = active(client)
    urn = f"do:droplet:{made['id']}"
    assert [each["urn"] for each in client.projects.list_resources(default["id"])["resources"]] == [urn]
    (assigned,) = client.projects.assign_resources(project["id"], {"resources": [urn]})["resources"]
    assert assigned["links"] == {"self": f"{api.endpoint}/v2/droplets/{made['id']}"}
    assert client.projects.list_resources(default["id"])["resources"] == []
    assert (
        ask(api, "POST", f"/v2/projects/{project['id']}/resources", {"resources": ["do:vpc:x"]}).status_code
        == 422
    )
    answer = ask(api, "DELETE", f"/v2/projects/{project['id']}")
    assert (answer.status_code, answer.json()["id"]) == (412, "precondition_failed")
    assert answer.json()["message"].startswith("cannot delete a project with resources")
    assert api.everything()["projects"] == ["p"]
    client.projects.assign_resources_default({"resources": [urn]})
    client.projects.delete(project["id"])
    assert client.projects.patch(default["id"], {"description": "d"})["project"]["description"] == "d"
    assert refused(lambda: client.projects.delete(default["id"]))[0] == 403


def test_the_catalogue(api: Api, client: Client) -> None:
    regions = {each["slug"]: each for each in client.regions.list(per_page=200)["regions"]}
    assert regions["fra1"]["available"]
    assert "s-2vcpu-4gb" in regions["fra1"]["sizes"]
    assert (regions["sfo1"]["available"], regions["sfo1"]["sizes"]) == (False, [])
    sizes = {each["slug"]: each for each in client.sizes.list(per_page=200)["sizes"]}
    assert (sizes["s-2vcpu-4gb"]["price_monthly"], sizes["s-2vcpu-4gb"]["memory"]) == (24, 4096)
    images = {each["slug"]: each["id"] for each in client.images.list(type="distribution")["images"]}
    assert client.images.get(images["debian-12-x64"])["image"]["distribution"] == "Debian"
    by_slug = ask(api, "GET", "/v2/images/ubuntu-24-04-x64").json()["image"]
    assert by_slug["id"] == images["ubuntu-24-04-x64"]
    assert client.images.list(private=True)["images"] == []
    assert client.account.get()["account"]["droplet_limit"] == 3


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
