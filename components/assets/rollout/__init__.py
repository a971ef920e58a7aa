"""Is a cluster rolled out, and if not, why. Who decides it: `verdict`; who tells the user: `explanation`."""

from components.assets.rollout.explanation import LOG_LINES, explain, quoted, unexplained
from components.assets.rollout.leadership import on_trial
from components.assets.rollout.lost import without_lost
from components.assets.rollout.objects import (
    BOOTSTRAP,
    Expected,
    Lease,
    Observed,
    Trial,
    counts,
    expected,
    roll_seconds,
)
from components.assets.rollout.verdict import Verdict, late_workloads, progress, to_nudge, verdict

__all__ = [
    "BOOTSTRAP",
    "LOG_LINES",
    "Expected",
    "Lease",
    "Observed",
    "Trial",
    "Verdict",
    "counts",
    "expected",
    "explain",
    "late_workloads",
    "on_trial",
    "progress",
    "quoted",
    "roll_seconds",
    "to_nudge",
    "unexplained",
    "verdict",
    "without_lost",
]
