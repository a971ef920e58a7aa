"""kube-apiserver: its flags, files, image and port."""

from __future__ import annotations

from components.tables.components.images import PYTHON_IMAGE, kubernetes_image
from components.tables.components.row import SECRETS, Component, Flag
from components.tables.components.shared_flags import (
    AUTHORITY,
    GARBAGE,
    PORT,
    PROBED,
    PROXY,
    SERVER_FLAGS,
    SERVICES,
    SERVING,
    TOKENS,
)

__all__ = ["KUBE_APISERVER"]

# Why a flag is the program's.
_AUDIENCE = "pods ask with tokens for the cluster's own audience: with another one all would be refused"
_DOMAIN = "it follows from kubepivot:network.domain"
_ENDPOINTS = "it follows from the number of controllers"
_KUBELETS = "kube-apiserver knows kubelets by the cluster's authority, at the addresses of kubepivot:hosts"
_RIGHTS = "rights follow from the authorizers Node and RBAC; others can be added with authorization-mode"
_STORE = "it follows from kubepivot:hosts; during a roll another store would answer half of the requests"
_USERS = (
    "who logs in without a certificate or a token is nobody, but for asking after health: that is in the "
    "program's own authentication config, beside which kube-apiserver takes no other"
)

KUBE_APISERVER = Component(
    name="kube-apiserver",
    images=(kubernetes_image("kube-apiserver"),),
    # The filter beside it is a program in Python.
    borrowed=(PYTHON_IMAGE,),
    port=6443,
    cpu="50m",
    memory="128Mi",
    priority="system-node-critical",
    grace_seconds=75,
    flag_example={"event-ttl": "2h"},
    flags=(
        *SERVER_FLAGS,
        Flag("admission-control", reserved="use enable-admission-plugins"),
        Flag("admission-control-config-file", reserved="it could exempt from NodeRestriction and the like"),
        Flag("advertise-address", "$$(POD_IP)", "it is the address of the pod"),
        Flag("allow-privileged", "true", "kube-proxy is privileged"),
        Flag("anonymous-auth", reserved=_USERS),
        Flag("api-audiences", reserved=_AUDIENCE),
        Flag("authentication-config", f"{SECRETS}/authentication.yaml", _USERS),
        Flag("authentication-token-webhook-config-file", reserved=_USERS),
        Flag("authorization-config", reserved=_RIGHTS),
        Flag("authorization-mode", "Node,RBAC", is_list=True),
        Flag("bind-address", reserved=PROBED),
        Flag("client-ca-file", f"{SECRETS}/ca.crt", AUTHORITY),
        Flag("enable-admission-plugins", "NodeRestriction", is_list=True),
        Flag("enable-garbage-collector", reserved=GARBAGE),
        Flag("endpoint-reconciler-type", "${endpoint-reconciler}", _ENDPOINTS),
        Flag("etcd-cafile", f"{SECRETS}/etcd-ca.crt", _STORE),
        Flag("etcd-certfile", f"{SECRETS}/etcd-client.crt", _STORE),
        Flag("etcd-keyfile", f"{SECRETS}/etcd-client.key", _STORE),
        Flag("etcd-prefix", reserved=_STORE),
        Flag("etcd-servers", "${etcd-servers}", _STORE),
        Flag("etcd-servers-overrides", reserved=_STORE),
        Flag("kubelet-certificate-authority", f"{SECRETS}/ca.crt", _KUBELETS),
        Flag("kubelet-client-certificate", f"{SECRETS}/apiserver-kubelet-client.crt", _KUBELETS),
        Flag("kubelet-client-key", f"{SECRETS}/apiserver-kubelet-client.key", _KUBELETS),
        Flag("kubelet-preferred-address-types", "InternalIP", _KUBELETS),
        Flag("oidc-*", reserved=_USERS),
        Flag("proxy-client-cert-file", f"{SECRETS}/front-proxy-client.crt", PROXY),
        Flag("proxy-client-key-file", f"{SECRETS}/front-proxy-client.key", PROXY),
        Flag("requestheader-*", reserved=PROXY),
        Flag("requestheader-allowed-names", "front-proxy-client", PROXY),
        Flag("requestheader-client-ca-file", f"{SECRETS}/front-proxy-ca.crt", PROXY),
        Flag("requestheader-extra-headers-prefix", "X-Remote-Extra-", PROXY),
        Flag("requestheader-group-headers", "X-Remote-Group", PROXY),
        Flag("requestheader-username-headers", "X-Remote-User", PROXY),
        Flag("secure-port", "${api-port}", PORT),
        Flag("service-account-issuer", "https://kubernetes.default.svc.${domain}", _DOMAIN),
        Flag("service-account-key-file", f"{SECRETS}/service-account.pub", TOKENS),
        Flag("service-account-lookup", reserved="the token of a service account has to end with it"),
        Flag("service-account-signing-endpoint", reserved=TOKENS),
        Flag("service-account-signing-key-file", f"{SECRETS}/service-account.key", TOKENS),
        Flag("service-cluster-ip-range", "${services}", SERVICES),
        # Without it an apiserver that ends holds its watchers, and so its port, for a minute.
        Flag("shutdown-watch-termination-grace-period", "5s"),
        Flag("tls-cert-file", f"{SECRETS}/apiserver.crt", SERVING),
        Flag("tls-min-version", "VersionTLS12"),
        Flag("tls-private-key-file", f"{SECRETS}/apiserver.key", SERVING),
        Flag("token-auth-file", reserved=_USERS),
    ),
    secrets={
        "apiserver.crt": "apiserver.crt",
        "apiserver.key": "apiserver.key",
        "apiserver-kubelet-client.crt": "apiserver-kubelet-client.crt",
        "apiserver-kubelet-client.key": "apiserver-kubelet-client.key",
        "authentication.yaml": "authentication.yaml",
        "ca.crt": "ca.crt",
        "etcd-ca.crt": "etcd/ca.crt",
        "etcd-client.crt": "etcd/apiserver-client.crt",
        "etcd-client.key": "etcd/apiserver-client.key",
        "front-proxy-ca.crt": "front-proxy-ca.crt",
        "front-proxy-client.crt": "front-proxy-client.crt",
        "front-proxy-client.key": "front-proxy-client.key",
        "service-account.key": "service-account.key",
        "service-account.pub": "service-account.pub",
    },
    bootstrap_secrets={
        "apiserver.crt": "bootstrap-apiserver.crt",
        "apiserver.key": "bootstrap-apiserver.key",
    },
)
