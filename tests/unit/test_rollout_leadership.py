"""A leader that has been rolled has to lead: as a standby it may be Ready, and end once it leads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.assets.rollout import Lease, Trial, explain, late_workloads, on_trial
from components.tables.components import LEADERS
from tests.unit.rollout_objects import LATE, SETTLED, cluster, failing, wanted

NAME = "kube-controller-manager"


RENEWS, LEADS = 2, 10
"""Seconds between a leader's renewals, and how long one has to lead."""


def late(*seen: tuple[str, int, str], first: bool = False) -> list[int]:
    """Seconds at which it is late. Each that is seen: its pods' counts, for how many seconds, who leads.

    A holder with a "†" renews no more.
    """
    found, now, before = [], 0, None
    for counts, seconds, holder in seen:
        for _ in range(seconds):
            renewed = "before" if holder.endswith("†") else f"at {now // RENEWS}"
            observed = replace(
                cluster({NAME: counts}, first=first),
                leases={NAME: Lease(holder, renewed)},
                on_trial=on_trial(wanted(), before) if before else {},
                at=now,
            )
            if NAME in late_workloads(wanted(), observed):
                found.append(now)
            before, now = observed, now + 1
    return found


def until(seconds: int) -> list[int]:
    return list(range(seconds))


def test_those_of_which_one_leads_are_known() -> None:
    assert LEADERS == ("kube-controller-manager", "kube-scheduler")


@pytest.mark.parametrize(
    ("leads", "seconds"),
    [
        ([("new", 20)], LEADS),
        ([("old", 2), ("", 3), ("new", 20)], 5 + LEADS),
        ([("dead†", 15), ("new", 20)], 15 + LEADS),
        ([("new", 9), ("anew", 9), ("again", 20)], 18 + LEADS),
        ([("", 30)], 30),
        ([("dead†", 30)], 30),
    ],
    ids=["at once", "after the old one", "after a dead one", "ends twice", "nobody", "a dead one"],
)
def test_a_leader_that_has_rolled_has_to_lead_for_a_while(leads: list[tuple[str, int]], seconds: int) -> None:
    rolled = [(SETTLED, number, holder) for holder, number in leads]
    assert late((LATE, 5, "old"), *rolled) == until(5 + seconds)


def test_one_that_is_not_ready_has_to_lead_anew() -> None:
    seen = [(LATE, 1, "a"), (SETTLED, 9, "b"), (LATE, 1, "b"), (SETTLED, 20, "b")]
    assert late(*seen) == until(11 + LEADS)


def test_one_that_nobody_has_seen_to_roll_is_not_asked() -> None:
    assert late((SETTLED, 20, "")) == []


def test_beside_the_temporary_control_plane_the_hand_over_asks() -> None:
    assert late((LATE, 1, ""), (SETTLED, 20, ""), first=True) == [0]


RENEWED = "2026-11-21T12:00:00.000000Z"


@pytest.mark.parametrize(
    ("lease", "why"),
    [
        (Lease("node-1_a", RENEWED), f"node-1_a has not renewed its lease since {RENEWED}"),
        (Lease("node-1_a", "later"), "node-1_a has had its lease for a moment only"),
        (Lease(), "nobody has its lease"),
    ],
)
def test_who_has_the_lease_is_told(lease: Lease, why: str) -> None:
    trial = {NAME: Trial(Lease(lease.holder, RENEWED), 0)}
    seen = replace(cluster(), leases={NAME: lease}, on_trial=trial)
    assert explain(wanted(), seen, {})[:2] == [
        f"--- {NAME} is not rolled out; 2 of 2 pods serve",
        f"  none of its pods leads: {why}",
    ]


def test_of_one_whose_pods_are_stuck_they_are_told_alone() -> None:
    seen = replace(failing(NAME), on_trial={NAME: Trial(Lease(), 0)})
    assert "lease" not in "".join(explain(wanted(), seen, {}))
