"""What a cluster was made with and can't be changed while it lives: recorded, and other values refused."""

from __future__ import annotations

import base64
import shlex
from urllib.parse import urlsplit

import pulumi
import yaml

from components.archive import unpack
from components.config import ClusterConfig
from components.lasting import Lasting, Values, changed, refuse
from components.pki import Pki

__all__ = ["lasting", "made_with", "record_values", "refuse_changes"]

_MANIFESTS = "root/etc/kubernetes/manifests"


def refuse_changes(cfg: ClusterConfig, pki: Pki) -> pulumi.ResourceOptions:
    """Options of the step that starts the temporary control plane: it fails with another lasting value.

    What the step brought says what the cluster was made with, in the states of earlier programs too, which
    have no record of it. No host is asked.
    """
    api_host = pki.read(lambda machines, _: machines.api_host)

    async def look(args: pulumi.ResourceHookArgs) -> None:
        brought = (args.old_inputs or {})["stdin"]
        # A secret comes as an Output.
        archive = await pulumi.Output.from_input(brought).future()
        refuse(changed(lasting(cfg, await api_host.future()), made_with(str(archive))))

    hook = pulumi.ResourceHook(
        "values-of-a-living-cluster", look, pulumi.ResourceHookOptions(on_dry_run=True)
    )
    return pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(before_update=[hook]))


def record_values(
    cfg: ClusterConfig, pki: Pki, *, after: pulumi.Resource, opts: pulumi.ResourceOptions
) -> None:
    """Records the values once that step has ended, and refuses others later on, in previews too."""
    Lasting(
        "lasting",
        pki.read(lambda machines, _: lasting(cfg, machines.api_host)),
        lasting(cfg, None),
        pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[after])),
    )


def lasting(cfg: ClusterConfig, api_host: str | None) -> Values:
    """The values that last as long as the cluster. `api_host` is where the API is to be, None if a preview
    can't know it.
    """
    values = {
        "name": cfg.name,
        "hosts": f"controllers {', '.join(cfg.controllers)}",
        "network.pods": cfg.network.pods,
        "network.services": cfg.network.services,
        "network.domain": cfg.network.domain,
        "api.port": str(cfg.api.port),
    }
    return values if api_host is None else values | {"api.host": api_host}


def made_with(archive: str) -> Values:
    """Reads the values from what the step brought, in base64: the temporary control plane's static pods."""
    files = unpack(base64.b64decode(archive))
    apiserver = _flags(files[f"{_MANIFESTS}/bootstrap-apiserver.yaml"])
    controller_manager = _flags(files[f"{_MANIFESTS}/bootstrap-controller-manager.yaml"])
    environment = dict(line.split("=", 1) for line in shlex.split(files["env"]))
    issuer = apiserver["service-account-issuer"]
    # The first programs did not bring them.
    names = environment.get("CONTROLLERS", "").split()
    controllers = {"hosts": f"controllers {', '.join(names)}"} if names else {}
    # Without the flag, where the network gives the nodes their ranges, the record alone has it.
    pods = controller_manager.get("cluster-cidr")
    return {
        **controllers,
        **({"network.pods": pods} if pods else {}),
        "network.services": apiserver["service-cluster-ip-range"],
        "network.domain": issuer.removeprefix("https://kubernetes.default.svc."),
        "api.host": urlsplit(environment["API_ENDPOINT"]).hostname or "",
        "api.port": apiserver["secure-port"],
    }


def _flags(pod: str) -> dict[str, str]:
    _, *arguments = yaml.safe_load(pod)["spec"]["containers"][0]["command"]
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
