"""A droplet in a network of its own."""

from __future__ import annotations

import pulumi
import pulumi_digitalocean as do

config = pulumi.Config()
provider = do.Provider(
    "account", api_endpoint=config.require("endpoint"), token=config.require_secret("token")
)
opts = pulumi.ResourceOptions(provider=provider)

vpc = do.Vpc("vpc", region="fra1", opts=opts)
key = do.SshKey("key", public_key=config.require("publicKey"), opts=opts)
do.Droplet(
    "machine",
    name="machine",
    image="debian-12-x64",
    region="fra1",
    size="s-1vcpu-2gb",
    ssh_keys=[key.fingerprint],
    vpc_uuid=vpc.id,
    opts=opts,
)
