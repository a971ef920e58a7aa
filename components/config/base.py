"""The base class of the config's models, and what their fields share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = ["DERIVED", "ByComponent", "Section", "Truth", "Whole", "number"]

DERIVED = "x-derived-default"
"""Marks, in the JSON schema, a default that depends on other values; its text says which."""


def number(value: object) -> object:
    """The whole number that a text of plain digits says; anything else as it is."""
    if isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,8}", value):
        return int(value)
    return value


Whole = Annotated[int, BeforeValidator(number), Field(strict=True)]
"""A whole number, also in quotes, and nothing else that Python makes one of: no true, no "1_000"."""


def _truth(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


Truth = Annotated[bool, BeforeValidator(_truth), Field(strict=True)]
"""true or false, also in quotes. Not `no`, which YAML 1.2 takes for text, so that it says nothing."""


class Section(BaseModel):
    """A map of known keys, spelt as Pulumi's are."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


def _component_name(field: str) -> str:
    return field.replace("_", "-")


class ByComponent(Section):
    """A section that has a key for every component, or every image, spelt as that is."""

    model_config = ConfigDict(alias_generator=_component_name)
