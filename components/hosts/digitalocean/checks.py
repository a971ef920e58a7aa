"""What only DigitalOcean can say of a config: asked before the first resource is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from typing import Any

from components.config import ClusterConfig, Problem
from components.hosts.digitalocean.account import Account, Refused

__all__ = ["cluster_problems", "host_problems", "overlaps", "size_of"]

CONTROLLER_MEGABYTES = 2048
"""Memory below which etcd and the control plane do not come up."""
_SECTION = "digitalOcean"

Catalogue = Mapping[str, Mapping[str, Any]]


def size_of(cfg: ClusterConfig, host: str) -> str:
    """The size of a host's droplet."""
    assert cfg.digital_ocean is not None
    return cfg.hosts[host].size or cfg.digital_ocean.size


def cluster_problems(account: Account, cfg: ClusterConfig) -> list[Problem]:
    """All that is wrong with the account, or with the config for this account. Makes nothing."""
    try:
        owner = (account.get("/v2/account") or {})["account"]
    except Refused as error:
        if error.status not in (401, 403):
            raise
        return [_token(f"DigitalOcean refuses it ({error}): make one with the scopes that the docs list")]
    if owner["status"] == "locked":
        return [_token("its account is locked; see DigitalOcean's control panel")]
    return [
        *_limit(account, cfg, owner["droplet_limit"]),
        *_region(account, cfg),
        *(problem for host in cfg.hosts for problem in host_problems(account, cfg, host)),
        *_image(account, cfg),
        *_vpc(account, cfg),
        *_elsewhere(account, cfg),
    ]


def host_problems(account: Account, cfg: ClusterConfig, host: str) -> list[Problem]:
    """What is wrong with the size of a host's droplet."""
    return list(_size(account, cfg, host))


def _size(account: Account, cfg: ClusterConfig, host: str) -> Iterator[Problem]:
    assert cfg.digital_ocean is not None
    sizes, size = _sizes(account), size_of(cfg, host)
    own = cfg.hosts[host].size is not None
    path = ["hosts", host, "size"] if own else [_SECTION, "size"]
    region, found = cfg.digital_ocean.region, sizes.get(size)
    usable = sorted(name for name, each in sizes.items() if region in each["regions"] and each["available"])
    if found is None or size not in usable:
        # Of a region that is unknown nothing can be said.
        if usable:
            what = (
                "DigitalOcean has no such size" if found is None else f"region {region} does not have it now"
            )
            yield Problem.at(path, size, f"{what}; use one of those of `doctl compute size list`")
    elif cfg.hosts[host].role == "controller" and found["memory"] < CONTROLLER_MEGABYTES:
        mend = f"controller {host} needs {CONTROLLER_MEGABYTES} MB of memory, and this has {found['memory']}"
        yield Problem.at(path, size, f"{mend}; use for example s-2vcpu-4gb")


def _token(mend: str) -> Problem:
    return Problem(key="digitalocean:token", value="(secret)", mend=mend)


def _sizes(account: Account) -> Catalogue:
    return account.once("/v2/sizes", "sizes")


def _limit(account: Account, cfg: ClusterConfig, limit: int) -> Iterator[Problem]:
    there = sum(1 for _ in account.all("/v2/droplets", "droplets"))
    if there + len(cfg.hosts) > limit:
        yield Problem.at(
            ["hosts"],
            cfg.hosts,
            f"{len(cfg.hosts)} droplets beside the {there} that are there are more than the account's limit, "
            f"{limit}; have it raised, or use fewer hosts",
        )


def _region(account: Account, cfg: ClusterConfig) -> Iterator[Problem]:
    assert cfg.digital_ocean is not None
    region = cfg.digital_ocean.region
    open_to_all = sorted(
        name for name, each in account.once("/v2/regions", "regions").items() if each["available"]
    )
    if region not in open_to_all:
        mend = f"it is unknown, or takes nothing new; use one of {', '.join(open_to_all)}"
        yield Problem.at([_SECTION, "region"], region, mend)


def _image(account: Account, cfg: ClusterConfig) -> Iterator[Problem]:
    assert cfg.digital_ocean is not None
    image, region = cfg.digital_ocean.image, cfg.digital_ocean.region
    answer = account.get(f"/v2/images/{image}")
    if answer is None or region not in answer["image"]["regions"]:
        mend = f"no such image is in region {region}; see `doctl compute image list-distribution`"
        yield Problem.at([_SECTION, "image"], image, mend)


def _vpc(account: Account, cfg: ClusterConfig) -> Iterator[Problem]:
    assert cfg.digital_ocean is not None
    section = cfg.digital_ocean
    if section.vpc is not None:
        answer = account.get(f"/v2/vpcs/{section.vpc}")
        if answer is None:
            yield Problem.at([_SECTION, "vpc"], section.vpc, "no VPC has this id; see `doctl vpcs list`")
        elif answer["vpc"]["region"] != section.region:
            mend = f"this VPC is in region {answer['vpc']['region']}; use one of {section.region}"
            yield Problem.at([_SECTION, "vpc"], section.vpc, mend)
        else:
            yield from overlaps(cfg, answer["vpc"]["ip_range"])
    elif section.vpc_cidr is not None:
        for other in account.all("/v2/vpcs", "vpcs"):
            if IPv4Network(other["ip_range"]).overlaps(IPv4Network(section.vpc_cidr)):
                mend = f"VPC {other['name']} has {other['ip_range']}; choose a range that no VPC has"
                yield Problem.at([_SECTION, "vpcCidr"], section.vpc_cidr, mend)


def overlaps(cfg: ClusterConfig, vpc: str) -> Iterator[Problem]:
    """The cluster's ranges that a VPC of this range takes addresses of."""
    for key, text in (("pods", cfg.network.pods), ("services", cfg.network.services)):
        if IPv4Network(text).overlaps(IPv4Network(vpc)):
            yield Problem.at(["network", key], text, f"it overlaps the VPC's range, {vpc}; choose another")


def _elsewhere(account: Account, cfg: ClusterConfig) -> Iterator[Problem]:
    """What is named and belongs to the user."""
    assert cfg.digital_ocean is not None
    domain, project = cfg.digital_ocean.domain, cfg.digital_ocean.project
    if domain is not None and account.get(f"/v2/domains/{domain}") is None:
        mend = "the account has no such domain; see `doctl compute domain list`"
        yield Problem.at([_SECTION, "domain"], domain, mend)
    if project is not None and account.get(f"/v2/projects/{project}") is None:
        mend = "no project has this id; see `doctl projects list`"
        yield Problem.at([_SECTION, "project"], project, mend)
