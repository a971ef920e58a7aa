"""Parses durations: `90m`, `6h`, `1d12h`."""

from __future__ import annotations

import re

__all__ = ["at_least", "seconds"]

_PARTS = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?", re.ASCII)
_SECONDS = (86400, 3600, 60, 1)


def seconds(text: str) -> int:
    """The whole seconds of a span; ValueError with the mend if the text is none."""
    parts = _PARTS.fullmatch(text)
    if not text or parts is None:
        raise ValueError("use days, hours, minutes or seconds, for example 6h, 90m or 1d12h")
    return sum(int(part) * unit for part, unit in zip(parts.groups(default="0"), _SECONDS, strict=True))


def at_least(text: str, least: str) -> str:
    """Returns the text if it is a span that is no shorter than `least`; ValueError with the mend if not."""
    if seconds(text) < seconds(least):
        raise ValueError(f"use at least {least}")
    return text
