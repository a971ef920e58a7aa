"""From which Kubernetes version to which a cluster can go."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from components.api import Api, LoginUnknown
from components.assets.upgrade_plan import upgrade_plan
from components.config import ClusterConfig, Problem
from components.config.releases import RELEASES, minor_of
from components.lasting import refuse
from components.upgrade_checks import NoAnswer, check, is_to_go_back

__all__ = ["KubernetesVersion", "refusal", "refuse_path"]


class KubernetesVersion(pulumi.Stash):
    """Records the version that the cluster has begun to run, and refuses those that no path leads to, in
    previews too.

    What is in `after` changes nothing that runs, and whatever does change something comes later. So an
    upgrade that was stopped by its downloads can be taken back. One that has begun is recorded as if it had
    ended. To the minor before leads no path once kube-apiserver, which may have stored objects that that one
    can't read, has begun to be the newer.

    Kubelets may be three minors behind kube-apiserver and never ahead of it. All hosts get one version,
    minors go up one by one, and kubelets come last: `upgrade_checks` refuses those that would not.

    What keeps an upgrade from beginning is told before anything is changed, and what it will do. A preview
    asks the cluster too, which it does for no other change: see `upgrade_checks`.

    Its name must have nothing of the config, so that a cluster of another name meets the record as well.
    """

    def __init__(
        self, cfg: ClusterConfig, api: Api, after: Sequence[pulumi.Resource], opts: pulumi.ResourceOptions
    ) -> None:
        version = cfg.kubernetes_version

        async def look(args: pulumi.ResourceHookArgs) -> None:
            begun = (args.old_inputs or {})["input"]
            await refuse_path(api, begun, version)
            await check(api, cfg, begun)
            pulumi.log.info(upgrade_plan(cfg, begun))

        hook = pulumi.ResourceHook("upgrade-checks", look, pulumi.ResourceHookOptions(on_dry_run=True))
        own = pulumi.ResourceOptions(
            depends_on=list(after), hooks=pulumi.ResourceHookBinding(before_update=[hook])
        )
        super().__init__("kubernetes-version", input=version, opts=pulumi.ResourceOptions.merge(opts, own))


async def refuse_path(api: Api, begun: str, wanted: str) -> None:
    """Ends the run if no path leads from the version that the cluster has begun to run to the other."""
    problem = refusal(begun, wanted)
    if problem and minor_of(wanted) == minor_of(begun) - 1:
        try:
            async with api.connect() as client:
                if await is_to_go_back(client, wanted):
                    return
        except (LoginUnknown, NoAnswer) as error:
            mend = (
                f"whether kube-apiserver has begun to be {begun}, after which there is no way back, has to "
                f"be asked there, and {error}; put {begun} back for now"
            )
            problem = Problem.at(["kubernetesVersion"], wanted, mend)
    refuse([problem] if problem else [])


def refusal(begun: str, wanted: str) -> Problem | None:
    """Why a cluster that has begun to run one version can't go to the other; None if it can.

    Patches of a minor read what the others of it have stored, so that they go up and down at any moment.
    """
    before, after = minor_of(begun), minor_of(wanted)
    if before <= after <= before + 1:
        return None
    if after < before:
        mend = (
            f"the cluster has begun to run {begun}, and 1.{after} may not read what that has stored: use a "
            f"version of 1.{before}"
        )
    else:
        mend = (
            f"the cluster runs {begun}, and no minor can be skipped: go to {_newest(before + 1)} first, and "
            "when that has ended well, to this one"
        )
    return Problem.at(["kubernetesVersion"], wanted, mend)


def _newest(minor: int) -> str:
    """The newest supported version of a minor; of one that is not supported any more, the minor itself."""
    return next((version for version in reversed(RELEASES) if minor_of(version) == minor), f"1.{minor}")
