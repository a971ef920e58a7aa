"""flannel, with VXLAN between nodes."""

from __future__ import annotations

from pathlib import Path

from components.assets.networks.network import Network
from components.tables.components import Image, Workload
from components.tables.ports import Port

__all__ = ["NETWORK"]

_FLANNEL = Image(
    key="flannel",
    reference="ghcr.io/flannel-io/flannel:v${flannel}",
    example="registry.example.com/flannel:v0.26.7",
)
_CNI_PLUGIN = Image(
    key="flannel-cni",
    title="flannel's CNI plugin, with BusyBox",
    reference="ghcr.io/flannel-io/flannel-cni-plugin:v${flannel_cni}",
    example="registry.example.com/flannel-cni-plugin:v1.6.2-flannel1",
)

NETWORK = Network(
    directory=Path(__file__).parent,
    workload=Workload(name="flannel", images=(_FLANNEL, _CNI_PLUGIN)),
    busybox=_CNI_PLUGIN,
    # It takes the range that its Node has.
    flags={"kube-controller-manager": {"allocate-node-cidrs": "true", "cluster-cidr": "${pods}"}},
    ports=(
        Port(
            first=8472,
            protocol="UDP",
            listener="flannel's VXLAN",
            clients="all hosts",
            purpose="all traffic between pods of different nodes",
        ),
    ),
    directories=("/run/flannel",),
    links=("flannel.1",),
    tables=("(ip|ip6) flannel-ipv[46]",),
    chains=("FLANNEL-",),
)
