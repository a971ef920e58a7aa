"""What the program asks DigitalOcean itself: is all there that the config names, and what has the mark?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.config import parse
from components.hosts.digitalocean import account as module
from components.hosts.digitalocean.account import Account, Refused, remove, token_of, unassign
from components.hosts.digitalocean.checks import cluster_problems
from tests.e2e.digitalocean.fake_machinery import FakeMachinery
from tests.e2e.digitalocean.server import Api, Delays
from tests.unit.raw_configs import Raw, droplets, with_value

TOKEN = "dop_v1_of_the_tests"
FAST = Delays(create=0.02, action=0.02, destroy=0.05, leave=0.1, firewall=0.02, balancer=0.02)
MARK = "test-0a1b2c3"
NAMES = [MARK, f"{MARK}-controllers", f"{MARK}-balancer"]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
SECTION = "digitalOcean"


@pytest.fixture
def api() -> Iterator[Api]:
    with Api(FakeMachinery(), token=TOKEN, delays=FAST, default_vpcs=["fra1"], droplet_limit=5) as api:
        yield api


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.02)


@pytest.fixture
def account(api: Api) -> Account:
    return Account(api.endpoint, TOKEN).within(10)


def post(api: Api, path: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    # Without certificates, which take most of the time to read.
    answer = httpx.post(f"{api.endpoint}{path}", json=body, headers=headers, verify=False)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def make_droplet(api: Api, name: str, mark: str = MARK, **rest: Any) -> int:
    body = {"name": name, "region": "fra1", "size": "s-1vcpu-2gb", "image": "debian-12-x64", "tags": [mark]}
    return int(post(api, "/v2/droplets", body | rest)["droplet"]["id"])


def until_active(api: Api, droplet: int) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    path = f"{api.endpoint}/v2/droplets/{droplet}"
    deadline = time.monotonic() + 10
    while (found := httpx.get(path, headers=headers, verify=False).json()["droplet"])["status"] != "active":
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def make_all(api: Api, mark: str, key: str, address: str) -> str:
    """All that a cluster with a balancer and a reserved IP would have. The key's fingerprint."""
    for tag in (mark, f"{mark}-controllers"):
        post(api, "/v2/tags", {"name": tag})
    vpc = post(api, "/v2/vpcs", {"name": mark, "region": "fra1", "ip_range": address})["vpc"]["id"]
    fingerprint = post(api, "/v2/account/keys", {"name": mark, "public_key": key})["ssh_key"]["fingerprint"]
    rule = {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["203.0.113.0/24"]}}
    for name in (mark, f"{mark}-controllers", f"{mark}-balancer"):
        post(api, "/v2/firewalls", {"name": name, "tags": [mark], "inbound_rules": [rule]})
    droplet = make_droplet(api, "test-controller-1", mark, vpc_uuid=vpc)
    make_droplet(api, "test-worker-1", mark, vpc_uuid=vpc)
    forwarding = {
        "entry_protocol": "tcp",
        "entry_port": 6443,
        "target_protocol": "tcp",
        "target_port": 6443,
    }
    place = {"region": "fra1", "vpc_uuid": vpc}
    post(api, "/v2/load_balancers", {"name": mark, "tag": mark, "forwarding_rules": [forwarding], **place})
    until_active(api, droplet)
    post(api, "/v2/reserved_ips", {"droplet_id": droplet})
    return str(fingerprint)


def clean_up(api: Api, fingerprint: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs it as the step's deletion does: by itself, with nothing of this project to import."""
    return subprocess.run(
        [sys.executable, "-I", "-c", Path(module.__file__).read_text()],
        env={
            "PATH": os.environ["PATH"],
            "KUBEPIVOT_API": api.endpoint,
            "KUBEPIVOT_SECONDS": "20",
            "KUBEPIVOT_MARK": MARK,
            "KUBEPIVOT_FINGERPRINT": fingerprint,
            "KUBEPIVOT_NAMES": " ".join(NAMES),
            "KUBEPIVOT_RECORD": "",
            **environment,
        },
        input=environment.get("KUBEPIVOT_TOKEN", TOKEN),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_all_that_has_the_mark_goes_and_nothing_else(api: Api) -> None:
    fingerprint = make_all(api, MARK, KEY, "10.120.0.0/20")
    make_all(api, "test-9999999", KEY[:-1] + "B", "10.121.0.0/20")
    others = {noun: [each for each in names if MARK not in each] for noun, names in api.everything().items()}
    others["droplets"] = ["test-controller-1", "test-worker-1"]
    done = clean_up(api, fingerprint)
    assert done.returncode == 0, done.stderr
    left = api.everything()
    assert left.pop("reserved_ips") and others.pop("reserved_ips")
    assert left == others


def test_a_second_cleanup_finds_nothing(api: Api) -> None:
    fingerprint = make_all(api, MARK, KEY, "10.120.0.0/20")
    assert clean_up(api, fingerprint).returncode == 0
    assert api.everything() == {}
    assert clean_up(api, fingerprint).returncode == 0


def test_a_record_goes_with_the_address_that_it_names(api: Api) -> None:
    post(api, "/v2/domains", {"name": "example.com"})
    fingerprint = make_all(api, MARK, KEY, "10.120.0.0/20")
    (reserved,) = api.everything()["reserved_ips"]
    for name, address in (("test", reserved), ("test", "198.51.100.1"), ("www", reserved)):
        post(api, "/v2/domains/example.com/records", {"type": "A", "name": name, "data": address})
    done = clean_up(api, fingerprint, KUBEPIVOT_RECORD="example.com/test")
    assert done.returncode == 0, done.stderr
    assert api.everything() == {
        "domains": ["example.com"],
        "records": ["A test.example.com", "A www.example.com"],
    }


def test_a_vpc_that_is_its_regions_default_stays_and_is_told(api: Api) -> None:
    post(api, "/v2/vpcs", {"name": MARK, "region": "nyc3"})
    done = clean_up(api, "")
    assert done.returncode == 0 and "costs nothing" in done.stdout.replace("\n", " ")
    assert api.everything() == {"vpcs": [MARK]}


def test_limits_and_failures_are_waited_out(api: Api) -> None:
    fingerprint = make_all(api, MARK, KEY, "10.120.0.0/20")
    api.faults.limit("GET", "/v2/droplets", 1)
    api.faults.refuse("DELETE", "/v2/vpcs/.*", 503)
    api.faults.lose_answer("DELETE", "/v2/load_balancers/.*")
    done = clean_up(api, fingerprint)
    assert done.returncode == 0, done.stderr
    assert api.everything() == {}


def test_a_token_that_is_refused_ends_it_at_once(api: Api) -> None:
    done = clean_up(api, "", KUBEPIVOT_TOKEN="another")
    assert done.returncode == 1 and "401" in done.stderr and "another" not in done.stdout + done.stderr


def test_what_a_killed_run_made_gives_way_to_what_is_made_now(api: Api, account: Account) -> None:
    make_droplet(api, "test-worker-1")
    own = make_droplet(api, "test-worker-1")
    make_droplet(api, "test-worker-2")
    make_droplet(api, "test-worker-1", "test-9999999")
    remove(account, "Droplet", "test-worker-1", MARK, keep=str(own))
    assert sorted(api.everything()["droplets"]) == ["test-worker-1", "test-worker-1", "test-worker-2"]
    remove(account, "Droplet", "test-worker-1", MARK)
    assert sorted(api.everything()["droplets"]) == ["test-worker-1", "test-worker-2"]


def test_an_address_that_a_killed_run_gave_to_a_droplet_gives_way(api: Api, account: Account) -> None:
    for name, mark in (("test-controller-1", MARK), ("other-controller-1", "other-9999999")):
        droplet = make_droplet(api, name, mark)
        until_active(api, droplet)
        post(api, "/v2/reserved_ips", {"droplet_id": droplet})
    post(api, "/v2/reserved_ips", {"region": "fra1"})
    assert len(api.everything()["reserved_ips"]) == 3
    remove(account, "ReservedIp", "", MARK)
    assert len(api.everything()["reserved_ips"]) == 2
    with api.account.lock:
        holders = {each.droplet for each in api.account.reserved_ips.values()}
        assert {api.account.droplets[each].name for each in holders if each} == {"other-controller-1"}


def test_an_address_that_lost_its_droplet_goes_by_its_tag(api: Api) -> None:
    addresses = [post(api, "/v2/reserved_ips", {"region": "fra1"})["reserved_ip"]["ip"] for _ in range(3)]
    other = make_droplet(api, "other-controller-1", "other-9999999")
    until_active(api, other)
    post(api, f"/v2/reserved_ips/{addresses[1]}/actions", {"type": "assign", "droplet_id": other})
    for address in addresses[:2]:
        post(api, "/v2/tags", {"name": module.tag_of(MARK, address)})
    done = clean_up(api, "")
    assert done.returncode == 0, done.stderr
    left = api.everything()
    assert (left["reserved_ips"], left["tags"]) == (sorted(addresses[1:]), ["other-9999999"])


def test_an_address_that_a_killed_run_assigned_is_free_again(api: Api, account: Account) -> None:
    droplet = make_droplet(api, "test-controller-1")
    until_active(api, droplet)
    address = post(api, "/v2/reserved_ips", {"region": "fra1"})["reserved_ip"]["ip"]
    unassign(account, address)
    assert not [each for each in api.requests if each.method == "POST" and each.path.endswith("/actions")]
    post(api, f"/v2/reserved_ips/{address}/actions", {"type": "assign", "droplet_id": droplet})
    unassign(account, address)
    assert (account.get(f"/v2/reserved_ips/{address}") or {})["reserved_ip"]["droplet"] is None
    assert api.everything()["reserved_ips"] == [address]


def test_no_answer_within_the_time_is_told(api: Api) -> None:
    api.faults.refuse("GET", "/v2/vpcs", 503, times=None, message="maintenance")
    with pytest.raises(Refused, match=r"GET /v2/vpcs.*503 maintenance"):
        remove(Account(api.endpoint, TOKEN).within(0.2), "Vpc", MARK, MARK)


def test_the_token_is_the_configs_or_that_of_the_environment() -> None:
    environment = {"DIGITALOCEAN_ACCESS_TOKEN": "second", "DIGITALOCEAN_TOKEN": "first"}
    assert token_of("own", environment) == "own"
    assert token_of("", environment) == "first"
    assert token_of("", {}) == ""


@pytest.mark.parametrize(
    ("path", "value", "key", "mend"),
    [
        (f"{SECTION} region", "fra9", f"{SECTION}.region", "fra1"),
        (f"{SECTION} size", "s-3vcpu-5gb", f"{SECTION}.size", "no such size"),
        ("hosts worker-1 size", "s-3vcpu-5gb", "hosts.worker-1.size", "no such size"),
        ("hosts controller-1 size", "s-1vcpu-1gb", "hosts.controller-1.size", "2048 MB"),
        (f"{SECTION} image", "debian-99-x64", f"{SECTION}.image", "list-distribution"),
        (f"{SECTION} vpc", "5a4981aa-9653-4bd1-bef5-d6bff52042e4", f"{SECTION}.vpc", "no VPC has this id"),
        (f"{SECTION} vpcCidr", "10.130.0.0/20", f"{SECTION}.vpcCidr", "VPC other has 10.130.0.0/24"),
        (f"{SECTION} domain", "example.com", f"{SECTION}.domain", "no such domain"),
        (f"{SECTION} project", "4e1bfbc3-dc3e-41f2-a18f-1b4d7ba71679", f"{SECTION}.project", "no project"),
    ],
)
def test_what_only_the_api_knows_is_told_with_its_key(
    api: Api, account: Account, path: str, value: object, key: str, mend: str
) -> None:
    post(api, "/v2/vpcs", {"name": "other", "region": "fra1", "ip_range": "10.130.0.0/24"})
    problems = cluster_problems(account, parse(with_value(droplets(), path, value), stack="test"))
    assert [each for each in problems if each.key == f"kubepivot:{key}" and mend in each.mend], problems


def test_a_config_that_fits_the_account_has_no_problem(api: Api, account: Account) -> None:
    assert cluster_problems(account, parse(droplets(), stack="test")) == []
    assert {request.method for request in api.requests} == {"GET"}


def test_a_limit_of_droplets_is_told_before_the_first(api: Api, account: Account) -> None:
    for number in range(4):
        make_droplet(api, f"other-{number}", "other")
    (problem,) = cluster_problems(account, parse(droplets(), stack="test"))
    assert problem.key == "kubepivot:hosts" and "limit, 5" in problem.mend


def test_a_vpc_of_the_users_is_looked_at(api: Api, account: Account) -> None:
    made = {
        region: post(api, "/v2/vpcs", {"name": f"in-{region}", "region": region, "ip_range": address})["vpc"]
        for region, address in (("fra1", "10.2.0.0/20"), ("ams3", "10.140.0.0/20"))
    }

    def problems(region: str) -> list[str]:
        raw: Raw = with_value(droplets(), f"{SECTION} vpc", made[region]["id"])
        return [each.key for each in cluster_problems(account, parse(raw, stack="test"))]

    assert problems("ams3") == [f"kubepivot:{SECTION}.vpc"]
    assert problems("fra1") == ["kubepivot:network.pods"]


@pytest.mark.parametrize(("token", "scopes"), [("another", None), (TOKEN, ["droplet:read"])])
def test_a_token_without_rights_is_told(api: Api, token: str, scopes: list[str] | None) -> None:
    api.tokens[TOKEN] = scopes
    (problem,) = cluster_problems(Account(api.endpoint, token).within(5), parse(droplets(), stack="test"))
    assert problem.key == "digitalocean:token" and "scopes" in problem.mend and token not in str(problem)
