"""The base class of the config's models, and what their fields share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = ["DERIVED", "ByComponent", "Section", "Text"]

DERIVED = "x-derived-default"
"""Marks, in the JSON schema, a default that depends on other values; its text says which."""

Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A map of known keys, spelt as Pulumi's are."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


def _component_name(field: str) -> str:
    return field.replace("_", "-")


class ByComponent(Section):
    """A section that has a key for every component, or every image, spelt as that is."""

    model_config = ConfigDict(alias_generator=_component_name)
