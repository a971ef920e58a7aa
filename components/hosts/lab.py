"""Platform lab: hosts are containers on this machine that run systemd and sshd."""

from __future__ import annotations

import base64
import shlex

import pulumi
import pulumi_command as command
import pulumi_tls as tls

from components.archive import File, pack
from components.config import ClusterConfig, HostConfig
from components.hosts.host import Host, Hosts, Ssh

__all__ = ["lab_hosts"]

# Why each is needed: a nested runtime mounts, makes devices and loads BPF programs, so neither seccomp nor
# the masked /proc of a container may stand in its way; CAP_SYS_RESOURCE is dropped because `--privileged`
# fails on machines that lack it; /var is a volume because overlayfs cannot lie on overlayfs.
RUN_OPTIONS = """
    --cap-add ALL --cap-drop SYS_RESOURCE
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined
    --cgroupns private --device-cgroup-rule 'a *:* rwm'
    --device /dev/kmsg --device /dev/fuse --device /dev/net/tun
    --tmpfs /run --tmpfs /tmp:exec --volume /var --volume /lib/modules:/lib/modules:ro
    --restart no
"""


def lab_hosts(name: str, cfg: ClusterConfig, opts: pulumi.ResourceOptions) -> tuple[Hosts, None]:
    """Makes a container for every host in the config, each with an SSH host key of its own.

    Needs the image and the network named in the config (`make up` makes both). The container's volume goes
    with it.
    """
    login = tls.PrivateKey(f"{name}-ssh-login", algorithm="ED25519", opts=opts)
    hosts = {
        host_name: _lab_host(name, host_name, host, cfg, login, opts) for host_name, host in cfg.hosts.items()
    }
    return hosts, None


def _lab_host(
    cluster: str,
    name: str,
    host: HostConfig,
    cfg: ClusterConfig,
    login: tls.PrivateKey,
    opts: pulumi.ResourceOptions,
) -> Host:
    address = cfg.addresses[name]
    identity = tls.PrivateKey(f"{cluster}-{name}-ssh-host", algorithm="ED25519", opts=opts)
    keys = pulumi.Output.all(
        identity.private_key_openssh, identity.public_key_openssh, login.public_key_openssh
    )
    archive: pulumi.Input[str] = keys.apply(_identity_archive)
    container = command.local.Command(
        f"{cluster}-{name}-container",
        create=_create_script(cluster, name, address, cfg),
        delete=f"docker rm --force --volumes {_container(cluster, name)}",
        stdin=pulumi.Output.secret(archive),
        logging=command.local.Logging.NONE,
        add_previous_output_in_env=False,
        # A container that is there is only started, so these need another one.
        triggers=[address, cfg.lab.image, cfg.lab.network],
        opts=pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(delete_before_replace=True, custom_timeouts=_TIMEOUT)
        ),
    )
    return Host(
        name=name,
        role=host.role,
        address=address,
        ssh=Ssh(
            # The container has to run before anything logs in to it.
            host=container.stdout.apply(lambda _: address),
            user="root",
            port=22,
            private_key=login.private_key_openssh,
            host_key=identity.public_key_openssh.apply(str.strip),
            dial_tries=20,
        ),
        instance_id=container.stdout,
        ephemeral=True,
        nested=True,
        labels=host.labels,
        taints=host.taints,
    )


_TIMEOUT = pulumi.CustomTimeouts(create="2m", delete="1m")


def _container(cluster: str, name: str) -> str:
    return shlex.quote(f"{cluster}-{name}")


def _create_script(cluster: str, name: str, address: str, cfg: ClusterConfig) -> str:
    """Converges from nothing, from a stopped container and from one that has no identity yet."""
    container = _container(cluster, name)
    options = " ".join(RUN_OPTIONS.split())
    return f"""set -eu
if docker inspect {container} >/dev/null 2>&1; then
  docker start {container} >/dev/null
else
  docker run --detach --name {container} --hostname {shlex.quote(name)} \\
    --network {shlex.quote(cfg.lab.network)} --ip {address} \\
    --label kubepivot.cluster={shlex.quote(cluster)} \\
    {options} {shlex.quote(cfg.lab.image)} >/dev/null
fi
base64 -d | docker exec --interactive {container} /usr/local/sbin/host-identity
docker inspect --format '{{{{.Id}}}}' {container}
"""


def _identity_archive(keys: list[str]) -> str:
    private, public, login = keys
    files = {
        "ssh_host_ed25519_key": File(private, mode=0o600),
        "ssh_host_ed25519_key.pub": File(public, mode=0o644),
        "authorized_keys": File(login, mode=0o600),
    }
    return base64.b64encode(pack(files, compress=False)).decode()
