"""Creates a self-hosted Kubernetes cluster: all stages in order, from hosts to hand-over."""

from __future__ import annotations

import pulumi

from components.api import Api
from components.assets.credentials import client_kubeconfig
from components.backup import make_backups
from components.bootstrap import start_bootstrap
from components.config import ClusterConfig
from components.etcd import swap_etcd
from components.handover import hand_over
from components.hosts import create_hosts
from components.labels import label_nodes
from components.node import make_nodes, prepare_hosts
from components.pki import Pki
from components.recovery import recover
from components.removal import remove_workers
from components.reset import reset_on_destroy
from components.rollout import Rollout
from components.selfhosted import Intents, SelfHosted
from components.snapshot import snapshot_before_upgrade
from components.upgrade import upgrade_hosts
from components.upgrade_path import KubernetesVersion

__all__ = ["Cluster"]


class Cluster(pulumi.ComponentResource):
    """Creates hosts, or takes existing ones, and creates a self-hosted cluster on them.

    It installs nothing on this machine, and nothing in the cluster beyond control plane, checkpointer,
    network, DNS and the policies that hold nodes to their rights.
    """

    def __init__(self, cfg: ClusterConfig, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kubepivot:cluster:Cluster", cfg.name, None, opts)
        name, child = cfg.name, pulumi.ResourceOptions(parent=self)

        hosts, api_host = create_hosts(cfg, child)
        pki = Pki(name, cfg, hosts, api_host, child)
        api = Api(cfg, pki)
        controller = hosts[cfg.bootstrap_controller]

        # Made first, so that a destroy runs it last.
        resets = reset_on_destroy(name, hosts, child)
        prepared = prepare_hosts(name, cfg, hosts, pki, after=resets, opts=child)
        snapshot = snapshot_before_upgrade(name, cfg, controller, api, after=prepared, opts=child)
        # Nothing that runs has been changed so far, but for droplets that are made anew.
        version = KubernetesVersion(cfg, api, [snapshot], child)
        nodes = make_nodes(name, cfg, hosts, pki, after=[version], opts=child)
        stores = swap_etcd(name, cfg, hosts, pki, nodes, opts=child)
        intents = Intents(name, cfg, hosts, pki, after=[version], opts=child)
        recovered = recover(name, cfg, hosts, pki, intents.token, after=stores, opts=child)
        bootstrap = start_bootstrap(name, cfg, controller, pki, after=[*stores, *recovered], opts=child)
        label_nodes(name, hosts, api, nodes, bootstrap=bootstrap, opts=child)
        rollout = Rollout(cfg, pki, api)
        selfhosted = SelfHosted(name, cfg, pki, intents, bootstrap, rollout, child)
        handed_over = hand_over(
            name,
            cfg,
            controller,
            pki,
            workloads=selfhosted.workloads,
            token=intents.token,
            after=selfhosted.objects,
            gate=rollout.of_everything(),
            opts=child,
        )
        remove_workers(name, cfg, controller, pki, nodes, bootstrap=bootstrap, opts=child)
        upgrade_hosts(name, cfg, hosts, api, nodes, after=handed_over, opts=child)
        self.backups = make_backups(name, cfg, hosts, after=handed_over, opts=child)

        self.api_endpoint = pki.read(lambda machines, _: cfg.api_endpoint(machines.api_host))
        self.ca_certificate = pki.ca_certificate
        self.kubeconfig = pki.read(
            lambda machines, texts: client_kubeconfig(cfg, machines.api_host, texts, "admin")
        )
        self.kubernetes_version = cfg.kubernetes_version
        self.nodes = {host.name: {"role": host.role, "address": host.address} for host in hosts.values()}
        self.register_outputs({})
