"""Records what a resource is about to become, so that a change that was cut short can be taken back."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

__all__ = ["Intent"]


class Intent(pulumi.Stash):
    """Is in the state before the resource `of` changes, which has its `token` among its inputs.

    Pulumi records a change when it has ended: of one that was killed it knows what had been before, and with
    the former values put back it would find nothing to do. An intent of another content is another resource,
    and its token, which is its id, another one, back to what was before as well.
    """

    token: pulumi.Output[str]

    def __init__(
        self,
        of: str,
        content: pulumi.Input[str],
        *,
        after: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions,
    ) -> None:
        own = pulumi.ResourceOptions(depends_on=list(after), replace_on_changes=["input"])
        super().__init__(f"{of}-intent", input=content, opts=pulumi.ResourceOptions.merge(opts, own))
        self.token = self.id
