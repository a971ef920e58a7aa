"""Objects as the property values that Pulumi keeps of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pulumi.provider.experimental.property_value import PropertyValue

from lab.plugins.kubernetes.objects import Object

_INPUTS = "__inputs"
_API_VERSION = "__initialApiVersion"
_FIELD_MANAGER = "__fieldManager"

# State and outputs spell these keys of a CRD's schema with underscores, programs and the API with dashes.
_DASHED = (
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
_TO_UNDERSCORE = {key: key.replace("-", "_") for key in _DASHED}
_TO_DASH = {key.replace("-", "_"): key for key in _DASHED}
_RECOGNISABLE = 4


class State:
    """What Pulumi's state holds of a resource."""

    def __init__(self, properties: Mapping[str, PropertyValue]) -> None:
        self.live = to_object(properties)
        self.inputs: Object = self.live.pop(_INPUTS, {})
        self.manager: str = self.live.pop(_FIELD_MANAGER, "")
        self.api_version: str = self.live.pop(_API_VERSION, "") or self.inputs.get("apiVersion", "")


def checkpoint(
    live: Object, inputs: Object, source: Mapping[str, PropertyValue], *, api_version: str, manager: str
) -> dict[str, PropertyValue]:
    """A resource's state: the live object with the inputs and the field manager beside it."""
    like = PropertyValue(dict(source))
    state = members(_underscored(live), like)
    state[_INPUTS] = with_secrets(_underscored(inputs), like)
    state[_API_VERSION] = PropertyValue(api_version)
    state[_FIELD_MANAGER] = PropertyValue(manager)
    return state


def _underscored(value: Any) -> Any:
    if isinstance(value, dict):
        return {_TO_UNDERSCORE.get(key, key): _underscored(item) for key, item in value.items()}
    return [_underscored(item) for item in value] if isinstance(value, list) else value


def to_object(properties: Mapping[str, PropertyValue]) -> Object:
    """Property values as an object: secrets unwrapped, whole numbers as integers, keys with dashes."""
    return {_TO_DASH.get(key, key): _plain(item) for key, item in properties.items()}


def _plain(value: PropertyValue) -> Any:
    inner = value.value
    if isinstance(inner, Mapping):
        return to_object(inner)
    if isinstance(inner, Sequence) and not isinstance(inner, str):
        return [_plain(item) for item in inner]
    return int(inner) if isinstance(inner, float) and inner.is_integer() else inner


def with_secrets(value: Any, source: PropertyValue | None) -> PropertyValue:
    """`value` as a property value, secret where `source` is and where a Secret's data is."""
    if isinstance(value, dict):
        return PropertyValue(members(value, source))
    if isinstance(value, list):
        return PropertyValue([with_secrets(item, None) for item in value])
    return PropertyValue(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def members(value: Object, source: PropertyValue | None) -> dict[str, PropertyValue]:
    """An object's fields as property values, secret as `with_secrets` says."""
    known = source.value if source is not None and isinstance(source.value, Mapping) else {}
    hidden = ("data", "stringData") if value.get("kind") == "Secret" else ()
    members = {}
    for key, item in value.items():
        like = known.get(key) or known.get(_TO_UNDERSCORE.get(key, key))
        if like is None or not like.contains_secret():
            member = with_secrets(item, None)
        elif isinstance(item, dict) and isinstance(like.value, Mapping) and not like.is_secret:
            member = with_secrets(item, like)
        else:
            member = with_secrets(item, None).with_secret(True)
        members[key] = member.with_secret(member.is_secret or key in hidden)
    return members


def secret_texts(properties: Mapping[str, PropertyValue]) -> set[str]:
    """Every secret string in `properties` that is long enough to be recognised in a message."""

    def collect(value: PropertyValue, secret: bool) -> Iterator[str]:
        inner, secret = value.value, secret or value.is_secret
        items: Iterable[PropertyValue] = ()
        if isinstance(inner, Mapping):
            items = inner.values()
        elif isinstance(inner, str):
            if secret and len(inner) >= _RECOGNISABLE:
                yield inner
        elif isinstance(inner, tuple):
            items = inner
        for item in items:
            yield from collect(item, secret)

    return {text for value in properties.values() for text in collect(value, False)}
