"""Flags that several components have, and the reasons for which several keep a flag to the program."""

from __future__ import annotations

from components.tables.components.row import SECRETS, Flag

__all__ = [
    "AUTHORITY",
    "GARBAGE",
    "LEADER_FLAGS",
    "LEASE",
    "OWN_HOST",
    "PORT",
    "PROBED",
    "PROXY",
    "RENEWALS",
    "SERVER_FLAGS",
    "SERVICES",
    "SERVING",
    "SHARED",
    "TOKENS",
]

# A hand-over without a gap rests on the flag, it guards the cluster, a key of the config says the same, or
# the component would not start.
AUTHORITY = "the components, and Pulumi, log in with certificates of the cluster's authority"
GARBAGE = "without the garbage collector the pods of what is deleted go on"
LEASE = "the hand-over waits for the lease of the component's own name"
OWN_HOST = "the component asks the kube-apiserver of its own host, with the certificate made for it"
PORT = "kube-apiserver's is kubepivot:api.port, those of the others are fixed"
PROBED = "probes and the other components ask on the loopback"
PROXY = "whoever may act as a front proxy can act as any user"
RENEWALS = "by the usual times between renewals of a lease the pod-checkpointer tells whether anybody leads"
SERVICES = "it is kubepivot:network.services"
SERVING = "by the name in that certificate the hand-over tells who answers"
SHARED = "the old and the new one serve at the same port while they hand over"
TOKENS = "tokens of service accounts are signed, and checked, with the cluster's own key"

_KUBECONFIG = f"{SECRETS}/kubeconfig"

SERVER_FLAGS = (
    Flag("authorization-always-allow-paths", reserved=PROBED),
    Flag("permit-port-sharing", "true", SHARED),
    Flag("profiling", "false"),
    Flag("tls-sni-cert-key", reserved=SERVING),
)
"""Of all three."""

LEADER_FLAGS = (
    *SERVER_FLAGS,
    Flag("authentication-kubeconfig", _KUBECONFIG, OWN_HOST),
    Flag("authorization-kubeconfig", _KUBECONFIG, OWN_HOST),
    Flag("bind-address", "127.0.0.1", PROBED),
    Flag("kubeconfig", _KUBECONFIG, OWN_HOST),
    Flag("leader-elect", "true", LEASE),
    Flag("leader-elect-*", reserved=RENEWALS),
    # The temporary ones start before the API, and would look for it every 2 s.
    Flag("leader-elect-retry-period", "${retry-period}", RENEWALS),
    Flag("leader-elect-resource-*", reserved=LEASE),
    Flag("master", reserved=OWN_HOST),
    Flag("requestheader-*", reserved=PROXY),
    Flag("secure-port", reserved=PORT),
    Flag("tls-cert-file", reserved=SERVING),
    Flag("tls-private-key-file", reserved=SERVING),
)
"""Of those of which one leads."""
