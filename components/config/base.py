"""The base class of the config's models, and what their fields share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = ["DERIVED", "Section", "Text", "component_name"]

DERIVED = "x-derived-default"
"""Marks, in the JSON schema, a default that depends on other values; its text says which."""

Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A map of known keys, spelt as Pulumi's are."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


def component_name(field: str) -> str:
    """How a section spells its keys that has one for every component."""
    return field.replace("_", "-")
