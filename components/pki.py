"""Creates the cluster's keys and certificates with pulumi-tls; they are secrets in the stack's state."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pulumi
import pulumi_tls as tls

from components.config import ClusterConfig
from components.hosts.machine import Machine

__all__ = ["Pki"]

CA_HOURS = 10 * 365 * 24
LEAF_HOURS = 365 * 24
RENEW_HOURS = 30 * 24
"""A leaf this close to its end is replaced by the next `pulumi up` (pulumi-tls 5.3.0 does; recorded)."""

T = TypeVar("T")

SERVER = "server_auth"
CLIENT = "client_auth"


@dataclass(frozen=True)
class _Authority:
    key: tls.PrivateKey
    cert: tls.SelfSignedCert


class _Asked(Mapping[str, str]):
    """A mapping that gives empty texts and records which names a function reads."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return ""

    def __iter__(self) -> Iterator[str]:
        raise TypeError("a function of PEM texts names those that it reads")

    def __len__(self) -> int:
        raise TypeError("a function of PEM texts names those that it reads")


class Pki(pulumi.ComponentResource):
    """Three authorities (cluster, etcd, front proxy), the service-account key and a leaf for every client and
    server.

    ECDSA P-256 throughout. Authorities live 10 years and are protected unless `pki.protect` is false; leaves
    live a year. It writes no file and knows no path on a host.
    """

    def __init__(
        self, name: str, cfg: ClusterConfig, machines: Mapping[str, Machine], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("kubepivot:pki:Pki", f"{name}-pki", None, opts)
        self._name = name
        self._texts: dict[str, pulumi.Output[str]] = {}
        protect = cfg.pki.protect

        cluster = self._authority("ca", "kubernetes-ca", protect)
        etcd = self._authority("etcd/ca", "etcd-ca", protect)
        front_proxy = self._authority("front-proxy-ca", "front-proxy-ca", protect)
        self._service_account_key(protect)

        # Two names for the serving certificate tell the temporary apiserver from the real one while both
        # share the port.
        for server in ("bootstrap-apiserver", "apiserver"):
            self._leaf(server, cluster, f"kube-{server}", usages=[SERVER], sans=cfg.apiserver_sans)
        self._leaf("apiserver-kubelet-client", cluster, "kube-apiserver-kubelet-client", usages=[CLIENT])
        self._leaf("front-proxy-client", front_proxy, "front-proxy-client", usages=[CLIENT])
        self._leaf("controller-manager", cluster, "system:kube-controller-manager", usages=[CLIENT])
        self._leaf("scheduler", cluster, "system:kube-scheduler", usages=[CLIENT])
        # Only `pulumi up` itself is in system:masters; what users get is bound by RBAC and can be unbound.
        self._leaf("super-admin", cluster, "kubepivot", organization="system:masters", usages=[CLIENT])
        self._leaf("admin", cluster, "kubernetes-admin", organization="kubepivot:admins", usages=[CLIENT])
        # What the hosts of controllers keep of the cluster, see `keep-node`.
        self._leaf("controller", cluster, "kubepivot:controller", usages=[CLIENT])
        self._leaf("etcd/apiserver-client", etcd, "kube-apiserver-etcd-client", usages=[CLIENT])
        for machine in machines.values():
            self._leaf(
                f"kubelet-serving-{machine.name}",
                cluster,
                f"system:node:{machine.name}",
                organization="system:nodes",
                usages=[SERVER],
                sans=[machine.name, machine.address],
            )
            # A controller's kubelet has to work before anybody can sign a request for it, and a worker that
            # asked with a token could ask in another node's name. All of them renew it by themselves.
            self._leaf(
                f"kubelet-client-{machine.name}",
                cluster,
                f"system:node:{machine.name}",
                organization="system:nodes",
                usages=[CLIENT],
            )
            if machine.is_controller:
                sans = [machine.name, machine.address, "localhost", "127.0.0.1"]
                self._leaf(
                    f"etcd/server-{machine.name}", etcd, machine.name, usages=[SERVER, CLIENT], sans=sans
                )
                self._leaf(
                    f"etcd/peer-{machine.name}", etcd, machine.name, usages=[SERVER, CLIENT], sans=sans
                )

        self.ca_certificate = self._texts["ca.crt"]
        self.register_outputs({"ca_certificate": self.ca_certificate})

    def read(self, function: Callable[[Mapping[str, str]], T]) -> pulumi.Output[T]:
        """What a pure function makes of PEM texts by name, such as `ca.crt` or `etcd/server-<host>.key`.

        The result depends on those texts alone that the function reads, so that a preview shows what changes
        and nothing else. A call with empty texts finds out which. In a destroy or a targeted update that runs
        the program a text whose resource is gone is None, and what it would go into is not made: it is empty.
        """
        asked = _Asked()
        function(asked)
        found = pulumi.Output.all(**{name: self._texts[name] for name in asked.names})
        return found.apply(lambda texts: function({name: text or "" for name, text in texts.items()}))

    def everything(self) -> pulumi.Output[dict[str, str]]:
        """All texts by name."""
        return pulumi.Output.all(**self._texts)

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
        sans: Sequence[str] = (),
    ) -> None:
        opts = pulumi.ResourceOptions(parent=self)
        resource = self._resource(path)
        key = tls.PrivateKey(f"{resource}-key", algorithm="ECDSA", ecdsa_curve="P256", opts=opts)
        # Sorted: another order of the same names would replace the certificate.
        dns, ips = split_sans(sans)
        request = tls.CertRequest(
            f"{resource}-request",
            private_key_pem=key.private_key_pem,
            subject=tls.CertRequestSubjectArgs(common_name=common_name, organization=organization),
            dns_names=dns or None,
            ip_addresses=ips or None,
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


def split_sans(sans: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sorts subject alternative names into DNS names and addresses."""
    addresses = {san for san in sans if _is_address(san)}
    return sorted(set(sans) - addresses), sorted(addresses)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
