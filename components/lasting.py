"""Values of the config that a cluster keeps as long as it lives: recorded once, and others are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

from components.config import Problem

__all__ = ["Lasting", "Values", "changed", "refuse"]

Values = Mapping[str, str]
"""Values of the config by their keys, as text."""


class Lasting(pulumi.Stash):
    """Records values, and refuses others later on, in previews too. `known` is what a preview knows of them
    where it does not know all.

    Its name must have nothing of the config, so that another cluster name meets the record as well.
    """

    def __init__(
        self, name: str, values: pulumi.Output[Values], known: Values, opts: pulumi.ResourceOptions
    ) -> None:
        async def look(args: pulumi.ResourceHookArgs) -> None:
            refuse(changed(await values.future() or known, (args.old_inputs or {})["input"]))

        hook = pulumi.ResourceHook(f"{name}-values", look, pulumi.ResourceHookOptions(on_dry_run=True))
        own = pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(before_update=[hook]))
        super().__init__(name, input=values, opts=pulumi.ResourceOptions.merge(opts, own))


def refuse(problems: Sequence[Problem]) -> None:
    """Ends the run with the problems, if there are any."""
    if problems:
        raise pulumi.RunError("; ".join(map(str, problems)))


def changed(wanted: Values, living: Values) -> list[Problem]:
    """Problems of values that differ from those that the cluster lives with."""
    return [
        Problem.at(
            key.split("."),
            wanted[key],
            f"the cluster lives with {living[key]} and would not outlast the change: put that back, or "
            "destroy the cluster first",
        )
        for key in wanted
        if key in living and wanted[key] != living[key]
    ]
