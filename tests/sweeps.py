"""Sweeps: the same test once for each of many values, of which `make check` takes the first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def swept(values: Iterable[Any]) -> list[Any]:
    """Values for `parametrize`: all but the first are of `make sweeps`."""
    first, *others = values
    marked = [
        pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=pytest.mark.sweep)
        for each in others
    ]
    return [first, *marked]
