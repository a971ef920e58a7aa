"""Kubernetes objects as plain dictionaries."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from lab.plugins.common import UNKNOWN

Object = dict[str, Any]

SKIP_AWAIT = "pulumi.com/skipAwait"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
PATCH_FORCE = "pulumi.com/patchForce"
PATCH_FIELD_MANAGER = "pulumi.com/patchFieldManager"
DELETION_PROPAGATION = "pulumi.com/deletionPropagationPolicy"

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


def imported(live: Object) -> Object:
    """Inputs that would make a live object: all of it but what only the server sets."""
    return normalized({key: item for key, item in live.items() if key != "status"})
