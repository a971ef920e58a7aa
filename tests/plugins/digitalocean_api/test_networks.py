"""VPCs, firewalls, balancers and addresses: who is in them, and what the machinery is to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tests.e2e.digitalocean.asked import InboundRule
from tests.e2e.digitalocean.fake_machinery import FakeMachinery
from tests.e2e.digitalocean.machinery import Rule
from tests.e2e.digitalocean.server import Api, Delays
from tests.plugins.digitalocean_api.asking import (
    ANYWHERE,
    FAST,
    OUT,
    SSH,
    TOKEN,
    Json,
    active,
    address,
    ask,
    balancer,
    client_of,
    droplet,
    machine,
    refused,
    until,
)

if TYPE_CHECKING:
    from pydo import Client


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
    machinery.balancing.clear()
    fresh = client.load_balancers.create(order)["load_balancer"]
    assert (fresh["status"], fresh["ip"], fresh["region"]["slug"]) == ("new", "", "fra1")
    assert fresh["sticky_sessions"] == {"type": "none"}
    assert refused(lambda: client.load_balancers.create(order)) == (422, "name is not unique")
    assert refused(lambda: client.load_balancers.update(fresh["id"], order))[0] == 403
    machinery.balancing.set()
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
    machinery.balancing.clear()
    client.load_balancers.update(fresh["id"], balancer(droplet_ids=[second["id"]]))
    assert refused(lambda: client.load_balancers.update(fresh["id"], balancer()))[0] == 403
    machinery.balancing.set()
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
