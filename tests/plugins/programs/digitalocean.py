"""One of every resource type of DigitalOcean that the program uses, some named by hand."""

from __future__ import annotations

import pulumi
import pulumi_digitalocean as do

config = pulumi.Config()
names = config.require_object("names")
provider = do.Provider(
    "account", api_endpoint=config.require("endpoint"), token=config.require_secret("token")
)
opts = pulumi.ResourceOptions(provider=provider)
region = "fra1"

vpc = do.Vpc("vpc", name="net", region=region, description=config.require("description"), opts=opts)
tag = do.Tag("tag", name="node", opts=opts)
key = do.SshKey("key", name=names["key"], public_key=config.require("publicKey"), opts=opts)
machine = do.Droplet(
    "machine",
    name=names["machine"],
    image="debian-12-x64",
    region=region,
    size=config.require("size"),
    ssh_keys=[key.fingerprint],
    user_data=pulumi.Output.secret(config.require("userData")),
    vpc_uuid=vpc.id,
    tags=[tag.name],
    opts=opts,
)
other = do.Droplet(
    "other",
    image="debian-12-x64",
    region=region,
    size="s-1vcpu-1gb",
    ssh_keys=[key.fingerprint],
    vpc_uuid=vpc.id,
    opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(ignore_changes=["sshKeys"])),
)
firewall = do.Firewall(
    "firewall",
    tags=[tag.name],
    inbound_rules=[
        do.FirewallInboundRuleArgs(
            protocol="tcp", port_range="22", source_addresses=config.require_object("admins")
        ),
        do.FirewallInboundRuleArgs(protocol="icmp", source_tags=[tag.name]),
    ],
    outbound_rules=[
        do.FirewallOutboundRuleArgs(protocol="udp", port_range="all", destination_addresses=["0.0.0.0/0"])
    ],
    opts=opts,
)
balancer = do.LoadBalancer(
    "balancer",
    name=names["balancer"],
    region=region,
    vpc_uuid=vpc.id,
    # Not by ProjectResources: an update of the balancer would move it back to where it was made.
    project_id=config.require("project"),
    droplet_tag=tag.name,
    forwarding_rules=[
        do.LoadBalancerForwardingRuleArgs(
            entry_protocol="tcp", entry_port=6443, target_protocol="tcp", target_port=6443
        )
    ],
    healthcheck=do.LoadBalancerHealthcheckArgs(
        protocol="https", port=6443, path="/readyz", healthy_threshold=2
    ),
    firewall=do.LoadBalancerFirewallArgs(allows=[f"cidr:{each}" for each in config.require_object("admins")]),
    opts=opts,
)
do.DnsRecord("record", domain="example.com", type="A", name="api", value=balancer.ip, ttl=300, opts=opts)
kept = do.ReservedIp("kept", region=region, droplet_id=machine.id.apply(int), opts=opts)
lent = do.ReservedIp("lent", region=region, opts=opts)
do.ReservedIpAssignment("assignment", ip_address=lent.ip_address, droplet_id=other.id.apply(int), opts=opts)
do.ProjectResources(
    "members",
    project=config.require("project"),
    resources=[other.droplet_urn],
    opts=opts,
)
pulumi.export("address", machine.ipv4_address)
