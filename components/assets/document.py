"""Writes YAML that Kubernetes' parser reads unchanged, and environment files for shell scripts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

import yaml

from components.archive import File

__all__ = ["dump", "env_file"]

_NUMBER = "0123456789"
# PyYAML knows YAML 1.1: there 09, 1e3 and 0o17 are no numbers, 2026-1-2 is no date and y no truth value.
_SOMETHING_ELSE = {
    "float": (r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9_]+)?", f"-+.{_NUMBER}"),
    "int": (r"[-+]?0([xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)", "-+0"),
    "timestamp": (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?", _NUMBER),
    "bool": ("[yYnN]", "yYnN"),
}
"""What Go's YAML takes for something else than text: the pattern, and the letters that it begins with."""


class _Dumper(yaml.CSafeDumper):
    """Quotes text that Go's YAML would read as another type. Uses libyaml, which is many times as fast."""


for _kind, (_pattern, _begins) in _SOMETHING_ELSE.items():
    _Dumper.add_implicit_resolver(  # type: ignore[no-untyped-call]  # the stubs have no types for it
        f"tag:yaml.org,2002:{_kind}", re.compile(f"({_pattern})$"), list(_begins)
    )


def dump(document: Mapping[str, object]) -> str:
    """The document as YAML; keys keep their order."""
    return yaml.dump(document, sort_keys=False, Dumper=_Dumper)


def env_file(**values: str) -> File:
    """A file of variables for a shell to source, sorted."""
    return File("".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items())))
