"""What is wrong with a config of platform digitalocean, before anything asks DigitalOcean."""

from __future__ import annotations

import pytest

from components.config import ConfigError, parse
from tests.e2e.digitalocean.catalogue import SIZES
from tests.unit.raw_configs import HOST_KEY, LEFT_OUT, droplets, errors, lab, with_value

SECTION = "digitalOcean"


@pytest.mark.parametrize(
    ("path", "value", "key", "mend"),
    [
        (SECTION, LEFT_OUT, SECTION, "at least its region and adminCidrs"),
        (f"{SECTION} region", LEFT_OUT, f"{SECTION}.region", "required"),
        (f"{SECTION} region", "FRA 1", f"{SECTION}.region", "lower-case letters"),
        (f"{SECTION} adminCidrs", LEFT_OUT, f"{SECTION}.adminCidrs", "required"),
        (f"{SECTION} adminCidrs", [], f"{SECTION}.adminCidrs", "at least one"),
        (f"{SECTION} adminCidrs", ["203.0.113.7/24"], f"{SECTION}.adminCidrs[0]", "203.0.113.0/24"),
        (f"{SECTION} size", "2 CPUs", f"{SECTION}.size", "lower-case letters"),
        (f"{SECTION} image", "", f"{SECTION}.image", "lower-case letters"),
        (f"{SECTION} vpcCidr", "10.120.0.0/29", f"{SECTION}.vpcCidr", "from /16 to /28"),
        (f"{SECTION} vpcCidr", "203.0.113.0/24", f"{SECTION}.vpcCidr", "private range"),
        (f"{SECTION} vpcCidr", "10.244.8.0/24", f"{SECTION}.vpcCidr", "keeps 10.244.0.0/16"),
        (f"{SECTION} vpcCidr", "10.2.0.0/20", f"{SECTION}.vpcCidr", "overlaps kubepivot:network.pods"),
        (f"{SECTION} vpc", "my-network", f"{SECTION}.vpc", "a UUID"),
        (f"{SECTION} project", "my project", f"{SECTION}.project", "a UUID"),
        (f"{SECTION} domain", "Example", f"{SECTION}.domain", "DNS"),
        (f"{SECTION} nodePorts", ["everybody"], f"{SECTION}.nodePorts[0]", "CIDR"),
        (f"{SECTION} sshKeys", ["~/.ssh/id_ed25519"], f"{SECTION}.sshKeys[0]", ".pub"),
        (f"{SECTION} tags", ["team a"], f"{SECTION}.tags[0]", "use letters"),
        (f"{SECTION} loadBalancer", "sometimes", f"{SECTION}.loadBalancer", "true or false"),
        (f"{SECTION} adminCidrs", ["203.0.113.7"], f"{SECTION}.adminCidrs[0]", "write 203.0.113.7/32"),
        (f"{SECTION} adminCidrs", ["203.0.113"], f"{SECTION}.adminCidrs[0]", "for example 203.0.113.0/24"),
        (f"{SECTION} adminCidrs", ["127.0.0.1"], f"{SECTION}.adminCidrs[0]", "in CIDR form"),
        (f"{SECTION} nodePorts", ["30000-32767"], f"{SECTION}.nodePorts[0]", "service-node-port-range"),
        (f"{SECTION} loadBalancer", "no", f"{SECTION}.loadBalancer", "use true or false"),
        (f"{SECTION} monitoring", 1, f"{SECTION}.monitoring", "use true or false"),
        (f"{SECTION} tags", ["team", "Team"], f"{SECTION}.tags", "team and Team are the same"),
        (f"{SECTION} sshKeys", [f"{HOST_KEY}\n{HOST_KEY}"], f"{SECTION}.sshKeys[0]", "entry of its own"),
        (f"{SECTION} sshKeys", ["ssh-dss AAAA"], f"{SECTION}.sshKeys[0]", ".pub"),
        (f"{SECTION} domain", "localhost", f"{SECTION}.domain", "with a dot"),
        (f"{SECTION} domain", "cluster.local", f"{SECTION}.domain", "are the cluster's own"),
        (f"{SECTION} domain", f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 63}.com", f"{SECTION}.domain", "253"),
        (f"{SECTION} token", "dop_v1_x", f"{SECTION}.token", "--secret digitalocean:token"),
        (f"{SECTION} publicKeys", [], f"{SECTION}.publicKeys", "unknown"),
        ("hosts worker-1 address", "10.120.0.9", "hosts.worker-1.address", "are made"),
        ("hosts worker-1 user", "admin", "hosts.worker-1.user", "are made"),
        ("hosts worker-1 port", 2222, "hosts.worker-1.port", "are made"),
        ("hosts worker-1 hostKey", HOST_KEY, "hosts.worker-1.hostKey", "are made"),
        ("hosts worker-1 size", "Large", "hosts.worker-1.size", "lower-case letters"),
        ("hosts worker-1 generation", -1, "hosts.worker-1.generation", "from 0 to"),
        ("name", "n" * 40, "hosts.controller-1", "more than 63"),
        ("mode", "render", "mode", "platform baremetal"),
        ("network", {"hosts": "10.120.0.0/20"}, "network.hosts", "vpcCidr"),
        ("lab", {}, "lab", "platform lab only"),
    ],
)
def test_an_error_names_key_and_mend(path: str, value: object, key: str, mend: str) -> None:
    raw = droplets()
    if key == "hosts.controller-1":
        raw["hosts"]["controller-1-of-the-cluster"] = raw["hosts"].pop("controller-1")
        key = "hosts.controller-1-of-the-cluster"
    found = errors(with_value(raw, path, value)).problems
    assert [each for each in found if each.key == f"kubepivot:{key}" and mend in each.mend], found


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"vpc": "5a4981aa-9653-4bd1-bef5-d6bff52042e4", "vpcCidr": "10.120.0.0/20"}, f"{SECTION}.vpcCidr"),
        ({"loadBalancer": False}, f"{SECTION}.loadBalancer"),
        ({"domain": "example.com"}, f"{SECTION}.domain"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, object], key: str) -> None:
    raw = droplets()
    raw[SECTION] |= values
    if "loadBalancer" in values:
        raw["hosts"]["controller-2"] = {"role": "controller"}
    if "domain" in values:
        raw["api"] = {"host": "api.example.com"}
    assert [each.key for each in errors(raw).problems] == [f"kubepivot:{key}"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("digitalOcean", {"region": "fra1", "adminCidrs": ["0.0.0.0/0"]}),
        ("hosts worker-1 size", "s-1vcpu-2gb"),
    ],
)
def test_other_platforms_have_no_droplets(path: str, value: object) -> None:
    with pytest.raises(ConfigError, match="platform digitalocean only"):
        parse(with_value(lab(), path, value), stack="test")


def test_every_name_of_a_size_is_one() -> None:
    for size in SIZES:
        parse(with_value(droplets(), f"{SECTION} size", size), stack="test")


def test_several_controllers_need_no_address_of_the_api() -> None:
    raw = droplets()
    raw["hosts"] |= {name: {"role": "controller"} for name in ("controller-2", "controller-3")}
    assert parse(raw, stack="test").controllers == ("controller-1", "controller-2", "controller-3")


def test_a_private_key_among_public_ones_is_not_shown() -> None:
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n-----END OPENSSH PRIVATE KEY-----"
    found = str(errors(with_value(droplets(), f"{SECTION} sshKeys", [text])))
    assert "b3BlbnNz" not in found and "(secret)" in found


def test_a_list_that_is_wrong_is_not_too_short_as_well() -> None:
    problems = errors(with_value(droplets(), f"{SECTION} adminCidrs", ["everybody"])).problems
    assert [each.key for each in problems] == [f"kubepivot:{SECTION}.adminCidrs[0]"]


def test_a_range_of_a_vpc_has_addresses_for_all_hosts() -> None:
    raw = with_value(droplets(), f"{SECTION} vpcCidr", "10.120.0.0/28")
    raw["hosts"] |= {f"worker-{number}": {"role": "worker"} for number in range(1, 12)}
    parse(raw, stack="test")
    raw["hosts"]["worker-12"] = {"role": "worker"}
    assert "at least a /27" in str(errors(raw))


def test_a_balancer_has_no_port_that_digitalocean_keeps() -> None:
    raw = with_value(droplets(), "api", {"port": 50053})
    parse(raw, stack="test")
    assert "choose another" in str(errors(with_value(raw, f"{SECTION} loadBalancer", True)))


def test_an_administrator_at_a_private_address_is_a_warning() -> None:
    cfg = parse(with_value(droplets(), f"{SECTION} adminCidrs", ["192.168.1.0/24"]), stack="test")
    assert any("192.168.1.0/24" in warning for warning in cfg.warnings)


def test_an_api_open_to_all_is_a_warning() -> None:
    cfg = parse(with_value(droplets(), f"{SECTION} adminCidrs", ["0.0.0.0/0"]), stack="test")
    assert any("0.0.0.0/0" in warning for warning in cfg.warnings)
    assert not parse(droplets(), stack="test").warnings
