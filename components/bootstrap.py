"""Starts the temporary control plane on one controller."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import pulumi
import yaml

from components.archive import unpack
from components.assets.bootstrap import bootstrap_files
from components.assets.templates import script
from components.config import ClusterConfig, Problem
from components.hosts import Host
from components.pki import Pki
from components.ssh import Payload, RemoteStep

__all__ = ["changed", "start_bootstrap"]


def start_bootstrap(
    name: str,
    cfg: ClusterConfig,
    host: Host,
    pki: Pki,
    *,
    after: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> RemoteStep:
    """Starts apiserver, controller manager and scheduler as static pods. Ends when the API is ready at its
    endpoint. On a cluster that has taken over already it starts nothing, and what the cluster was made with
    can't be changed by it.
    """
    payload = pki.read(
        lambda machines, texts: Payload(
            script=script("bootstrap"), files=bootstrap_files(cfg, machines[host.name], machines, texts)
        )
    )
    return RemoteStep(
        f"{name}-bootstrap",
        host,
        payload,
        timeout=300,
        depends_on=after,
        opts=pulumi.ResourceOptions.merge(opts, _refuse_changes(cfg, pki)),
    )


Values = Mapping[tuple[str, str], str | int]

_MANIFESTS = "root/etc/kubernetes/manifests"


def _refuse_changes(cfg: ClusterConfig, pki: Pki) -> pulumi.ResourceOptions:
    """Options of the step that starts the temporary control plane: it isn't updated with another such value.

    The step is in the state when the API has answered, so from then on there is a cluster. What it brought
    says what the cluster was made with, in the states of earlier programs too. No host is asked.
    """

    api_host = pki.read(lambda machines, _: machines.api_host)

    async def refuse(args: pulumi.ResourceHookArgs) -> None:
        brought = (args.old_inputs or {})["stdin"]
        # A secret comes as an Output.
        archive = await pulumi.Output.from_input(brought).future()
        if problems := changed(cfg, await api_host.future(), str(archive)):
            raise pulumi.RunError("; ".join(map(str, problems)))

    hook = pulumi.ResourceHook(
        "values-of-a-living-cluster", refuse, pulumi.ResourceHookOptions(on_dry_run=True)
    )
    return pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(before_update=[hook]))


def changed(cfg: ClusterConfig, api_host: str | None, archive: str) -> list[Problem]:
    """Problems of a config that differs from what the cluster was made with: the archive, in base64.

    `api_host` is where the API is to be, None if a preview can't know it.
    """
    wanted = {
        ("network", "pods"): cfg.network.pods,
        ("network", "services"): cfg.network.services,
        ("network", "domain"): cfg.network.domain,
        ("api", "host"): api_host,
        ("api", "port"): cfg.api.port,
    }
    return [
        Problem.at(
            path,
            wanted[path],
            f"the cluster lives with {value} and would not outlast the change: put that back, or destroy the "
            "cluster first",
        )
        for path, value in _living(unpack(base64.b64decode(archive))).items()
        if wanted[path] not in (value, None)
    ]


def _living(files: Mapping[str, str]) -> Values:
    """Reads the values from the static pods of the temporary control plane."""
    apiserver = _flags(files[f"{_MANIFESTS}/bootstrap-apiserver.yaml"])
    controller_manager = _flags(files[f"{_MANIFESTS}/bootstrap-controller-manager.yaml"])
    environment = dict(line.split("=", 1) for line in shlex.split(files["env"]))
    issuer = apiserver["service-account-issuer"]
    return {
        ("network", "pods"): controller_manager["cluster-cidr"],
        ("network", "services"): apiserver["service-cluster-ip-range"],
        ("network", "domain"): issuer.removeprefix("https://kubernetes.default.svc."),
        ("api", "host"): urlsplit(environment["API_ENDPOINT"]).hostname or "",
        ("api", "port"): int(apiserver["secure-port"]),
    }


def _flags(pod: str) -> dict[str, str]:
    _, *arguments = yaml.safe_load(pod)["spec"]["containers"][0]["command"]
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
