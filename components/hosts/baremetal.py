"""Platform baremetal: machines that exist already. Creates nothing."""

from __future__ import annotations

import pulumi

from components.config import ClusterConfig
from components.hosts.host import Host, Hosts, Ssh

__all__ = ["baremetal_hosts"]


def baremetal_hosts(name: str, cfg: ClusterConfig, opts: pulumi.ResourceOptions) -> tuple[Hosts, None]:
    """Describes the machines in the config.

    A machine is known by its host key: installing it anew changes that, so the config has to change as
    well, and every step runs again. The machine that had the old key is not reset.
    """
    hosts = {
        host_name: Host(
            name=host_name,
            role=host.role,
            address=cfg.addresses[host_name],
            ssh=Ssh(
                host=cfg.addresses[host_name],
                user=host.user,
                port=host.port,
                private_key=pulumi.Output.secret(host.key.get_secret_value()),
                host_key=host.host_key,
                dial_tries=4,
            ),
            instance_id=host.host_key,
            ephemeral=False,
            labels=host.labels,
            taints=host.taints,
        )
        for host_name, host in cfg.hosts.items()
        if host.key is not None and host.host_key is not None
    }
    return hosts, None
