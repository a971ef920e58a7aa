"""kube-controller-manager: its flags, files, image and port."""

from __future__ import annotations

from components.tables.components.images import kubernetes_image
from components.tables.components.row import SECRETS, Component, Flag
from components.tables.components.shared_flags import AUTHORITY, GARBAGE, LEADER_FLAGS, SERVICES, TOKENS

__all__ = ["KUBE_CONTROLLER_MANAGER"]

# Why a flag is the program's.
_ACCOUNTS = "every controller has the rights of an account of its own"
_PODS = "the pods' range is kubepivot:network.pods, and every node gets a /24 of it"
_SIGNING = "kubelets' certificates are signed by the cluster's authority"

KUBE_CONTROLLER_MANAGER = Component(
    name="kube-controller-manager",
    images=(kubernetes_image("kube-controller-manager"),),
    port=10257,
    cpu="20m",
    memory="32Mi",
    priority="system-cluster-critical",
    grace_seconds=30,
    flag_example={"terminated-pod-gc-threshold": "500"},
    flags=(
        *LEADER_FLAGS,
        # The temporary one starts beside its kube-apiserver: it would end, and come back up to 10 s later.
        Flag("authentication-tolerate-lookup-failure", "${tolerate-lookup-failure}"),
        # What these four are is the network's to say.
        Flag("allocate-node-cidrs", reserved=_PODS),
        Flag("cidr-allocator-type", reserved=_PODS),
        Flag("cluster-cidr", reserved=_PODS),
        Flag("node-cidr-mask-size*", reserved=_PODS),
        Flag("client-ca-file", f"{SECRETS}/ca.crt", AUTHORITY),
        Flag("cluster-signing-*", reserved=_SIGNING),
        Flag("cluster-signing-cert-file", f"{SECRETS}/ca.crt", _SIGNING),
        Flag("cluster-signing-duration"),
        Flag("cluster-signing-key-file", f"{SECRETS}/ca.key", _SIGNING),
        Flag("controllers", "*", is_list=True),
        Flag("enable-garbage-collector", reserved=GARBAGE),
        Flag("feature-gates", "${controller-manager-gates}", is_list=True),
        # The temporary one makes an account for each controller before any begins: 5 s at the usual rate.
        Flag("kube-api-burst", "${controller-manager-qps}"),
        Flag("kube-api-qps", "${controller-manager-qps}"),
        Flag("root-ca-file", f"{SECRETS}/ca.crt", AUTHORITY),
        Flag("service-account-private-key-file", f"{SECRETS}/service-account.key", TOKENS),
        Flag("service-cluster-ip-range", "${services}", SERVICES),
        Flag("use-service-account-credentials", "true", _ACCOUNTS),
    ),
    secrets={
        "ca.crt": "ca.crt",
        "ca.key": "ca.key",
        "kubeconfig": "controller-manager.kubeconfig",
        "service-account.key": "service-account.key",
    },
)
