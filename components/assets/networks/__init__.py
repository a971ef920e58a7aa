"""Networks between the pods of different nodes, a folder each. Data, templates and shell; no Pulumi.

A folder has `manifests/`, its objects; `keep-node.sh`, functions by which a host gives a Node that somebody
deleted the addresses of its pods again; and a `Network`, which says what else there is to know of it.
"""

from __future__ import annotations

from components.assets.networks import flannel
from components.assets.networks.network import Network

__all__ = ["NETWORKS", "Network"]

NETWORKS: dict[str, Network] = {network.workload.name: network for network in (flannel.NETWORK,)}
