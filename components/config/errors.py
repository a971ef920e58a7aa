"""Validation errors of a stack's config, reported all at once, each with key, value and mend."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import get_args, get_origin

import pulumi
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from components.config.sshkeys import is_path

__all__ = ["ConfigError", "Problem", "problems_of"]

PROJECT = "kubepivot"
_SECRET = "(secret)"
_CREDENTIALS = ("accessKey", "secretKey", "encryptionKey")
_LONGEST = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One wrong value: key, value (shortened, and hidden if secret) and mend, as text."""

    key: str
    value: str
    mend: str

    @classmethod
    def at(cls, path: Sequence[str | int], value: object, mend: str) -> Problem:
        """The problem of the value at a path below the project's namespace."""
        return cls(key=_key(path), value=_shown(path, value), mend=mend)

    def __str__(self) -> str:
        return f"{self.key} = {self.value}: {self.mend}"


class ConfigError(pulumi.RunError):
    """Every problem of a stack's config at once. Pulumi prints the text of a RunError without a traceback."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"the stack's config has {count}:", *(f"  {p}" for p in self.problems)]))


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """What pydantic found, with the mend that the type of error, or the validator's ValueError, tells."""
    found = error.errors(include_url=False)
    # A list is too short for pydantic when what is in it is wrong.
    wrong = {each["loc"][:-1] for each in found}
    return [
        _problem(each, model) for each in found if each["type"] != "too_short" or each["loc"] not in wrong
    ]


def _problem(details: ErrorDetails, model: type[BaseModel]) -> Problem:
    path = [part for part in details["loc"] if part != "[key]"]
    section, field = _declared(model, path)
    value, example = details["input"], ""
    if field is not None and field.examples and field.alias == path[-1]:
        example = f", for example {json.dumps(field.examples[0])}"
    match details["type"]:
        case "value_error":
            mend = str(details["ctx"]["error"])
        case "extra_forbidden":
            # An unknown key may be a misspelled secret: its value is not shown.
            return Problem(key=_key(path), value="(not shown)", mend=_unknown(path, section))
        case "missing":
            value, mend = None, f"it is required{example}"
        case "literal_error":
            mend = f"use {details['ctx']['expected']}"
        case "string_type":
            mend = f"write it as text, in quotes{example}"
        case "string_too_short":
            mend = f"it must not be empty{example}"
        case "too_short":
            mend = f"name at least one{example}"
        case "bool_type" | "bool_parsing":
            mend = "use true or false"
        case "int_type" | "int_parsing" | "int_from_float" | "greater_than_equal" | "less_than_equal":
            low, high = _bounds(field)
            mend = f"use a whole number from {low} to {high}"
        case "model_type" | "dict_type":
            mend = f"write a map of keys and values{example}"
            if not isinstance(value, (Mapping, list, tuple)):
                # It may be the secret of a key below: its own text is not shown.
                shown = "(nothing)" if value is None else "(a single value)"
                return Problem(key=_key(path), value=shown, mend=mend)
        case "tuple_type":
            mend = f"write a list{example}"
        case _:
            mend = details["msg"]
    return Problem.at(path, value, mend)


def _bounds(field: FieldInfo | None) -> tuple[int, int]:
    """The least and the greatest of a number; every number of the config has both."""
    assert field is not None  # a number that is wrong is declared
    found = {
        name: getattr(each, name) for each in field.metadata for name in ("ge", "le") if hasattr(each, name)
    }
    return found["ge"], found["le"]


def _declared(
    section: type[BaseModel], path: Sequence[str | int]
) -> tuple[type[BaseModel], FieldInfo | None]:
    """The model that declares the value at a path, and its field there (None for an unknown key)."""
    first, *rest = path
    field = next((field for field in section.model_fields.values() if field.alias == first), None)
    if field is None:
        return section, None
    kinds = (field.annotation, *get_args(field.annotation))
    inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    if get_origin(field.annotation) is dict:
        rest = rest[1:]  # the entry's name
    return (section, field) if inner is None or not rest else _declared(inner, rest)


_ELSEWHERE: dict[tuple[str, ...], str] = {
    ("digitalOcean", "token"): "digitalocean:token, a secret: pulumi config set --secret digitalocean:token"
}
"""Keys that somebody looks for in the wrong place, and where they are."""


def _unknown(path: Sequence[str | int], section: type[BaseModel]) -> str:
    if place := _ELSEWHERE.get(tuple(map(str, path))):
        return f"this key is unknown here; it is {place}"
    key = str(path[-1])
    known = {str(field.alias).lower(): str(field.alias) for field in section.model_fields.values()}
    close = get_close_matches(key.lower().replace("_", ""), known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"known are {', '.join(known.values())}"
    return f"this key is unknown; {hint}"


def _key(path: Sequence[str | int]) -> str:
    """A key as `pulumi config set --path` takes it: kubepivot:hosts.a.labels["example.com/x"]."""
    first, *rest = path
    text = f"{PROJECT}:{first}"
    for part in rest:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if re.fullmatch(r"[\w-]+", part) else f'["{part}"]'
    return text


def _shown(path: Sequence[str | int], value: object) -> str:
    """A value on one line, bounded, and without what is or looks like a secret."""
    # A key pasted in part looks like anything, so of a private key only what begins as a path is shown.
    if path[0] == "hosts" and path[-1] == "key" and value is not None and not is_path(value):
        return _SECRET
    if path[0] == "backup" and path[-1] in _CREDENTIALS and value is not None:
        return _SECRET
    match value:
        case None:
            return "(not set)"
        case bool():
            return str(value).lower()
        case Mapping():
            return "(a map)" if value else "(empty)"
        case list() | tuple():
            return "(a list)" if value else "(empty)"
        case str():
            return _shown_text(value.strip())
        case _:
            return str(value)


def _shown_text(text: str) -> str:
    if "\n" in text or "PRIVATE KEY" in text:
        return _SECRET
    text = re.sub(r"//[^/@]*@", "//***@", text)
    return f'"{text}"' if len(text) <= _LONGEST else f'"{text[:_LONGEST]}…"'
