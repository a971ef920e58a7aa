"""A cloud firewall's rules as nftables enforces them on the droplet's own links."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from tests.e2e.digitalocean.machinery import Rule

__all__ = ["ruleset"]


def ruleset(inbound: Sequence[Rule] | None, outbound: Sequence[Rule] | None) -> str:
    """A file for `nft -f` which replaces the firewall's table in one go, and touches no other.

    It stands for a filter outside of the droplet. So it comes before the host's DNAT and after its SNAT,
    judges forwarded packets as well, and knows eth0 and eth1 alone: pods' own links and the loopback pass.
    Links to the metadata service are of the droplet, so nothing that is meant for it comes or goes by wire.
    None: no firewall applies.
    """
    return f"""\
table inet cloud_firewall
delete table inet cloud_firewall
table inet cloud_firewall {{
{_chain("inbound", "iifname", "saddr", "prerouting priority mangle", inbound)}
{_chain("outbound", "oifname", "daddr", "postrouting priority srcnat + 50", outbound)}
}}
"""


def _chain(name: str, link: str, peer: str, hook: str, rules: Sequence[Rule] | None) -> str:
    lines = [
        f"type filter hook {hook}; policy accept;",
        f'{link} != {{ "eth0", "eth1" }} accept',
        "ip daddr 169.254.0.0/16 drop",
        # Also where no firewall applies: what is under way then goes on when one comes.
        "ct state established,related accept",
    ]
    if rules is not None:
        lines += [line for rule in rules for line in _rule(rule, peer)]
        lines.append("drop")
    return "\n".join([f"  chain {name} {{", *(f"    {line}" for line in lines), "  }"])


def _rule(rule: Rule, peer: str) -> Iterator[str]:
    networks = [ip_network(address, strict=False) for address in rule.addresses]
    v4 = list(collapse_addresses(each for each in networks if isinstance(each, IPv4Network)))
    v6 = list(collapse_addresses(each for each in networks if isinstance(each, IPv6Network)))
    for family, found in (("ip", v4), ("ip6", v6)):
        if found:
            addresses = ", ".join(str(each) for each in found)
            yield f"{family} {peer} {{ {addresses} }} {_service(rule, family)} accept"


def _service(rule: Rule, family: str) -> str:
    if rule.protocol == "icmp":
        return f"meta l4proto {'icmp' if family == 'ip' else 'icmpv6'}"
    if rule.ports is None:
        return f"meta l4proto {rule.protocol}"
    first, last = rule.ports
    return f"{rule.protocol} dport {first}-{last}"
