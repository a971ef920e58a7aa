"""Platform digitalocean: hosts are droplets in a network of their own, behind a firewall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as digitalocean
import pulumi_tls as tls

from components.config import ClusterConfig
from components.config.digitalocean import DigitalOceanConfig
from components.hosts.digitalocean.checks import overlaps, size_of
from components.hosts.digitalocean.cleanup import Cleanup
from components.hosts.digitalocean.firewall import let_balancer_in, make_firewalls
from components.hosts.digitalocean.identity import FirstContact, make_host
from components.hosts.host import Hosts
from components.lasting import Lasting, Values, refuse

__all__ = ["digitalocean_hosts"]

# Who asked for the name before the record was there knows no better for that long.
TTL_SECONDS = 60
# A controller is out of the balancer 6 s after its last good answer; the API's own values take 30 s for that,
# and 50 s until a new apiserver is asked.
CHECK_SECONDS, CHECKS = 3, 2


def digitalocean_hosts(
    name: str, cfg: ClusterConfig, opts: pulumi.ResourceOptions
) -> tuple[Hosts, pulumi.Input[str]]:
    """Makes a droplet for every host in the config, and what they need: network, tags, firewalls, a login
    key, and a load balancer or a reserved IP for the API, which stays when a droplet is replaced.

    All of it has the cluster's mark and goes with the cluster. A preview asks DigitalOcean for nothing new.
    """
    section = cfg.digital_ocean
    assert section is not None
    login = tls.PrivateKey(f"{name}-ssh-login", algorithm="ED25519", opts=opts)
    cleanup = Cleanup(name, cfg, login, opts)
    site = _make_site(name, cfg, section, login, cleanup, opts)
    first = {
        host: FirstContact(name, host, each.generation, opts) for host, each in sorted(cfg.hosts.items())
    }
    droplets = {
        host: _make_droplet(name, cfg, section, host, site, contact, cleanup)
        for host, contact in first.items()
    }
    endpoint, reserved = _make_endpoint(name, cfg, section, site, droplets, cleanup)
    hosts = {
        host: make_host(
            name,
            cfg,
            host,
            droplet,
            first[host],
            login,
            reserved=reserved if host == cfg.bootstrap_controller else "",
            opts=opts,
        )
        for host, droplet in droplets.items()
    }
    return hosts, endpoint


@dataclass(frozen=True, kw_only=True)
class _Site:
    """Where droplets are put."""

    vpc: pulumi.Input[str]
    key: digitalocean.SshKey
    tag: digitalocean.Tag
    controllers: digitalocean.Tag
    firewalls: Sequence[pulumi.Resource]


def _make_site(
    name: str,
    cfg: ClusterConfig,
    section: DigitalOceanConfig,
    login: tls.PrivateKey,
    cleanup: Cleanup,
    opts: pulumi.ResourceOptions,
) -> _Site:
    # The first of all: before it is made, the account is asked whether it has what the config names.
    tag = digitalocean.Tag(f"{name}-tag", name=cleanup.mark, opts=cleanup.marked)
    values = _lasting(cfg, section)
    lasting = Lasting(
        "digitalocean-lasting",
        pulumi.Output.from_input(values),
        values,
        pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[tag])),
    )
    then = pulumi.ResourceOptions.merge(cleanup.marked, pulumi.ResourceOptions(depends_on=[lasting]))
    controllers = digitalocean.Tag(f"{name}-controllers-tag", name=cleanup.controllers, opts=then)
    vpc: pulumi.Input[str] = section.vpc or ""
    if section.vpc is None:
        made = digitalocean.Vpc(
            f"{name}-vpc", name=cleanup.mark, region=section.region, ip_range=section.vpc_cidr, opts=then
        )
        # DigitalOcean may choose what the cluster has for its pods.
        vpc = pulumi.Output.all(made.id, made.ip_range).apply(lambda known: _outside(cfg, *known))
    tagged = pulumi.ResourceOptions.merge(then, pulumi.ResourceOptions(depends_on=[controllers]))
    return _Site(
        vpc=vpc,
        key=digitalocean.SshKey(
            f"{name}-ssh-key", name=cleanup.mark, public_key=login.public_key_openssh, opts=then
        ),
        tag=tag,
        controllers=controllers,
        firewalls=make_firewalls(name, cfg, cleanup, tagged),
    )


def _outside(cfg: ClusterConfig, vpc: str, ip_range: str | None) -> str:
    """The VPC, if its range has no address of pods and services."""
    if ip_range:  # None where a destroy runs the program and it is gone
        refuse(list(overlaps(cfg, ip_range)))
    return vpc


def _lasting(cfg: ClusterConfig, section: DigitalOceanConfig) -> Values:
    """What can't be changed without making every droplet, or the way to the API, anew."""
    return {
        "digitalOcean.region": section.region,
        "digitalOcean.vpc": section.vpc or "one of the cluster's own",
        "digitalOcean.vpcCidr": section.vpc_cidr or "what DigitalOcean chose",
        "digitalOcean.loadBalancer": str(_is_balanced(cfg, section)).lower(),
        "digitalOcean.domain": section.domain or "none",
    }


def _is_balanced(cfg: ClusterConfig, section: DigitalOceanConfig) -> bool:
    return len(cfg.controllers) > 1 if section.load_balancer is None else section.load_balancer


def _make_droplet(
    name: str,
    cfg: ClusterConfig,
    section: DigitalOceanConfig,
    host: str,
    site: _Site,
    first: FirstContact,
    cleanup: Cleanup,
) -> digitalocean.Droplet:
    """Replaced when its generation changes, and for no other value of the config."""
    is_controller = cfg.hosts[host].role == "controller"
    own = pulumi.ResourceOptions(
        depends_on=list(site.firewalls),
        # Another one would have the provider make the droplet anew, and so would a release that writes
        # something else there.
        ignore_changes=["image", "monitoring", "sshKeys", "userData"],
        replacement_trigger=cfg.hosts[host].generation,
        protect=section.protect and is_controller,
        custom_timeouts=pulumi.CustomTimeouts(create="15m", update="15m", delete="5m"),
    )
    return digitalocean.Droplet(
        f"{name}-{host}-droplet",
        name=f"{name}-{host}",
        region=section.region,
        size=size_of(cfg, host),
        # A bigger disk could not be taken back, nor the size with it.
        resize_disk=False,
        image=section.image,
        vpc_uuid=site.vpc,
        ssh_keys=[site.key.fingerprint],
        tags=[site.tag.name, *([site.controllers.name] if is_controller else []), *section.tags],
        monitoring=section.monitoring,
        backups=section.backups,
        droplet_agent=False,
        user_data=first.user_data,
        opts=pulumi.ResourceOptions.merge(cleanup.marked, own),
    )


def _make_endpoint(
    name: str,
    cfg: ClusterConfig,
    section: DigitalOceanConfig,
    site: _Site,
    droplets: Mapping[str, digitalocean.Droplet],
    cleanup: Cleanup,
) -> tuple[pulumi.Input[str], pulumi.Input[str]]:
    """Makes what leads to the API. Gives its name or address, and the reserved IP, "" with a balancer."""
    controller = droplets[cfg.bootstrap_controller]
    shown: list[pulumi.Output[str]] = [droplet.droplet_urn for droplet in droplets.values()]
    reserved: pulumi.Input[str] = ""
    address: pulumi.Output[str]
    if _is_balanced(cfg, section):
        balancer = _make_balancer(name, cfg, section, site, droplets, cleanup)
        let_balancer_in(name, cfg, cleanup, balancer)
        address = balancer.ip
    else:
        # Recorded before it is assigned: that takes a while, and a run that is killed meanwhile would leave
        # an address that nobody knows and somebody pays. Made when nothing else is, for the same reason.
        last = pulumi.ResourceOptions(depends_on=list(droplets.values()))
        ip = digitalocean.ReservedIp(
            f"{name}-reserved-ip",
            region=section.region,
            opts=pulumi.ResourceOptions.merge(cleanup.marked, last),
        )
        tag = digitalocean.Tag(
            f"{name}-reserved-ip-tag", name=cleanup.tag_of(ip.ip_address), opts=cleanup.marked
        )
        assignment = digitalocean.ReservedIpAssignment(
            f"{name}-reserved-ip-assignment",
            ip_address=ip.ip_address,
            droplet_id=controller.id.apply(int),
            opts=pulumi.ResourceOptions.merge(cleanup.marked, pulumi.ResourceOptions(depends_on=[tag])),
        )
        address = reserved = assignment.ip_address
        shown.append(ip.reserved_ip_urn)
    if section.project is not None:
        # Neither updated nor deleted: the provider would move a droplet that is gone by then.
        lasting = pulumi.ResourceOptions(retain_on_delete=True, replace_on_changes=["resources"])
        digitalocean.ProjectResources(
            f"{name}-project",
            project=section.project,
            resources=shown,
            opts=pulumi.ResourceOptions.merge(cleanup.opts, lasting),
        )
    if section.domain is None:
        return address, reserved
    record = digitalocean.DnsRecord(
        f"{name}-record",
        domain=section.domain,
        type="A",
        name=name,
        value=address,
        ttl=TTL_SECONDS,
        opts=cleanup.opts,
    )
    return record.fqdn, reserved


def _make_balancer(
    name: str,
    cfg: ClusterConfig,
    section: DigitalOceanConfig,
    site: _Site,
    droplets: Mapping[str, digitalocean.Droplet],
    cleanup: Cleanup,
) -> digitalocean.LoadBalancer:
    hosts = [droplet.ipv4_address.apply(lambda ip: f"cidr:{ip}/32") for droplet in droplets.values()]
    return digitalocean.LoadBalancer(
        f"{name}-balancer",
        name=cleanup.mark,
        region=section.region,
        vpc_uuid=site.vpc,
        # Each of its updates puts it back into the project that it was made in.
        project_id=section.project,
        droplet_tag=site.controllers.name,
        forwarding_rules=[
            digitalocean.LoadBalancerForwardingRuleArgs(
                entry_protocol="tcp", entry_port=cfg.api.port, target_protocol="tcp", target_port=cfg.api.port
            )
        ],
        healthcheck=digitalocean.LoadBalancerHealthcheckArgs(
            protocol="https",
            port=cfg.api.port,
            path="/readyz",
            check_interval_seconds=CHECK_SECONDS,
            response_timeout_seconds=CHECK_SECONDS,
            healthy_threshold=CHECKS,
            unhealthy_threshold=CHECKS,
        ),
        # No firewall of droplets applies to a balancer. Hosts reach it by their public addresses.
        firewall=digitalocean.LoadBalancerFirewallArgs(
            allows=[*(f"cidr:{admins}" for admins in section.admin_cidrs), *hosts]
        ),
        opts=cleanup.marked,
    )
