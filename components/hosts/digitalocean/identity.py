"""A droplet's identity: it is known by a key from the first connection, and by one of its own after that."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pulumi
import pulumi_digitalocean as digitalocean
import pulumi_tls as tls
import yaml

from components.archive import File
from components.assets.document import env_file
from components.assets.templates import read, script
from components.config import ClusterConfig
from components.hosts.host import Host, Ssh
from components.ssh import Payload, RemoteStep

__all__ = ["FirstContact", "make_host"]

# A droplet is active some time before its SSH server is, and that is some time before cloud-init has ended.
DIAL_TRIES = 30
FIRST_SECONDS, IDENTITY_SECONDS = 420, 60


class FirstContact:
    """The host key that a droplet boots with. It comes by user data, which every process on the droplet may
    read from its metadata for ever: the second step takes it away, and it is worth nothing from then on.
    """

    def __init__(self, name: str, host: str, generation: int, opts: pulumi.ResourceOptions) -> None:
        # Another droplet has another one: the metadata of the one before may have been read.
        self.key = tls.PrivateKey(
            f"{name}-{host}-first-contact-{generation}", algorithm="ECDSA", ecdsa_curve="P256", opts=opts
        )
        pair = pulumi.Output.all(self.key.private_key_openssh, self.key.public_key_openssh)
        text: pulumi.Output[str] = pair.apply(_user_data)
        self.user_data: pulumi.Output[str] = pulumi.Output.secret(text)


def _user_data(pair: list[str]) -> str:
    private, public = pair
    keys = {"ecdsa_private": private, "ecdsa_public": public.strip()}
    # Without these cloud-init makes keys of its own, which nobody could know.
    return "#cloud-config\n" + yaml.safe_dump({"ssh_deletekeys": True, "ssh_keys": keys}, sort_keys=False)


def make_host(
    name: str,
    cfg: ClusterConfig,
    host: str,
    droplet: digitalocean.Droplet,
    first: FirstContact,
    login: tls.PrivateKey,
    *,
    reserved: pulumi.Input[str],
    opts: pulumi.ResourceOptions,
) -> Host:
    """Gives a droplet a host key that only it and the stack's state have, and returns it as a host.

    In two steps, each of which can be run again after a crash: the first brings the new key beside the old
    one, the second, which logs in by the new one, removes the old. The former never runs again on a droplet
    that has had it, whatever a release changes of it: nobody could log in by the old key.
    """
    assert cfg.digital_ocean is not None
    own = tls.PrivateKey(f"{name}-{host}-ssh-host", algorithm="ED25519", opts=opts)
    met = Host(
        name=host,
        role=cfg.hosts[host].role,
        labels=cfg.hosts[host].labels,
        taints=cfg.hosts[host].taints,
        address=droplet.ipv4_address_private,
        ssh=Ssh(
            host=droplet.ipv4_address,
            user="root",
            port=22,
            private_key=login.private_key_openssh,
            host_key=first.key.public_key_openssh.apply(str.strip),
            dial_tries=DIAL_TRIES,
        ),
        instance_id=droplet.id,
        ephemeral=True,
    )
    contact = RemoteStep(
        f"{name}-{host}-first-contact",
        met,
        pulumi.Output.all(own.private_key_openssh, own.public_key_openssh).apply(_contact),
        timeout=FIRST_SECONDS,
        opts=pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(ignore_changes=["connection", "create", "stdin"])
        ),
    )
    known = replace(met, ssh=replace(met.ssh, host_key=own.public_key_openssh.apply(str.strip)))
    identity = RemoteStep(
        f"{name}-{host}-identity",
        known,
        pulumi.Output.from_input(reserved).apply(partial(_identity, cfg)),
        timeout=IDENTITY_SECONDS,
        depends_on=[contact],
        opts=opts,
    )
    # Nothing else logs in before the droplet is itself.
    address = pulumi.Output.all(identity.said, droplet.ipv4_address).apply(lambda values: str(values[1]))
    return replace(known, ssh=replace(known.ssh, host=address))


def _contact(pair: list[str]) -> Payload:
    private, public = pair
    files = {
        "ssh_host_ed25519_key": File(private, mode=0o600),
        "ssh_host_ed25519_key.pub": File(public, mode=0o644),
    }
    return Payload(script=script("first-contact"), files=files)


def _identity(cfg: ClusterConfig, reserved: str) -> Payload:
    section = cfg.digital_ocean
    assert section is not None
    files = {
        "droplet.env": env_file(RESERVED=reserved, POD_METADATA="yes" if section.pods_read_metadata else ""),
        "authorized_keys": File("".join(f"{key}\n" for key in section.ssh_keys), mode=0o600),
        "kubepivot-droplet.service": File(read("files/kubepivot-droplet.service")),
        "keep-droplet": File(script("keep-droplet"), mode=0o755),
    }
    return Payload(script=script("identity"), files=files)
