"""Reads templates: YAML and shell with `${name}` placeholders and no logic."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from pathlib import Path

__all__ = ["names", "read", "script", "substitute"]

_ROOT = Path(__file__).parent


class _Template(string.Template):
    idpattern = r"[a-z][-a-z0-9./_]*"
    flags = re.RegexFlag(0)


def names(directory: str) -> list[str]:
    """Files of a directory of templates, sorted."""
    return sorted(path.name for path in (_ROOT / directory).iterdir())


def read(path: str) -> str:
    """A template's text as it stands."""
    return (_ROOT / path).read_text()


def script(name: str) -> str:
    """The text of a script that runs on a host."""
    return read(f"scripts/{name}.sh")


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Fills the placeholders in; one without a value is a KeyError."""
    return _Template(text).substitute(values)
