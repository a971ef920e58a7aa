"""Lab hosts as droplets: rules, settings and documents, before anything runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.e2e.digitalocean import haproxy
from tests.e2e.digitalocean.cloudinit import CloudConfig, first_boot_files
from tests.e2e.digitalocean.droplet.metadata import pages
from tests.e2e.digitalocean.machinery import Balancer, Check, Forwarding, Rule
from tests.e2e.digitalocean.nftables import ruleset

ANYWHERE = ("0.0.0.0/0", "::/0")
BALANCER = Balancer(
    id="lb",
    public="172.30.200.9",
    vpc="vpc",
    forwarding=(Forwarding(port=6443, target=6443), Forwarding(port=443, target=30443)),
    check=Check(protocol="https", port=6443, path="/readyz", interval=3, timeout=2, healthy=2, unhealthy=4),
    backends={1: "10.120.0.2", 2: "10.120.0.3"},
    allowed=(),
)


def inbound(*rules: Rule) -> list[str]:
    """What lets packets in, of a firewall with these rules."""
    chain = ruleset(rules, None).partition("chain inbound {")[2].partition("}\n  chain")[0]
    return [line.strip() for line in chain.splitlines() if " saddr " in line]


def test_no_rule_lets_nothing_through_and_no_firewall_lets_all() -> None:
    assert ruleset(None, None).count(" drop\n") == 2, "link-local addresses, both ways"
    assert "\n    drop\n" not in ruleset(None, None)
    assert ruleset([], []).count("\n    drop\n") == 2


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            Rule(protocol="tcp", ports=(22, 22), addresses=ANYWHERE),
            ["ip saddr { 0.0.0.0/0 } tcp dport 22-22 accept", "ip6 saddr { ::/0 } tcp dport 22-22 accept"],
        ),
        (
            Rule(protocol="udp", ports=None, addresses=("10.120.0.2",)),
            ["ip saddr { 10.120.0.2/32 } meta l4proto udp accept"],
        ),
        (
            Rule(protocol="icmp", ports=None, addresses=ANYWHERE),
            [
                "ip saddr { 0.0.0.0/0 } meta l4proto icmp accept",
                "ip6 saddr { ::/0 } meta l4proto icmpv6 accept",
            ],
        ),
        # nft refuses intervals that overlap.
        (
            Rule(protocol="tcp", ports=(1, 9), addresses=("10.0.0.0/8", "10.120.0.2", "192.0.2.1")),
            ["ip saddr { 10.0.0.0/8, 192.0.2.1/32 } tcp dport 1-9 accept"],
        ),
        # A tag that no droplet has.
        (Rule(protocol="tcp", ports=(22, 22), addresses=()), []),
    ],
)
def test_a_rule_names_peers_and_ports(rule: Rule, expected: list[str]) -> None:
    assert inbound(rule) == expected


def test_an_outbound_rule_names_destinations() -> None:
    rule = Rule(protocol="tcp", ports=(53, 53), addresses=("192.0.2.1",))
    assert "ip daddr { 192.0.2.1/32 } tcp dport 53-53 accept" in ruleset(None, [rule])


def test_a_droplet_is_checked_once_however_many_ports_lead_to_it() -> None:
    text = haproxy.configuration(BALANCER, "1")
    assert text.count("default-server check port 6443 check-ssl verify none inter 3s rise 2 fall 4") == 1
    assert "server droplet-2 10.120.0.3:30443 track port-6443/droplet-2" in text
    assert "reject" not in text


def test_only_those_who_are_allowed_connect_to_any_port() -> None:
    text = haproxy.configuration(replace(BALANCER, allowed=("192.0.2.0/24", "198.51.100.1/32")), "1")
    reject = "tcp-request connection reject unless { src 192.0.2.0/24 198.51.100.1/32 }"
    assert text.count(reject) == len(BALANCER.forwarding)


def test_who_was_healthy_stays_so_and_who_is_new_is_down() -> None:
    rest = "0 1 1 400 15 3 5 6 0 0 0 - 6443 - 0 6443 - - 6443"
    before = f"{haproxy.STATE_HEADER}\n2 port-6443 1 droplet-1 10.120.0.2 2 {rest}"
    state = haproxy.server_state(BALANCER, before).splitlines()[2:]
    health = {line.split()[3]: (line.split()[5], line.split()[12]) for line in state}
    assert health == {"droplet-1": ("2", "5"), "droplet-2": ("0", "0")}
    moved = replace(BALANCER, backends={1: "10.120.0.77"})
    assert haproxy.server_state(moved, before).splitlines()[2].split()[5] == "0", "another machine by now"


def test_states_of_another_haproxy_are_refused() -> None:
    with pytest.raises(ValueError, match=r"HAProxy 2\.6"):
        haproxy.server_state(BALANCER, "2\n# be_id\n")


def test_cloud_init_places_keys_and_files() -> None:
    config = CloudConfig.parse(
        "#cloud-config\n"
        "ssh_deletekeys: true\n"
        "ssh_keys: {ecdsa_private: secret, ecdsa_public: known}\n"
        "ssh_authorized_keys: [ssh-ed25519 B]\n"
        "write_files: [{path: /etc/motd, content: hello, permissions: '0600'}]\n"
    )
    files = first_boot_files(config, ("ssh-ed25519 A\n",))
    assert {path: (file.text, file.mode) for path, file in files.items()} == {
        "/etc/ssh/ssh_host_ecdsa_key": ("secret", 0o600),
        "/etc/ssh/ssh_host_ecdsa_key.pub": ("known", 0o644),
        "/root/.ssh/authorized_keys": ("ssh-ed25519 A\nssh-ed25519 B\n", 0o600),
        "/etc/motd": ("hello", 0o600),
    }


def test_a_droplet_needs_no_user_data() -> None:
    assert list(first_boot_files(CloudConfig.parse(""), ())) == ["/root/.ssh/authorized_keys"]


@pytest.mark.parametrize(
    "user_data",
    [
        "#!/bin/sh\ntrue\n",
        "#cloud-config\nruncmd: [true]\n",
        "#cloud-config\nssh_keys: {dsa_private: x}\n",
        "#cloud-config\nwrite_files: [{path: /a, content: b, owner: nobody}]\n",
        "#cloud-config\nwrite_files: [{path: /a, content: b, permissions: 0644}]\n",
        "#cloud-config\nwrite_files: [{path: /run/a, content: b}]\n",
    ],
)
def test_user_data_that_is_not_understood_is_refused(user_data: str) -> None:
    with pytest.raises(ValueError):
        CloudConfig.parse(user_data)


def test_metadata_is_a_page_for_each_value_and_an_index_for_each_level() -> None:
    document = {
        "droplet_id": 7,
        "public_keys": ["one", "two"],
        "interfaces": {"public": [{"ipv4": {"ip_address": "192.0.2.1"}}]},
    }
    assert pages("/v1", document) == {
        "/v1/": "id\npublic-keys\ninterfaces/",
        "/v1/id": "7",
        "/v1/public-keys": "one\ntwo",
        "/v1/interfaces/": "public/",
        "/v1/interfaces/public/": "0/",
        "/v1/interfaces/public/0/": "ipv4/",
        "/v1/interfaces/public/0/ipv4/": "address",
        "/v1/interfaces/public/0/ipv4/address": "192.0.2.1",
    }
