"""Kubernetes objects as plain dictionaries, and as the property values that Pulumi keeps of them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from pulumi.provider.experimental.property_value import PropertyValue

from lab.plugins.common import UNKNOWN

Object = dict[str, Any]

SKIP_AWAIT = "pulumi.com/skipAwait"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
PATCH_FORCE = "pulumi.com/patchForce"
PATCH_FIELD_MANAGER = "pulumi.com/patchFieldManager"
DELETION_PROPAGATION = "pulumi.com/deletionPropagationPolicy"

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

_SET_BY_SERVER = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
)
_QUANTITY = re.compile(r"([+-]?[0-9]*\.?[0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_DECIMAL = {"E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "": 0, "m": -3, "u": -6, "n": -9}
_BINARY = {"Ei": 60, "Pi": 50, "Ti": 40, "Gi": 30, "Mi": 20, "Ki": 10}


def metadata(obj: Object) -> Mapping[str, Any]:
    """The object's metadata; empty while not known."""
    value = obj.get("metadata")
    return value if isinstance(value, dict) else {}


def name_of(obj: Object) -> str:
    """The object's name."""
    return str(metadata(obj).get("name") or "")


def namespace_of(obj: Object) -> str:
    """The object's namespace, empty if it has or names none."""
    return str(metadata(obj).get("namespace") or "")


def annotation(obj: Object, key: str) -> str:
    """An annotation's value, empty if it is absent."""
    annotations = metadata(obj).get("annotations")
    return str(annotations.get(key, "")) if isinstance(annotations, dict) else ""


def qualified(obj: Object) -> str:
    """`namespace/name`, or the name alone: the resource's id."""
    return f"{namespace_of(obj)}/{name_of(obj)}" if namespace_of(obj) else name_of(obj)


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


def has_unknown(value: Any) -> bool:
    """Whether something in `value` is not known yet."""
    if isinstance(value, dict):
        return any(map(has_unknown, value.values()))
    if isinstance(value, list):
        return any(map(has_unknown, value))
    return bool(value == UNKNOWN)


def normalized(obj: Object) -> Object:
    """Inputs in the form that the API server answers with, so that spelling alone is no difference.

    Left as they are while something in them is unknown, but for what only the server sets.
    """
    if not has_unknown(obj):
        obj = _canonical(obj)
        if obj.get("apiVersion") == "v1" and obj.get("kind") == "Secret" and "stringData" in obj:
            plain = obj.pop("stringData")
            obj["data"] = (obj.get("data") or {}) | {
                key: base64.b64encode(str(text).encode()).decode() for key, text in plain.items()
            }
    if isinstance(obj.get("metadata"), dict):
        kept = {key: item for key, item in obj["metadata"].items() if key not in _SET_BY_SERVER}
        obj = {**obj, "metadata": kept}
    return obj


def _canonical(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        if key in ("requests", "limits"):
            return {name: canonical_quantity(item) for name, item in value.items()}
        return {name: _canonical(item, name) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return canonical_quantity(value) if key == "sizeLimit" else value


def canonical_quantity(value: Any) -> Any:
    """A quantity as the API server writes it (`0.1` is `100m`, `1024Mi` is `1Gi`); anything else as it is."""
    match = None if isinstance(value, bool) else _QUANTITY.fullmatch(str(value))
    if match is None:
        return value
    number, suffix = Fraction(match[1]), match[2] or ""
    if suffix in _BINARY:
        amount = number * 2 ** _BINARY[suffix]
        for unit, power in _BINARY.items():
            if abs(amount) >= 1024 and amount % 2**power == 0:
                return f"{amount // 2**power}{unit}"
    else:
        amount = number * Fraction(10) ** _DECIMAL[suffix]
    if amount == 0:
        return "0"
    for unit, power in _DECIMAL.items():
        if (amount / Fraction(10) ** power).denominator == 1:
            return f"{amount / Fraction(10) ** power}{unit}"
    return value


def pruned(live: Any, shape: Any) -> Any:
    """What `live` holds at the places that `shape` has; the server leaves empty maps and lists out."""
    if isinstance(live, dict) and isinstance(shape, dict):
        return {
            key: pruned(live[key], like) if key in live else like
            for key, like in shape.items()
            if key in live or like in ({}, [])
        }
    if isinstance(live, list) and isinstance(shape, list):
        return [pruned(item, like) for item, like in zip(live, shape, strict=False)]
    return live


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
        if (
            isinstance(item, dict)
            and like is not None
            and isinstance(like.value, Mapping)
            and not like.is_secret
        ):
            member = with_secrets(item, like)
        else:
            member = with_secrets(item, None).with_secret(like is not None and like.contains_secret())
        members[key] = member.with_secret(member.is_secret or key in hidden)
    return members


def secret_texts(properties: Mapping[str, PropertyValue]) -> set[str]:
    """Every secret string in `properties` that is long enough to be recognised in a message."""
    found: set[str] = set()

    def collect(value: PropertyValue, secret: bool) -> None:
        secret |= value.is_secret
        if isinstance(value.value, Mapping):
            for item in value.value.values():
                collect(item, secret)
        elif isinstance(value.value, str):
            if secret and len(value.value) >= 4:
                found.add(value.value)
        elif isinstance(value.value, Sequence):
            for item in value.value:
                collect(item, secret)

    for item in properties.values():
        collect(item, False)
    return found


def imported(live: Object) -> Object:
    """Inputs that would make a live object: all of it but what only the server sets."""
    return normalized({key: item for key, item in live.items() if key != "status"})


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


class State:
    """What Pulumi's state holds of a resource."""

    def __init__(self, properties: Mapping[str, PropertyValue]) -> None:
        self.live = to_object(properties)
        self.inputs: Object = self.live.pop(_INPUTS, {})
        self.manager: str = self.live.pop(_FIELD_MANAGER, "")
        self.api_version: str = self.live.pop(_API_VERSION, "") or self.inputs.get("apiVersion", "")
