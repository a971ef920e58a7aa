"""The address plan of a cluster, and where its API answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from components.config import addresses, k8s_names
from components.config.base import DERIVED, Section, Whole
from components.tables.ports import API

__all__ = ["ApiConfig", "NetworkConfig"]


def _domain(text: str) -> str:
    # kube-apiserver's certificate is for kubernetes.default.svc.<domain>.
    return k8s_names.dns_name(text, longest=k8s_names.LONGEST_DNS_NAME - len("kubernetes.default.svc."))


Domain = Annotated[str, AfterValidator(_domain)]
EndpointHost = Annotated[str, AfterValidator(addresses.endpoint_host)]
Range = Annotated[str, AfterValidator(addresses.network)]
ServicesNetwork = Annotated[str, AfterValidator(addresses.services_network)]


class NetworkConfig(Section):
    """The address plan, IPv4. Ranges are CIDRs in canonical form and must not overlap. A living cluster keeps
    its pods, services and domain.
    """

    hosts: Range | None = Field(
        default=None,
        description="The range of the hosts. When given, every host's address must lie in it.",
        examples=["192.168.1.0/24"],
    )
    pods: Range = Field(
        default=addresses.PODS,
        description=f"The range of the pods. Every host takes a /{addresses.NODE_PREFIX} of it.",
        examples=["10.64.0.0/16"],
    )
    services: ServicesNetwork = Field(
        default=addresses.SERVICES,
        description="The range of the services, from /12 to /24. Its first address is the API's, its tenth "
        "the DNS server's.",
        examples=["10.65.0.0/16"],
    )
    domain: Domain = Field(
        default=k8s_names.CLUSTER_DOMAIN,
        description="The DNS domain of the cluster.",
        examples=["cluster.internal"],
    )


class ApiConfig(Section):
    """How clients and nodes reach the Kubernetes API. A living cluster keeps both."""

    host: EndpointHost = Field(
        default="",
        description="The IPv4 address or DNS name of the API: a load balancer's, a virtual address, or the "
        "only controller's. Required with several controllers, but for platform digitalocean.",
        examples=["api.example.com"],
        json_schema_extra={DERIVED: "the only controller's address, or what platform digitalocean makes"},
    )
    port: Whole = Field(
        default=API.first,
        ge=1,
        le=65535,
        description="The port of the API, from 1024, and no node port.",
        examples=[8443],
    )
