"""From which Kubernetes version to which a cluster can go."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from components.api import Api
from components.config import ClusterConfig, Problem
from components.config.releases import RELEASES, minor_of
from components.lasting import refuse
from components.upgrade_checks import look

__all__ = ["KubernetesVersion", "refusal"]


class KubernetesVersion(pulumi.Stash):
    """Records the version that the cluster has begun to run, and refuses those that no path leads to, in
    previews too.

    What is in `after` changes nothing that runs, and whatever does change something comes later. So an
    upgrade that was stopped by its downloads can be taken back. One that has begun is recorded as if it had
    ended: kube-apiserver may have stored objects by then that the minor before can't read.

    Kubelets may be three minors behind kube-apiserver and never ahead of it. All hosts get one version,
    minors go up one by one, and kubelets come last: `upgrade_checks` refuses those that would not.

    What keeps an upgrade from beginning is told before anything is changed: see `upgrade_checks`.

    Its name must have nothing of the config, so that a cluster of another name meets the record as well.
    """

    def __init__(
        self, cfg: ClusterConfig, api: Api, after: Sequence[pulumi.Resource], opts: pulumi.ResourceOptions
    ) -> None:
        version = cfg.kubernetes_version

        async def look_at_path(args: pulumi.ResourceHookArgs) -> None:
            problem = refusal((args.old_inputs or {})["input"], version)
            refuse([problem] if problem else [])

        async def look_at_cluster(args: pulumi.ResourceHookArgs) -> None:
            async with api.connect() as client:
                problems = await look(client, cfg.hosts, (args.old_inputs or {})["input"], version)
            if problems:
                raise pulumi.RunError("\n".join(["nothing has been upgraded:", *problems]))

        path = pulumi.ResourceHook("upgrade-path", look_at_path, pulumi.ResourceHookOptions(on_dry_run=True))
        cluster = pulumi.ResourceHook("upgrade-checks", look_at_cluster)
        own = pulumi.ResourceOptions(
            depends_on=list(after), hooks=pulumi.ResourceHookBinding(before_update=[path, cluster])
        )
        super().__init__("kubernetes-version", input=version, opts=pulumi.ResourceOptions.merge(opts, own))


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
