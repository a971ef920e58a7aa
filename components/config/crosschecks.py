"""Cross-field validation of a config.

Works on raw values and skips invalid ones, so that its problems are reported together with those of single
fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from typing import get_args
from urllib.parse import urlsplit

from components.assets.networks import NETWORKS
from components.config.addresses import NODE_PREFIX, PODS, SERVICES
from components.config.base import number
from components.config.digitalocean import LONGEST_NAME
from components.config.errors import Problem
from components.config.flags import refusal, unknown_gates
from components.config.host import PlatformName
from components.config.k8s_names import CLUSTER_DOMAIN, LONGEST_DNS_NAME
from components.config.lab import NETWORK, SUBNET, TAKEN
from components.config.releases import LATEST, RELEASES
from components.tables.ports import API, NODE_PORTS, PORTS, SSH, port_range

__all__ = ["SECTIONS", "problems"]

Raw = Mapping[str, object]

_ADDRESS = {"address": 'it is required, for example "192.168.1.21"'}
_REQUIRED = {
    "lab": _ADDRESS,
    "baremetal": {
        **_ADDRESS,
        "key": "it is required: the path of the private key that logs in to this host",
        "hostKey": "it is required: the host's public key as `ssh-keyscan -t ed25519 ADDRESS` prints it, "
        "without the host's name",
    },
}
"""Keys that every host of a platform needs, each with the mend."""
_FIRST_UNPRIVILEGED = 1024
# A network with a longer prefix has no address of its own and no broadcast address (RFC 3021).
_WITH_BROADCAST = 30
_FIXED_PORTS = tuple(
    port
    for port in (*PORTS, *(port for network in NETWORKS.values() for port in network.ports))
    if not port.key
)
_USUAL_NODE_PORTS = f"{NODE_PORTS.first}-{NODE_PORTS.last}"
_SERVERS = (("mirror", "artifacts"), ("mirror", "images"), ("backup", "s3", "endpoint"))
"""URLs that hosts ask, whether there is a cluster or not."""
_LOGIN = ("user", "port", "key", "hostKey")
SECTIONS: Mapping[str, str] = {"lab": "lab", "digitalocean": "digitalOcean"}
"""Sections of the config that only one platform has."""
_ORDERED = ("size", "generation")
"""Keys of hosts that only a platform which makes machines to order has."""
_VERSION = re.compile(r":v?(\d+\.\d+)\.[^/]*$")
"""The minor in an image's tag, where that says a version."""
_NO_BALANCER_PORTS = range(50053, 50056)
_VPC_TAKEN = 4
"""Addresses of a VPC that no droplet gets: the first, the last, and those of DigitalOcean's own."""


def problems(raw: Raw) -> Iterator[Problem]:
    """Every contradiction in the raw config."""
    hosts = _hosts(raw)
    yield from _topology(raw, hosts)
    yield from _platform(raw, hosts)
    yield from _api_port(raw, hosts)
    yield from _node_ports(raw, hosts)
    yield from _addresses(raw, hosts)
    yield from _flags(_part(raw, "flags"))
    yield from _gates(raw)
    yield from _images(raw)
    yield from _recovery(_part(raw, "recovery"), hosts)


def _topology(raw: Raw, hosts: Mapping[str, Raw]) -> Iterator[Problem]:
    if raw.get("hosts") == {}:
        yield Problem.at(["hosts"], {}, "name at least one host of role controller")
        return
    roles = [host.get("role") for host in hosts.values()]
    # A role that is itself wrong may be meant as controller.
    if roles and all(role == "worker" for role in roles):
        yield Problem.at(["hosts"], hosts, "no host is a controller; give one of them the role controller")
    endpoint = _part(raw, "api").get("host") or raw.get("platform") == "digitalocean"
    if roles.count("controller") > 1 and not endpoint:
        yield Problem.at(
            ["api", "host"],
            None,
            "it is required with several controllers: the address or name of a load balancer or virtual "
            "address before all of them",
        )
    api = _part(raw, "api").get("host")
    for name, host in hosts.items():
        if host.get("role") == "worker" and api is not None and host.get("address") == api:
            yield Problem.at(
                ["api", "host"],
                api,
                f"worker {name} has this address, and no API server: use a controller's, or that of a load "
                "balancer or virtual address",
            )


def _platform(raw: Raw, hosts: Mapping[str, Raw]) -> Iterator[Problem]:
    platform = str(raw.get("platform"))
    for name, host in hosts.items():
        for field, mend in _REQUIRED.get(platform, {}).items():
            if host.get(field) is None:
                yield Problem.at(["hosts", name, field], None, mend)
    match platform:
        case "lab":
            yield from _left_out(hosts, _LOGIN, "with platform lab the hosts and their keys are made")
            # With mode render no container is made.
            if raw.get("mode") != "render" and _part(raw, "lab").get("network", NETWORK) == NETWORK:
                yield from _lab_addresses(hosts)
        case "digitalocean":
            made = "with platform digitalocean the hosts, their addresses and their keys are made"
            yield from _left_out(hosts, ("address", *_LOGIN), made)
            yield from _digitalocean(raw, hosts)
    if platform in get_args(PlatformName):
        for other, section in SECTIONS.items():
            if other != platform and section in raw:
                yield Problem.at([section], raw[section], f"leave it out: it is for platform {other} only")
        if platform != "digitalocean":
            yield from _left_out(hosts, _ORDERED, "it is for platform digitalocean only")


def _left_out(hosts: Mapping[str, Raw], fields: Iterable[str], why: str) -> Iterator[Problem]:
    for name, host in hosts.items():
        for field in fields:
            if field in host:
                yield Problem.at(["hosts", name, field], host[field], f"leave it out: {why}")


def _digitalocean(raw: Raw, hosts: Mapping[str, Raw]) -> Iterator[Problem]:
    if "digitalOcean" not in raw:
        mend = "it is required with platform digitalocean: at least its region and adminCidrs"
        yield Problem.at(["digitalOcean"], None, mend)
        return
    section, api = _part(raw, "digitalOcean"), _part(raw, "api").get("host")
    if raw.get("mode") == "render":
        mend = "droplets have no addresses before they are made; render with platform baremetal"
        yield Problem.at(["mode"], "render", mend)
    if section.get("vpc") is not None and section.get("vpcCidr") is not None:
        mend = "leave it out: kubepivot:digitalOcean.vpc names a VPC, which has a range"
        yield Problem.at(["digitalOcean", "vpcCidr"], section["vpcCidr"], mend)
    if "hosts" in _part(raw, "network"):
        mend = "leave it out: the VPC's range is kubepivot:digitalOcean.vpcCidr"
        yield Problem.at(["network", "hosts"], _part(raw, "network")["hosts"], mend)
    if api and section.get("domain") is not None:
        mend = "leave it out: kubepivot:api.host is where the API is"
        yield Problem.at(["digitalOcean", "domain"], section["domain"], mend)
    controllers = [name for name, host in hosts.items() if host.get("role") == "controller"]
    if len(controllers) > 1 and section.get("loadBalancer") in (False, "false"):
        mend = "several controllers need one: leave it out, or set it to true"
        yield Problem.at(["digitalOcean", "loadBalancer"], section["loadBalancer"], mend)
    for name in hosts:
        droplet = f"{raw.get('name', '')}-{name}"
        if len(droplet) > LONGEST_NAME:
            mend = (
                f"the droplet's name, {droplet}, would have more than {LONGEST_NAME} characters; "
                "shorten this or kubepivot:name"
            )
            yield Problem.at(["hosts", name], hosts[name], mend)
    domain, inside = section.get("domain"), _part(raw, "network").get("domain", CLUSTER_DOMAIN)
    if isinstance(domain, str) and f".{domain}".endswith(f".{inside}"):
        mend = f"names in {inside}, kubepivot:network.domain, are the cluster's own; choose another"
        yield Problem.at(["digitalOcean", "domain"], domain, mend)
    elif isinstance(domain, str) and len(f"{raw.get('name', '')}.{domain}") > LONGEST_DNS_NAME:
        mend = f"the API's name in it would have more than {LONGEST_DNS_NAME} characters; shorten it"
        yield Problem.at(["digitalOcean", "domain"], domain, mend)
    balanced = len(controllers) > 1 or section.get("loadBalancer") in (True, "true")
    port = _part(raw, "api").get("port")
    if balanced and _whole(port) in _NO_BALANCER_PORTS:
        mend = "no load balancer of DigitalOcean has this port; choose another, for example 6443"
        yield Problem.at(["api", "port"], port, mend)


def _lab_addresses(hosts: Mapping[str, Raw]) -> Iterator[Problem]:
    for name, host in hosts.items():
        address = _address(host.get("address"))
        path = ["hosts", name, "address"]
        if address in TAKEN:
            yield Problem.at(path, str(address), f"{TAKEN[address]} of the lab has it; choose another")
        elif address is not None and (address not in SUBNET or address in (SUBNET[0], SUBNET[-1])):
            mend = f"choose one that a host can have in the lab's network {NETWORK}, {SUBNET}"
            yield Problem.at(path, str(address), mend)


def _api_port(raw: Raw, hosts: Mapping[str, Raw]) -> Iterator[Problem]:
    value = _part(raw, "api").get("port", API.first)
    port = _whole(value)
    # Smaller numbers than 1 have a problem of their own.
    if port is None or port < 1:
        return
    if port < _FIRST_UNPRIVILEGED:
        mend = f"kube-apiserver is not root: use a port from {_FIRST_UNPRIVILEGED}, for example {API.first}"
        yield Problem.at(["api", "port"], value, mend)
    for fixed in _FIXED_PORTS:
        if fixed.first == port and fixed.protocol == "TCP":
            mend = f"{fixed.listener} uses it on every controller; choose another"
            yield Problem.at(["api", "port"], value, mend)
    for name, host in hosts.items():
        if host.get("role") == "controller" and _whole(host.get("port")) == port:
            mend = f"the SSH server of host {name} uses it (kubepivot:hosts.{name}.port); choose another"
            yield Problem.at(["api", "port"], value, mend)
    node_ports = _node_port_flag(raw) or _USUAL_NODE_PORTS
    if port in port_range(str(node_ports)):
        mend = f"it lies among the node ports of services, {node_ports}; choose another"
        yield Problem.at(["api", "port"], value, mend)


def _node_ports(raw: Raw, hosts: Mapping[str, Raw]) -> Iterator[Problem]:
    path = ["flags", "kube-apiserver", "service-node-port-range"]
    given = _node_port_flag(raw)
    if not isinstance(given, str | int | float | None):
        return
    text = _USUAL_NODE_PORTS if given is None else str(given)
    ports = port_range(text)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        yield Problem.at(path, given, f"use the first and the last port, for example {_USUAL_NODE_PORTS}")
        return
    taken = {port.first: port.listener for port in _FIXED_PORTS}
    for name, host in hosts.items():
        if port := _whole(host.get("port", SSH.first)):
            taken.setdefault(port, f"the SSH server of host {name}")
    used = [f"{port} ({taken[port]})" for port in sorted(taken) if port in ports]
    if used:
        mend = f"of the node ports of services, {text}, hosts use {', '.join(used)}; choose other node ports"
        yield Problem.at(path, given, mend)


def _node_port_flag(raw: Raw) -> object:
    return _part(_part(raw, "flags"), "kube-apiserver").get("service-node-port-range")


def _flags(flags: Raw) -> Iterator[Problem]:
    for component in flags:
        for flag, value in _part(flags, component).items():
            # What is no text has a problem of its own.
            if isinstance(value, str | int | float) and (mend := refusal(flag, str(value))):
                yield Problem.at(["flags", component, flag], value, mend)


def _gates(raw: Raw) -> Iterator[Problem]:
    release = RELEASES.get(str(raw.get("kubernetesVersion", LATEST)))
    if release is None:
        return
    flags = _part(raw, "flags")
    for component in flags:
        given = _part(flags, component).get("feature-gates")
        if isinstance(given, str) and (mend := unknown_gates(given, release.minor)):
            yield Problem.at(["flags", component, "feature-gates"], given, mend)


def _images(raw: Raw) -> Iterator[Problem]:
    """Kubernetes' own of another minor would break the order of an upgrade, or the skew that it allows."""
    release = RELEASES.get(str(raw.get("kubernetesVersion", LATEST)))
    images = _part(raw, "images")
    for key, image in images.items() if release else ():
        found = _VERSION.search(image) if key.startswith("kube-") and isinstance(image, str) else None
        if release and found and found[1] != f"1.{release.minor}":
            mend = f"name an image of 1.{release.minor}, as kubernetesVersion is {release.kubernetes}"
            yield Problem.at(["images", key], image, mend)


def _addresses(raw: Raw, hosts: Mapping[str, Raw]) -> Iterator[Problem]:
    network = {"pods": PODS, "services": SERVICES, **_part(raw, "network")}
    ranges = {
        key: found for key in ("hosts", "pods", "services") if (found := _range(network.get(key))) is not None
    }
    yield from _vpc(_range(_part(raw, "digitalOcean").get("vpcCidr")), ranges, len(hosts))
    located = {
        name: address
        for name, host in hosts.items()
        if (address := _address(host.get("address"))) is not None
    }
    yield from _overlaps(ranges)
    yield from _capacity(ranges, len(hosts))
    yield from _places(ranges, located, _address(_part(raw, "api").get("host")))
    for path in _SERVERS:
        yield from _server(raw, path, ranges)
    yield from _duplicates(located)


def _overlaps(ranges: Mapping[str, IPv4Network]) -> Iterator[Problem]:
    for (first, one), (second, other) in combinations(ranges.items(), 2):
        if one.overlaps(other):
            yield Problem.at(
                ["network", second],
                str(other),
                f"it overlaps kubepivot:network.{first}, {one}; choose ranges that do not overlap",
            )


def _vpc(vpc: IPv4Network | None, ranges: Mapping[str, IPv4Network], hosts: int) -> Iterator[Problem]:
    if vpc is None:
        return
    if hosts > vpc.num_addresses - _VPC_TAKEN:
        smallest = 32 - (hosts + _VPC_TAKEN - 1).bit_length()
        mend = f"it has no addresses for {hosts} hosts; use at least a /{smallest}"
        yield Problem.at(["digitalOcean", "vpcCidr"], str(vpc), mend)
    for key, other in ranges.items():
        if vpc.overlaps(other):
            mend = f"it overlaps kubepivot:network.{key}, {other}; choose ranges that do not overlap"
            yield Problem.at(["digitalOcean", "vpcCidr"], str(vpc), mend)


def _capacity(ranges: Mapping[str, IPv4Network], hosts: int) -> Iterator[Problem]:
    pods = ranges.get("pods")
    if pods is not None and (pods.prefixlen > NODE_PREFIX or 2 ** (NODE_PREFIX - pods.prefixlen) < hosts):
        smallest = NODE_PREFIX - (max(hosts, 1) - 1).bit_length()
        yield Problem.at(
            ["network", "pods"],
            str(pods),
            f"every host takes a /{NODE_PREFIX} of it; for {hosts} hosts use at least a /{smallest}",
        )


def _places(
    ranges: Mapping[str, IPv4Network], located: Mapping[str, IPv4Address], api: IPv4Address | None
) -> Iterator[Problem]:
    places: dict[tuple[str, ...], IPv4Address] = {
        ("hosts", name, "address"): address for name, address in located.items()
    }
    if api is not None and api not in located.values():
        places["api", "host"] = api
    hosts = ranges.get("hosts")
    for path, address in places.items():
        yield from _inside(path, address, ranges)
        if hosts is None:
            continue
        # The API may be elsewhere.
        if address not in hosts and path[0] == "hosts":
            yield Problem.at(
                path,
                str(address),
                f"it lies outside kubepivot:network.hosts, {hosts}; correct the address or the range",
            )
        elif hosts.prefixlen <= _WITH_BROADCAST and address in (hosts[0], hosts[-1]):
            yield Problem.at(
                path,
                str(address),
                f"it is the first or last of kubepivot:network.hosts, {hosts}, which no host can have; "
                "correct the address or the range",
            )


def _inside(
    path: tuple[str, ...], address: IPv4Address, ranges: Mapping[str, IPv4Network]
) -> Iterator[Problem]:
    for key in ("pods", "services"):
        if key in ranges and address in ranges[key]:
            yield Problem.at(
                path,
                str(address),
                f"it lies in kubepivot:network.{key}, {ranges[key]}; choose another range there",
            )


def _server(raw: Raw, path: tuple[str, ...], ranges: Mapping[str, IPv4Network]) -> Iterator[Problem]:
    *sections, key = path
    for section in sections:
        raw = _part(raw, section)
    url = raw.get(key)
    try:
        address = _address(urlsplit(url).hostname) if isinstance(url, str) else None
    except ValueError:
        return
    if address is not None:
        yield from _inside(path, address, ranges)


def _duplicates(located: Mapping[str, IPv4Address]) -> Iterator[Problem]:
    first: dict[IPv4Address, str] = {}
    for name, address in located.items():
        other = first.setdefault(address, name)
        if other != name:
            yield Problem.at(
                ["hosts", name, "address"],
                str(address),
                f"host {other} has the same address; every host needs its own",
            )


def _recovery(recovery: Raw, hosts: Mapping[str, Raw]) -> Iterator[Problem]:
    controllers = sorted(name for name, host in hosts.items() if host.get("role") == "controller")
    controller, snapshot = recovery.get("controller"), recovery.get("snapshot")
    if controller is not None and controllers and controller not in controllers:
        yield Problem.at(
            ["recovery", "controller"],
            controller,
            f"no controller has this name; use one of {', '.join(controllers)}",
        )
    if snapshot is None:
        return
    if _whole(recovery.get("generation", 0)) == 0:
        yield Problem.at(
            ["recovery", "snapshot"],
            snapshot,
            "it is used by a recovery only: leave it out, or raise kubepivot:recovery.generation",
        )
    if len(controllers) > 1:
        yield Problem.at(
            ["recovery", "snapshot"],
            snapshot,
            "several controllers cannot be restored from a snapshot yet: leave it out, to recover with the "
            "data that etcd has",
        )


def _hosts(raw: Raw) -> dict[str, Raw]:
    return {name: host for name, host in _part(raw, "hosts").items() if isinstance(host, Mapping)}


def _part(raw: Raw, key: str) -> Raw:
    part = raw.get(key)
    return part if isinstance(part, Mapping) else {}


def _whole(value: object) -> int | None:
    found = number(value)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _range(value: object) -> IPv4Network | None:
    try:
        return IPv4Network(value, strict=False) if isinstance(value, str) else None
    except ValueError:
        return None


def _address(value: object) -> IPv4Address | None:
    try:
        return IPv4Address(value) if isinstance(value, str) else None
    except ValueError:
        return None
