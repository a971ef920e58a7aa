"""Droplets, from their order to their end, and the keys that they get."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from tests.e2e.digitalocean.fake_machinery import FakeMachinery
from tests.e2e.digitalocean.server import Api
from tests.plugins.digitalocean_api.asking import (
    KEY,
    Json,
    active,
    address,
    droplet,
    machine,
    refused,
    until,
)

if TYPE_CHECKING:
    from pydo import Client


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
