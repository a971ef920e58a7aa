"""Parses amounts of bytes: `512Mi`, `2Gi`."""

from __future__ import annotations

import re

__all__ = ["between", "in_bytes", "mebibytes"]

_UNITS = {"Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def in_bytes(text: str) -> int:
    """The bytes of an amount; ValueError with the mend if the text is none."""
    parts = re.fullmatch(r"([1-9]\d{0,5})(Mi|Gi|Ti)", text, re.ASCII)
    if parts is None:
        raise ValueError("use a whole number of Mi, Gi or Ti, for example 512Mi or 2Gi")
    return int(parts[1]) * _UNITS[parts[2]]


def mebibytes(text: str) -> int:
    """The same, in MiB: how hosts tell what a disk has."""
    return in_bytes(text) // _UNITS["Mi"]


def between(text: str, least: str, most: str) -> str:
    """Returns the text if it is an amount from `least` to `most`; ValueError with the mend if not."""
    if not in_bytes(least) <= in_bytes(text) <= in_bytes(most):
        raise ValueError(f"use {least} to {most}")
    return text
