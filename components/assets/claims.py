"""What the cluster has on a host, for the scripts that look for it, record it and remove it."""

from __future__ import annotations

import shlex

from components.assets.networks import NETWORKS
from components.assets.templates import script

__all__ = ["claims_script"]


def claims_script() -> str:
    """`claims.sh`, and before it what networks leave: of any, since a host may have had another."""
    networks = NETWORKS.values()
    found = {
        "network_trees": " ".join(path for network in networks for path in network.directories),
        "network_links": " ".join(link for network in networks for link in network.links),
        "network_tables": "|".join(table for network in networks for table in network.tables),
        "network_chains": "|".join(chain for network in networks for chain in network.chains),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in found.items()) + script("claims")
