"""What to do about checkpoints. Plain functions of what is known."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

from components.programs.checkpointer.pods import APISERVER, SELF, Owner

DEAD_SECONDS = 15.0
# After a roll the next leader waits for 15 s from when it first sees the lease of the one before.
UNLED_SECONDS = 45.0
GONE_SECONDS = 300.0


class Action(Enum):
    """What may be done about an owner, apart from saving it."""

    ARM = "armed"
    DISARM = "disarmed"
    FORGET = "forgotten"


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What is known of an owner. Durations are seconds without a break, 0 if it is not so now."""

    armed: bool
    settled: bool
    gone_for: float
    unled_for: float
    """For how long nobody, wherever, has renewed its lease after leading for a while."""


def decide(owners: Mapping[Owner, Situation], dead_for: float) -> dict[Owner, Action]:
    """What to do now. `dead_for` is how long nothing has answered at the API's port.

    Without an API nobody knows which pods run, so everything is armed: a copy too many is harmless. So is
    whoever has no living instance: it may take that one to make others.
    A static pod of this program goes when no other is left for it to take away, that of a leader when
    somebody leads: an instance that is Ready may be a standby.
    """
    busy = any(situation.armed for owner, situation in owners.items() if owner != SELF)
    actions = {}
    for owner, situation in owners.items():
        unled = situation.unled_for >= UNLED_SECONDS
        if situation.armed:
            if unled or (owner == SELF and busy):
                continue
            if situation.settled:
                actions[owner] = Action.DISARM
            elif situation.gone_for >= GONE_SECONDS and owner != APISERVER:
                # An armed kube-apiserver may be the one that answers: it stays, whatever became of its owner.
                actions[owner] = Action.FORGET
        elif dead_for >= DEAD_SECONDS or unled:
            actions[owner] = Action.ARM
        elif situation.gone_for >= GONE_SECONDS and not (owner == SELF and busy):
            actions[owner] = Action.FORGET
    return actions


class Timers:
    """For how long things have been so without a break."""

    def __init__(self) -> None:
        self._since: dict[object, float] = {}

    def hold(self, facts: Collection[object], now: float) -> None:
        """Tells all facts that hold now; the others' time ends."""
        self._since = {fact: self._since.get(fact, now) for fact in facts}

    def age(self, fact: object, now: float) -> float:
        """Seconds since it began to hold, 0 if it does not hold."""
        return now - self._since.get(fact, now)
