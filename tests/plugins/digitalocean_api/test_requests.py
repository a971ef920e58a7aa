"""Of every request: who may ask, how often, for which pages, and what is wrong with it."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2e.digitalocean.calls import Call
from tests.e2e.digitalocean.server import Api
from tests.plugins.digitalocean_api.asking import (
    FORWARDING,
    KEY,
    NOBODY,
    SSH,
    TOKEN,
    Json,
    active,
    ask,
    balancer,
    droplet,
)

if TYPE_CHECKING:
    from pydo import Client


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
