"""The stack's config: typed, and validated in whole before the first resource.

Descriptions, defaults and examples stand with the fields only; `components.config.reference` makes the
documentation and the editors' schema from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Literal

import pulumi
from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema

from components.assets.networks import NETWORKS, Network
from components.config import addresses, crosschecks, k8s_names
from components.config.backup import BackupConfig
from components.config.base import DERIVED, Section, Truth
from components.config.digitalocean import ANYWHERE, DigitalOceanConfig, is_private
from components.config.errors import PROJECT, ConfigError, Problem, problems_of
from components.config.etcd import EtcdConfig
from components.config.flags import FlagsConfig
from components.config.host import HostConfig, HostName, PlatformName
from components.config.images import ImagesConfig, release_images
from components.config.k8s_names import Taint
from components.config.lab import LabConfig
from components.config.mirror import MirrorConfig
from components.config.network import ApiConfig, NetworkConfig
from components.config.recovery import RecoveryConfig
from components.config.releases import LATEST, RELEASES, Release
from components.config.upgrade import UpgradeConfig
from components.tables.ports import NODE_PORTS, port_range

__all__ = ["ClusterConfig", "ConfigError", "HostConfig", "Problem", "Taint", "parse"]


def _cluster_name(text: str) -> str:
    return k8s_names.dns_label(text, longest=40)


def _supported_version(text: str) -> str:
    if text not in RELEASES:
        raise ValueError(f"this version is not supported; use one of {', '.join(RELEASES)}")
    return text


def _asset_directory(text: str) -> str:
    if text.startswith("~"):
        raise ValueError("only a shell knows ~: use a path that begins with /, or one below the program's")
    return text


AssetDirectory = Annotated[str, Field(min_length=1), AfterValidator(_asset_directory)]
ClusterName = Annotated[str, AfterValidator(_cluster_name)]
Version = Annotated[
    str, AfterValidator(_supported_version), WithJsonSchema({"type": "string", "enum": list(RELEASES)})
]


class PkiConfig(Section):
    """The cluster's own certificate authorities."""

    protect: Truth = Field(
        default=True,
        description="Whether Pulumi refuses to delete the authorities and the service-account key. Set it to "
        "false, and run `pulumi up`, before a `pulumi destroy`.",
        examples=[False],
    )


class ClusterConfig(Section):
    """A self-hosted Kubernetes cluster."""

    platform: PlatformName = Field(
        description="Where the hosts come from: containers made on this machine (lab), machines that exist "
        "already (baremetal), or droplets (digitalocean).",
        examples=["baremetal"],
    )
    mode: Literal["cluster", "render"] = Field(
        default="cluster",
        description="Whether to bring up a cluster, or to write its assets to assetDirectory and touch no "
        "host.",
        examples=["render"],
    )
    asset_directory: AssetDirectory = Field(
        default="assets",
        description="Where mode render writes. It must not exist.",
        examples=["rendered/prod"],
    )
    name: ClusterName = Field(
        default="",
        description="The cluster's name, a DNS label of at most 40 characters.",
        examples=["prod"],
        json_schema_extra={DERIVED: "the stack's name"},
    )
    kubernetes_version: Version = Field(
        default=LATEST, description="The Kubernetes release.", examples=[LATEST]
    )
    hosts: dict[HostName, HostConfig] = Field(
        description="The hosts by name. The name, a DNS label of at most 52 characters, is also the node's.",
        examples=[{"controller-1": {"role": "controller", "address": "192.168.1.11"}}],
    )
    digital_ocean: DigitalOceanConfig | None = None
    network: NetworkConfig = NetworkConfig()
    api: ApiConfig = ApiConfig()
    mirror: MirrorConfig | None = None
    flags: FlagsConfig = FlagsConfig()
    images: ImagesConfig = ImagesConfig()
    pki: PkiConfig = PkiConfig()
    upgrade: UpgradeConfig = UpgradeConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    etcd: EtcdConfig = EtcdConfig()
    backup: BackupConfig = BackupConfig()
    lab: LabConfig = LabConfig()

    @classmethod
    def load(cls) -> ClusterConfig:
        """The config of the stack that Pulumi is running. ConfigError has every problem."""
        found: dict[str, Any] = {
            **pulumi.runtime.config.get_config_env(),
            **pulumi.runtime.config.CONFIG.get(),
        }
        raw = {
            key.removeprefix(f"{PROJECT}:"): value
            for key, value in found.items()
            if key.startswith(f"{PROJECT}:")
        }
        return parse({key: _decoded(value) for key, value in raw.items()}, stack=pulumi.get_stack())

    @property
    def release(self) -> Release:
        """The versions and images that go with the Kubernetes version."""
        return RELEASES[self.kubernetes_version]

    @property
    def workload_images(self) -> dict[str, str]:
        """The image of everything that runs as a workload of the cluster: the release's unless given."""
        given: dict[str, str] = self.images.model_dump(by_alias=True, exclude_none=True)
        return {**release_images(self.release), **given}

    @property
    def pod_network(self) -> Network:
        """What carries the traffic between pods of different nodes."""
        return NETWORKS["flannel"]

    @property
    def controllers(self) -> tuple[str, ...]:
        """The names of the controllers, sorted."""
        return tuple(sorted(name for name, host in self.hosts.items() if host.role == "controller"))

    @property
    def workers(self) -> tuple[str, ...]:
        """The names of the workers, sorted."""
        return tuple(sorted(name for name, host in self.hosts.items() if host.role == "worker"))

    @property
    def owns_endpoints(self) -> bool:
        """Whether the endpoints of the service `kubernetes` are the program's own, as with one controller.

        With several they are the apiservers' (their lease reconciler). That takes an address away when an
        apiserver starts and when it ends: 2 to 7 s of an empty service, unless others fill the gap.
        """
        return len(self.controllers) == 1

    @property
    def bootstrap_controller(self) -> str:
        """The name of the controller on which the temporary control plane runs."""
        return self.controllers[0]

    @property
    def recovery_controller(self) -> str:
        """The name of the controller on which it runs during a recovery."""
        return self.recovery.controller or self.bootstrap_controller

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses that the config gives to hosts, by name. For platforms: everything else asks the
        host, whose platform may be who gives it one.
        """
        return {name: host.address for name, host in self.hosts.items() if host.address is not None}

    def api_endpoint(self, host: str) -> str:
        """The URL of the Kubernetes API, which is at that address or name."""
        return f"https://{host}:{self.api.port}"

    @property
    def node_ports(self) -> range:
        """The ports at which services of type NodePort answer."""
        usual = f"{NODE_PORTS.first}-{NODE_PORTS.last}"
        return port_range(self.flags.of("kube-apiserver").get("service-node-port-range", usual))

    @property
    def node_port_addresses(self) -> str:
        """Of a node, where they do: at its own, or at any where a firewall before it lets others in."""
        return ANYWHERE if self.digital_ocean is not None and self.digital_ocean.node_ports else "primary"

    @property
    def service_ip(self) -> str:
        """The address of the service `kubernetes`."""
        return addresses.nth(self.network.services, 1)

    @property
    def dns_ip(self) -> str:
        """The address of the cluster's DNS service."""
        return addresses.nth(self.network.services, 10)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about values that are valid but probably not intended."""
        return tuple(self._warnings())

    def _warnings(self) -> Iterator[str]:
        if self.digital_ocean is not None and ANYWHERE in self.digital_ocean.admin_cidrs:
            yield (
                f"{PROJECT}:digitalOcean.adminCidrs has {ANYWHERE}: SSH and the API answer everybody, and "
                "only keys are between them and the cluster"
            )
        for range_ in self.digital_ocean.admin_cidrs if self.digital_ocean is not None else ():
            if is_private(range_):
                yield (
                    f"{PROJECT}:digitalOcean.adminCidrs has {range_}: droplets see you by a public address, "
                    "and answer no private one"
                )
        count = len(self.controllers)
        if count % 2 == 0:
            yield (
                f"{PROJECT}:hosts has {count} controllers: etcd survives the loss of no more members than "
                f"with {count - 1}; use an odd number"
            )
        if count > 1 and self.api.host in {self.addresses.get(name) for name in self.controllers}:
            yield (
                f"{PROJECT}:api.host is the address of one controller, {self.api.host}: the API is out of "
                "reach when that one is down; use a load balancer or a virtual address"
            )


def parse(raw: Mapping[str, object], *, stack: str) -> ClusterConfig:
    """Validates raw values. Reads no file but the private keys that they name.

    `raw` has the keys below the project's namespace, as Pulumi.<stack>.yaml spells them. ConfigError has
    every problem.
    """
    named = "name" in raw
    raw = {"name": stack, **raw}
    problems = list(crosschecks.problems(raw))
    try:
        config = ClusterConfig.model_validate(raw)
    except ValidationError as error:
        problems[:0] = problems_of(error, ClusterConfig)
    if not named:
        problems = [
            replace(each, mend=f"it is the stack's name; set this key: {each.mend}")
            if each.key == f"{PROJECT}:name"
            else each
            for each in problems
        ]
    if problems:
        raise ConfigError(problems)
    return config


def _decoded(text: str) -> object:
    """A value as Pulumi hands it over: scalars as text, maps and lists as JSON."""
    if text.startswith(("{", "[")):
        with suppress(json.JSONDecodeError):
            return json.loads(text)
    return text
