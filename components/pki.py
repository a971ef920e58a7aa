"""Creates the cluster's keys and certificates with pulumi-tls; they are secrets in the stack's state."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import pulumi
import pulumi_tls as tls

from components.config import ClusterConfig
from components.hosts.host import Host
from components.hosts.machine import Machine, Machines

__all__ = ["Pki", "Texts", "apiserver_sans"]

CA_HOURS = 10 * 365 * 24
LEAF_HOURS = 365 * 24
RENEW_HOURS = 30 * 24
"""A leaf this close to its end is replaced by the next `pulumi up` (pulumi-tls 5.3.0 does; recorded)."""

T = TypeVar("T")
S = TypeVar("S")
Texts = Mapping[str, str]
"""PEM texts by name, such as `ca.crt` or `etcd/server-<host>.key`."""

SERVER = "server_auth"
CLIENT = "client_auth"


@dataclass(frozen=True)
class _Authority:
    key: tls.PrivateKey
    cert: tls.SelfSignedCert


class _Asked(Mapping[str, T], Generic[S, T]):
    """A mapping that gives stand-ins for later values and records which of them a function reads."""

    def __init__(self, later: Mapping[str, S], stand_in: Callable[[S], T]) -> None:
        self._later, self._stand_in = later, stand_in
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> T:
        found = self._stand_in(self._later[name])
        self.names.add(name)
        return found

    def __iter__(self) -> Iterator[str]:
        # Who goes through the names gets the same ones later.
        self.names.update(self._later)
        return iter(self._later)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Pki(pulumi.ComponentResource):
    """Three authorities (cluster, etcd, front proxy), the service-account key and a leaf for every client and
    server.

    ECDSA P-256 throughout. Authorities live 10 years and are protected unless `pki.protect` is false; leaves
    live a year. It writes no file and knows no path on a host. `hosts` may be plain machines where nobody
    logs in (`mode: render`).
    """

    def __init__(
        self,
        name: str,
        cfg: ClusterConfig,
        hosts: Mapping[str, Host] | Mapping[str, Machine],
        api_host: pulumi.Input[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("kubepivot:pki:Pki", f"{name}-pki", None, opts)
        self._name = name
        self._hosts, self._api_host = hosts, api_host
        self._texts: dict[str, pulumi.Output[str]] = {}
        protect = cfg.pki.protect

        cluster = self._authority("ca", "kubernetes-ca", protect)
        etcd = self._authority("etcd/ca", "etcd-ca", protect)
        front_proxy = self._authority("front-proxy-ca", "front-proxy-ca", protect)
        self._service_account_key(protect)

        # Two names for the serving certificate tell the temporary apiserver from the real one while both
        # share the port.
        for server in ("bootstrap-apiserver", "apiserver"):
            self._leaf(server, cluster, f"kube-{server}", usages=[SERVER], sans=partial(apiserver_sans, cfg))
        self._leaf("apiserver-kubelet-client", cluster, "kube-apiserver-kubelet-client", usages=[CLIENT])
        self._leaf("front-proxy-client", front_proxy, "front-proxy-client", usages=[CLIENT])
        self._leaf("controller-manager", cluster, "system:kube-controller-manager", usages=[CLIENT])
        self._leaf("scheduler", cluster, "system:kube-scheduler", usages=[CLIENT])
        # Only `pulumi up` itself is in system:masters; what users get is bound by RBAC and can be unbound.
        self._leaf("super-admin", cluster, "kubepivot", organization="system:masters", usages=[CLIENT])
        self._leaf("admin", cluster, "kubernetes-admin", organization="kubepivot:admins", usages=[CLIENT])
        # For what `keep-node` makes again on a controller: its Node, and the API's endpoints.
        self._leaf("controller", cluster, "kubepivot:controller", usages=[CLIENT])
        self._leaf("etcd/apiserver-client", etcd, "kube-apiserver-etcd-client", usages=[CLIENT])
        for host in hosts.values():
            self._leaf(
                f"kubelet-serving-{host.name}",
                cluster,
                f"system:node:{host.name}",
                organization="system:nodes",
                usages=[SERVER],
                sans=partial(_host_sans, host.name),
            )
            # A controller's kubelet has to work before anybody can sign a request for it, and a worker that
            # asked with a token could ask in another node's name. All of them renew it by themselves.
            self._leaf(
                f"kubelet-client-{host.name}",
                cluster,
                f"system:node:{host.name}",
                organization="system:nodes",
                usages=[CLIENT],
            )
            if host.is_controller:
                sans = partial(_etcd_sans, host.name)
                self._leaf(f"etcd/server-{host.name}", etcd, host.name, usages=[SERVER, CLIENT], sans=sans)
                self._leaf(f"etcd/peer-{host.name}", etcd, host.name, usages=[SERVER, CLIENT], sans=sans)

        self.ca_certificate = self._texts["ca.crt"]
        self.register_outputs({"ca_certificate": self.ca_certificate})

    def read(self, function: Callable[[Machines, Texts], T]) -> pulumi.Output[T]:
        """What a pure function makes of the machines and the PEM texts: the one place where they are lifted.

        The result depends on the API's host and on those machines and texts alone that the function looks up,
        so that a preview shows what changes and nothing else. A call with empty addresses and texts finds out
        which. In a destroy or a targeted update that runs the program a value whose resource is gone is None,
        and what it would go into is not made: it is empty.
        """
        machines = _Asked(self._hosts, lambda host: host.at(""))
        texts = _Asked(self._texts, lambda _: "")
        function(Machines(by_name=machines, api_host=""), texts)

        def resolved(found: Sequence[Any]) -> T:
            api_host, addresses, pem = found
            return function(
                Machines(
                    by_name={name: self._hosts[name].at(text or "") for name, text in addresses.items()},
                    api_host=api_host or "",
                ),
                {name: text or "" for name, text in pem.items()},
            )

        addresses = {name: self._hosts[name].address for name in sorted(machines.names)}
        pem = {name: self._texts[name] for name in sorted(texts.names)}
        return pulumi.Output.all(self._api_host, addresses, pem).apply(resolved)

    def _authority(self, path: str, common_name: str, protect: bool) -> _Authority:
        opts = pulumi.ResourceOptions(parent=self, protect=protect)
        resource = self._resource(path)
        key = tls.PrivateKey(f"{resource}-key", algorithm="ECDSA", ecdsa_curve="P256", opts=opts)
        cert = tls.SelfSignedCert(
            f"{resource}-cert",
            private_key_pem=key.private_key_pem,
            is_ca_certificate=True,
            set_subject_key_id=True,
            subject=tls.SelfSignedCertSubjectArgs(common_name=common_name),
            validity_period_hours=CA_HOURS,
            allowed_uses=["cert_signing", "crl_signing", "digital_signature"],
            opts=opts,
        )
        self._texts[f"{path}.key"] = key.private_key_pem
        self._texts[f"{path}.crt"] = cert.cert_pem
        return _Authority(key, cert)

    def _service_account_key(self, protect: bool) -> None:
        opts = pulumi.ResourceOptions(parent=self, protect=protect)
        key = tls.PrivateKey(
            f"{self._resource('service-account')}-key", algorithm="ECDSA", ecdsa_curve="P256", opts=opts
        )
        self._texts["service-account.key"] = key.private_key_pem
        self._texts["service-account.pub"] = key.public_key_pem

    def _leaf(
        self,
        path: str,
        authority: _Authority,
        common_name: str,
        *,
        usages: Sequence[str],
        organization: str | None = None,
        sans: Callable[[Machines], Sequence[str]] | None = None,
    ) -> None:
        opts = pulumi.ResourceOptions(parent=self)
        resource = self._resource(path)
        key = tls.PrivateKey(f"{resource}-key", algorithm="ECDSA", ecdsa_curve="P256", opts=opts)
        dns: pulumi.Output[Sequence[str]] | None = None
        ips: pulumi.Output[Sequence[str]] | None = None
        if sans is not None:
            names = self.read(lambda machines, _: split_sans(sans(machines)))
            dns, ips = names.apply(lambda found: found[0]), names.apply(lambda found: found[1])
        request = tls.CertRequest(
            f"{resource}-request",
            private_key_pem=key.private_key_pem,
            subject=tls.CertRequestSubjectArgs(common_name=common_name, organization=organization),
            dns_names=dns,
            ip_addresses=ips,
            opts=opts,
        )
        cert = tls.LocallySignedCert(
            f"{resource}-cert",
            cert_request_pem=request.cert_request_pem,
            ca_private_key_pem=authority.key.private_key_pem,
            ca_cert_pem=authority.cert.cert_pem,
            validity_period_hours=LEAF_HOURS,
            early_renewal_hours=RENEW_HOURS,
            allowed_uses=["digital_signature", *usages],
            opts=opts,
        )
        self._texts[f"{path}.key"] = key.private_key_pem
        self._texts[f"{path}.crt"] = cert.cert_pem

    def _resource(self, path: str) -> str:
        return f"{self._name}-{path.replace('/', '-')}"


def apiserver_sans(cfg: ClusterConfig, machines: Machines) -> tuple[str, ...]:
    """Every name and address that clients may know the API server by."""
    return (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{cfg.network.domain}",
        "localhost",
        "127.0.0.1",
        cfg.service_ip,
        machines.api_host,
        *(machines[name].address for name in cfg.controllers),
    )


def _host_sans(name: str, machines: Machines) -> tuple[str, ...]:
    return (name, machines[name].address)


def _etcd_sans(name: str, machines: Machines) -> tuple[str, ...]:
    return (*_host_sans(name, machines), "localhost", "127.0.0.1")


def split_sans(sans: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """DNS names and addresses apart, without repetition, and sorted: another order of the same ones would
    replace the certificate.
    """
    addresses = {san for san in sans if _is_address(san)}
    return sorted(set(sans) - addresses), sorted(addresses)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
