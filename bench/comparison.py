"""What was measured of two tools, as a table, and where ours takes longer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LIMIT = 1.0
LIMITED = ("create", "patch", "minor")

TITLES = {
    "create": "1+1, from hosts that SSH reaches until all is available",
    "flag": "a flag of kube-apiserver, 1+1",
    "worker": "a worker added",
    "patch": "upgrade of 1+2 to another patch, with drains",
    "minor": "upgrade of 1+2 to another minor, with drains",
}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one phase took, and what the clients at `endpoint` and `service` address counted meanwhile."""

    seconds: float
    clients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


Results = Mapping[str, tuple[Figures, Figures]]
"""Of kubepivot and of kubeadm, by phase."""


def ratio(both: tuple[Figures, Figures]) -> float:
    """Of the times: below 1 kubepivot is quicker."""
    ours, theirs = both
    return ours.seconds / theirs.seconds


def exceeded(results: Results) -> list[str]:
    """The phases for which there is a limit, and which take longer."""
    return [phase for phase in LIMITED if phase in results and ratio(results[phase]) > LIMIT]


def table(results: Results) -> str:
    """In Markdown: for each phase its time and, where clients asked meanwhile, what they counted."""
    rows = [["", "kubepivot", "kubeadm", "ratio"], ["---"] * 4]
    for phase, both in results.items():
        rows.append([TITLES[phase], *(f"{each.seconds:.1f} s" for each in both), f"{ratio(both):.2f}"])
        if all(each.clients for each in both):
            rows += [[f"… {title}", *map(show, both), ""] for title, show in _COUNTS.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _failed(figures: Figures) -> str:
    return _each(figures, "{raw_failures:,} of {requests:,}")


def _failed_again(figures: Figures) -> str:
    return _each(figures, "{failed_after_retry:,}")


def _silence(figures: Figures) -> str:
    return _each(figures, "{seconds_without_answer:.1f} s")


def _each(figures: Figures, text: str) -> str:
    return " / ".join(text.format(**figures.clients[client]) for client in ("endpoint", "service"))


_COUNTS = {
    "failed requests, endpoint / service address": _failed,
    "of them failed again at once": _failed_again,
    "longest time without an answer": _silence,
}
