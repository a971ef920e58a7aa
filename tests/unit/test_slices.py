"""The scenarios' parts: together all, none twice, of even length, and the same on every machine."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest

from tests import slices
from tests.cases import CHECKOUT

COUNT = 8
# With two that nobody has measured.
MODULES = [*slices.SECONDS, "tests/e2e/test_new.py", "tests/e2e/test_another.py"]


def test_every_module_is_in_one_part() -> None:
    for count in (1, COUNT, len(MODULES), len(MODULES) + 1):
        parts = [slices.share(MODULES, number, count) for number in range(1, count + 1)]
        assert sorted(name for part in parts for name in part) == sorted(MODULES)


def test_the_order_of_collection_makes_no_difference() -> None:
    expected = [slices.share(MODULES, number, COUNT) for number in range(1, COUNT + 1)]
    for seed in range(10):
        shuffled = random.Random(seed).sample(MODULES, len(MODULES))
        assert [slices.share(shuffled, number, COUNT) for number in range(1, COUNT + 1)] == expected


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def replace(**seconds: float) -> None:
        monkeypatch.setattr(slices, "SECONDS", seconds)

    return replace


def test_the_longest_are_dealt_out_first(table: Callable[..., None]) -> None:
    table(a=10, b=60, c=50, d=40, e=30)
    assert [slices.share("abcde", number, 2) for number in (1, 2)] == [["b", "e", "a"], ["c", "d"]]


def test_what_nobody_has_measured_counts_as_the_mean(table: Callable[..., None]) -> None:
    table(a=90, b=30)
    assert slices.share(["a", "b", "new"], 1, 1) == ["a", "new", "b"]


def test_without_builds_something_is_left_of_every_part() -> None:
    """Marked is what has the lab make another release, or takes one from an earlier commit."""
    texts = {name: (CHECKOUT / name).read_text() for name in slices.SECONDS}
    marked = {name for name, text in texts.items() if "pytest.mark.builds" in text}
    assert marked == {
        name
        for name, text in texts.items()
        if "tests.e2e.upgrading import" in text or "prepare_release" in text
    }
    for number in range(1, COUNT + 1):
        assert {*slices.share(slices.SECONDS, number, COUNT)} - marked


@pytest.mark.parametrize("text", ["", "1", "0/8", "9/8", "1/0", "-1/8", "a/b", "1/8/2", "1.5/8"])
def test_what_is_no_part_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="such as 1/8"):
        slices.parse(text)


def test_the_parts_are_numbered_from_1() -> None:
    assert slices.parse("1/8") == (1, 8)
    assert slices.parse("8/8") == (8, 8)


def test_the_table_names_modules_that_have_scenarios() -> None:
    for name in slices.SECONDS:
        assert "pytest.mark.e2e" in (CHECKOUT / name).read_text(), name


def test_a_part_is_no_longer_than_the_mean_by_a_fifth_or_is_one_module() -> None:
    parts = [slices.share(slices.SECONDS, number, COUNT) for number in range(1, COUNT + 1)]
    lengths = [sum(slices.SECONDS[name] for name in part) for part in parts]
    several = [length for part, length in zip(parts, lengths, strict=True) if len(part) > 1]
    assert max(several) < 1.2 * fmean(lengths), lengths
    assert max(lengths) < 25 * 60, "make test and, the first time, half an hour of builds come before it"


class Test:
    """As much of what pytest collects as says which part it is of."""

    __test__ = False

    def __init__(self, nodeid: str, *marks: str) -> None:
        self.nodeid, self.marks = nodeid, marks

    def get_closest_marker(self, name: str) -> object:
        return name if name in self.marks else None


def test_scenarios_are_dealt_out_by_module_and_nothing_else_is(table: Callable[..., None]) -> None:
    table(**{"a.py": 60, "b.py": 50})
    scenarios: Any = [
        Test("b.py::test_1", "e2e"),
        Test("a.py::test_2", "e2e"),
        Test("a.py::test_1", "e2e"),
    ]
    others: Any = [
        Test("a.py::test_life", "e2e", "life"),
        Test("life.py::test_1", "e2e", "life"),
        Test("c.py::test_1"),
    ]
    collected = [others[0], *scenarios, *others[1:]]
    assert slices.select(collected, 1, 2) == scenarios[1:]
    assert slices.select(collected, 2, 2) == scenarios[:1]
    assert slices.select(collected, 1, 1) == [*scenarios[1:], scenarios[0]]
