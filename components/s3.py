"""What names a place in S3-compatible storage, and what opens it."""

from __future__ import annotations

import re

__all__ = ["bucket", "credential", "encryption_key", "prefix"]

SHORTEST_KEY = 20
"""Letters of an encryption key: all that stands between who has a copy and the cluster's Secrets."""


def bucket(text: str) -> str:
    """The text itself if it can be a bucket's name; ValueError with the mend if not."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text) or ".." in text:
        raise ValueError("use 3 to 63 lower-case letters, digits, dots and hyphens")
    return text


def prefix(text: str) -> str:
    """The text itself if it is empty or a path below a bucket; ValueError with the mend if not."""
    if text and not all(re.fullmatch(r"[\w][\w.-]*", part, re.ASCII) for part in text.split("/")):
        raise ValueError(
            "use names of letters, digits, dots, hyphens and underscores, with / between but not around them"
        )
    return text


def credential(value: object) -> object:
    """The value itself, unless it is text that no credential has; ValueError with the mend then."""
    if isinstance(value, str) and not re.fullmatch(r"[!-~]+", value):
        raise ValueError("use the text that the storage gave you, without spaces and line breaks")
    return value


def encryption_key(value: object) -> object:
    """The value itself, unless it is too short to keep a secret; ValueError with the mend then."""
    value = credential(value)
    if isinstance(value, str) and len(value) < SHORTEST_KEY:
        raise ValueError(
            f"use at least {SHORTEST_KEY} letters, for example those of `openssl rand -base64 32`"
        )
    return value
