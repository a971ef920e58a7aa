"""Whether a new leader leads: as a standby it may be Ready, and end once it leads. Plain functions."""

from __future__ import annotations

from components.assets.rollout.objects import Expected, Lease, Observed, Trial, is_rolled_out

__all__ = ["on_trial"]

LEAD_SECONDS = 10
"""A controller manager may take 5 s, and so renew its lease, before its controllers begin."""


def on_trial(expected: Expected, observed: Observed) -> dict[str, Trial | None]:
    """Leaders that were seen to roll, until one has held their lease for LEAD_SECONDS and renewed it.

    None stands for one that is not rolled out yet. At the first roll there are no such leaders: the hand-over
    sees to who leads.
    """
    if observed.first:
        return {}
    there = {each["metadata"]["name"]: each for each in observed.workloads}
    trial: dict[str, Trial | None] = {}
    for name in expected.leaders:
        if name not in there or not is_rolled_out(there[name], first=False):
            trial[name] = None
        elif name in observed.on_trial:
            before, lease = observed.on_trial[name], observed.leases.get(name, Lease())
            # A lease does not tell whether it is that of the copy.
            if before is None or before.lease.holder != lease.holder or name in observed.copies:
                trial[name] = Trial(lease, observed.at)
            elif not lease.holder or lease == before.lease or observed.at - before.since < LEAD_SECONDS:
                trial[name] = before
    return trial
