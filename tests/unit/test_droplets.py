"""Platform digitalocean: what is asked of the provider, and what is not."""

from __future__ import annotations

from functools import cache
from typing import Any

import pulumi
import pytest
import yaml

from tests.unit.raw_configs import droplets, with_value
from tests.unit.recorder import REMOTE, Registered, Run, Unknown, has, program

DROPLET = "digitalocean:index/droplet:Droplet"
FIREWALL = "digitalocean:index/firewall:Firewall"
BALANCER = "digitalocean:index/loadBalancer:LoadBalancer"
NUMBERS = {"test-controller-1-droplet": 11, "test-worker-1-droplet": 21}


def _droplet(name: str, _: Any) -> dict[str, Any]:
    number = NUMBERS[name]
    return {
        "id": str(number),
        "ipv4Address": f"198.51.100.{number}",
        "ipv4AddressPrivate": f"10.120.0.{number}",
        "dropletUrn": f"do:droplet:{number}",
    }


def _ssh_key(_: str, __: Any) -> dict[str, Any]:
    return {"fingerprint": "3b:16:bf:e4:8b:00:8b:b8:59:8c:a9:d3:f0:19:45:fa"}


ANSWERS = {
    DROPLET: _droplet,
    "digitalocean:index/sshKey:SshKey": _ssh_key,
    "digitalocean:index/vpc:Vpc": lambda _, inputs: {"ipRange": inputs.get("ipRange") or "10.114.0.0/20"},
    "digitalocean:index/reservedIp:ReservedIp": lambda _, __: {
        "ipAddress": "203.0.113.7",
        "reservedIpUrn": "do:reservedip:203.0.113.7",
    },
    BALANCER: lambda _, __: {"ip": "203.0.113.8", "loadBalancerUrn": "do:loadbalancer:8"},
    "digitalocean:index/dnsRecord:DnsRecord": lambda _, inputs: {
        "fqdn": f"{inputs['name']}.{inputs['domain']}"
    },
}


@cache
def up(*, preview: bool = False) -> Run:
    return changed_to({}, preview=preview)


def changed_to(values: dict[str, object], *, preview: bool = False) -> Run:
    """The run with other values at paths of the config."""
    raw = droplets()
    for path, value in values.items():
        raw = with_value(raw, path, value)
    return program(raw, preview=preview, answers=ANSWERS)


def droplet(run: Run, host: str) -> Registered:
    return run.only(f"test-{host}-droplet")


def let_in(firewall: Registered) -> set[tuple[str, str, str]]:
    """Protocol, ports and source of every rule."""
    return {
        (rule["protocol"], rule.get("portRange", ""), source)
        for rule in firewall.plain["inboundRules"]
        for kind in ("sourceAddresses", "sourceTags", "sourceLoadBalancerUids")
        for source in rule.get(kind, ())
    }


def test_hosts_are_droplets_of_the_cluster() -> None:
    run = up()
    controller, worker = (droplet(run, host).plain for host in ("controller-1", "worker-1"))
    mark = run.only("test-tag").plain["name"]
    assert controller["name"] == "test-controller-1" and worker["name"] == "test-worker-1"
    assert (controller["size"], worker["size"]) == ("s-2vcpu-4gb", "s-2vcpu-2gb")
    assert controller["tags"] == [mark, f"{mark}-controllers"] and worker["tags"] == [mark]
    assert {each["region"] for each in (controller, worker)} == {"fra1"}
    assert controller["vpcUuid"] == "test-vpc-id"
    # Nobody is mailed a password, and two installations less hold apt's lock.
    assert controller["sshKeys"] and not controller["dropletAgent"] and not controller["monitoring"]


def test_the_cluster_uses_private_addresses_and_logins_public_ones() -> None:
    run = up()
    assert run.outputs["nodes"]["worker-1"]["address"] == "10.120.0.21"
    assert run.outputs["api_endpoint"] == "https://203.0.113.7:6443"
    for step in run.of(REMOTE):
        assert step.plain["connection"]["host"].startswith("198.51.100."), step.name


def test_a_firewall_is_there_before_a_droplet_is() -> None:
    run = up()
    for host in ("controller-1", "worker-1"):
        before = run.before(droplet(run, host))
        assert {each.urn for each in run.of(FIREWALL)} <= before
    mark = run.only("test-tag").plain["name"]
    assert let_in(run.only("test-firewall")) == {
        ("tcp", "22", "203.0.113.0/24"),
        ("tcp", "all", mark),
        ("udp", "all", mark),
        ("icmp", "", mark),
    }
    assert let_in(run.only("test-controllers-firewall")) == {("tcp", "6443", "203.0.113.0/24")}


def test_node_ports_are_open_to_whom_the_config_names() -> None:
    run = changed_to({"digitalOcean nodePorts": ["0.0.0.0/0"]})
    assert {rule for rule in let_in(run.only("test-firewall")) if rule[2] == "0.0.0.0/0"} == {
        ("tcp", "30000-32767", "0.0.0.0/0"),
        ("udp", "30000-32767", "0.0.0.0/0"),
    }


def test_the_first_host_key_is_only_for_the_first_login() -> None:
    run = up()
    text = droplet(run, "worker-1").plain["userData"]
    assert has(Unknown, droplet(up(preview=True), "worker-1").inputs["userData"])
    keys = yaml.safe_load(text.removeprefix("#cloud-config\n"))
    assert keys["ssh_deletekeys"] is True
    first = run.only("test-worker-1-first-contact-0")
    assert "first-contact-0" in keys["ssh_keys"]["ecdsa_private"] and first.plain["algorithm"] == "ECDSA"
    contact, identity = (run.only(f"test-worker-1-{step}") for step in ("first-contact", "identity"))
    assert contact.plain["connection"]["hostKey"] != identity.plain["connection"]["hostKey"]
    assert contact.urn in run.before(identity)
    # A worker's removal is a step on a controller.
    later = [
        step
        for step in run.of(REMOTE)
        if step not in (contact, identity) and "worker-1" in step.name and not step.name.endswith("-removal")
    ]
    assert later
    for step in later:
        assert step.plain["connection"]["hostKey"] == identity.plain["connection"]["hostKey"]
        assert identity.urn in run.before(step)


def test_the_first_login_is_never_repeated_on_the_same_droplet() -> None:
    contact = up().only("test-worker-1-first-contact")
    assert set(contact.ignored) == {"connection", "create", "stdin"}
    assert contact.plain["triggers"] == ["21"]


def test_nothing_but_a_generation_replaces_a_droplet() -> None:
    values: dict[str, object] = {
        "image": "ubuntu-24-04-x64",
        "monitoring": True,
        "sshKeys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIArwvbnKlP9VYIeKDcJ3CdSTHv2dbmbL5SL3bd0uNiDd ada"],
        "tags": ["team-a"],
        "backups": True,
        "size": "s-4vcpu-8gb",
    }
    before = droplet(up(), "controller-1").plain
    after = droplet(
        changed_to({f"digitalOcean {key}": value for key, value in values.items()}), "controller-1"
    )
    changed = {each for each in before if before[each] != after.plain.get(each)}
    assert changed == {"image", "monitoring", "tags", "backups", "size"}
    # The provider updates these in place.
    assert changed - set(after.ignored) == {"tags", "size", "backups"}
    assert after.replacement_trigger == droplet(up(), "controller-1").replacement_trigger


def test_a_generation_brings_another_first_key() -> None:
    run = changed_to({"hosts worker-1 generation": 1})
    assert run.only("test-worker-1-first-contact-1")
    assert "first-contact-1" in droplet(run, "worker-1").plain["userData"]
    assert droplet(run, "worker-1").replacement_trigger != droplet(up(), "worker-1").replacement_trigger


def test_only_controllers_are_protected() -> None:
    run = changed_to({"digitalOcean protect": True})
    assert droplet(run, "controller-1").protect and not droplet(run, "worker-1").protect
    assert not any(each.protect for each in up().of(DROPLET))


def test_a_preview_knows_all_but_what_is_made() -> None:
    run = up(preview=True)
    assert run.by_urn.keys() == up().by_urn.keys()
    worker = droplet(run, "worker-1")
    assert {key for key, value in worker.inputs.items() if has(Unknown, value)} == {
        "vpcUuid",
        "sshKeys",
        "tags",
        "userData",
    }


def test_a_reserved_ip_is_known_before_a_droplet_has_it() -> None:
    """It is made after the droplets, and nothing beside it: one that a killed run leaves is not found."""
    run = up()
    ip, assignment = run.only("test-reserved-ip"), run.only("test-reserved-ip-assignment")
    assert (
        "dropletId" not in ip.plain and assignment.plain["dropletId"] == NUMBERS["test-controller-1-droplet"]
    )
    assert run.only("test-reserved-ip-tag").plain["name"].endswith(":203-0-113-7")
    assert {ip.urn, run.only("test-reserved-ip-tag").urn} <= run.before(assignment)
    assert {each.urn for each in run.of(DROPLET)} <= run.before(ip)


def test_several_controllers_are_behind_a_balancer() -> None:
    run = changed_to({"digitalOcean loadBalancer": True})
    balancer = run.only("test-balancer").plain
    mark = run.only("test-tag").plain["name"]
    assert balancer["dropletTag"] == f"{mark}-controllers" and balancer["vpcUuid"] == "test-vpc-id"
    assert (balancer["healthcheck"]["protocol"], balancer["healthcheck"]["path"]) == ("https", "/readyz")
    assert set(balancer["firewall"]["allows"]) == {
        "cidr:203.0.113.0/24",
        "cidr:198.51.100.11/32",
        "cidr:198.51.100.21/32",
    }
    assert run.outputs["api_endpoint"] == "https://203.0.113.8:6443"
    assert not run.of("digitalocean:index/reservedIp")
    assert let_in(run.only("test-balancer-firewall")) == {("tcp", "6443", "test-balancer-id")}


def test_all_that_costs_is_shown_in_the_project() -> None:
    project = "4e1bfbc3-dc3e-41f2-a18f-1b4d7ba71679"
    shown = changed_to({"digitalOcean project": project}).only("test-project")
    droplets = ["do:droplet:11", "do:droplet:21"]
    assert shown.plain["resources"] == [*droplets, "do:reservedip:203.0.113.7"]
    assert shown.retain_on_delete
    run = changed_to({"digitalOcean project": project, "digitalOcean loadBalancer": True})
    assert run.only("test-project").plain["resources"] == droplets
    assert run.only("test-balancer").plain["projectId"] == project


def test_with_a_domain_the_api_has_a_name() -> None:
    run = changed_to({"digitalOcean domain": "example.com"})
    assert run.outputs["api_endpoint"] == "https://test.example.com:6443"
    assert run.only("test-record").plain["value"] == "203.0.113.7"


def test_the_end_is_left_to_the_cleanup() -> None:
    run = up()
    cleanup = run.only("test-cleanup")
    marked = [
        each for each in run.of("digitalocean:") if each.type != "digitalocean:index/dnsRecord:DnsRecord"
    ]
    assert marked and all(each.deleted_with == cleanup.urn for each in marked)
    assert cleanup.plain["environment"]["KUBEPIVOT_MARK"] == run.only("test-tag").plain["name"]
    compile(cleanup.plain["delete"], "account.py", "exec")


def test_a_tag_says_whose_the_reserved_ip_is() -> None:
    run = up()
    mark = run.only("test-tag").plain["name"]
    assert run.only("test-reserved-ip-tag").plain["name"] == f"{mark}:203-0-113-7"


def test_a_range_that_digitalocean_chose_among_those_of_the_pods_is_refused() -> None:
    """Before a droplet is there. Another range for the pods mends it."""
    refused = r"network\.pods = .*it overlaps the VPC's range, 10\.114\.0\.0/20"
    with pytest.raises(pulumi.RunError, match=refused):
        changed_to({"network": {"pods": "10.114.0.0/16"}})


def test_another_region_is_refused_for_a_living_cluster() -> None:
    record = up().only("digitalocean-lasting")
    assert record.plain["input"]["digitalOcean.region"] == "fra1"
    assert record.before_update == ("digitalocean-lasting-values",)
    assert record.urn in up().before(up().only("test-vpc"))
