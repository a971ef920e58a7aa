"""What a resource's properties may be, and what a change of them means.

Values are plain Python: dicts and lists, `UNKNOWN` for what a preview cannot know, None for what is not set.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pulumi.provider.experimental.provider import CheckFailure, PropertyDiff, PropertyDiffKind

from lab.plugins.common import UNKNOWN

Values = dict[str, Any]
Fields = Mapping[str, "Field"]
Type = Literal["string", "integer", "boolean", "number", "list", "set", "object"]

DEFAULTS = "__defaults"
"""Among a resource's inputs: the names of those that the program left to the plugin."""

TAG = re.compile(r"[a-zA-Z0-9:\-_]{1,255}")

_ZEROS: Mapping[Type, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False}
_REPLACE = {
    PropertyDiffKind.ADD: PropertyDiffKind.ADD_REPLACE,
    PropertyDiffKind.DELETE: PropertyDiffKind.DELETE_REPLACE,
    PropertyDiffKind.UPDATE: PropertyDiffKind.UPDATE_REPLACE,
}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A property. Unless it is `required` or an `output`, the program may leave it out."""

    type: Type
    required: bool = False
    named: bool = False
    """A required name; one that is left out is made of the resource's and a random suffix."""
    computed: bool = False
    """Where the program leaves it out, the API's value stays."""
    output: bool = False
    replaces: bool = False
    default: Any = None
    deprecated: bool = False
    """Its default is not shown among the inputs."""
    element: Field | None = None
    fields: Fields = field(default_factory=dict)
    check: Callable[[Any], str | None] = lambda value: None
    """What is wrong with a value of the right type."""
    stored: Callable[[Any], Any] | None = None
    """How the state has the value that the program gives."""
    same: Callable[[Any, Any, Values], bool] = lambda old, new, values: False
    """Whether a value is as good as the old one, among all new values."""
    unserved: bool = False
    """The official plugin has it, and this one refuses it."""


def not_empty(value: Any) -> str | None:
    """Refuse "" and 0."""
    return None if value else f"must not be empty, got {value!r}"


def one_of(*choices: str, ignore_case: bool = False) -> Callable[[Any], str | None]:
    """Accept `choices` only."""

    def check(value: Any) -> str | None:
        found = value.upper() in choices if ignore_case else value in choices
        return None if found else f"expected to be one of {', '.join(choices)}, got {value!r}"

    return check


def between(least: int, most: int) -> Callable[[Any], str | None]:
    """Accept numbers from `least` to `most`."""
    return lambda value: (
        None if least <= value <= most else f"expected to be in the range ({least} - {most}), got {value}"
    )


def lengths(least: int, most: int) -> Callable[[Any], str | None]:
    """Accept texts of so many bytes."""

    def check(value: Any) -> str | None:
        if least <= len(value.encode()) <= most:
            return None
        return f"expected length to be in the range ({least} - {most}), got {value!r}"

    return check


def tag_name(value: Any) -> str | None:
    """Accept what the official plugin takes for a tag."""
    if TAG.fullmatch(value):
        return None
    return f"may contain letters, numbers, colons, dashes and underscores, up to 255, got {value!r}"


def ipv4(value: Any) -> str | None:
    """Accept an IPv4 address."""
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return f"expected to be a valid IPv4 address, got {value!r}"
    return None


def cidr(value: Any) -> str | None:
    """Accept an address with a prefix length."""
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        return f"expected to be a valid IPv4 or IPv6 CIDR, got {value!r}"
    return None if "/" in value else f"expected to be a CIDR, got {value!r}"


def name_field(**settings: Any) -> Field:
    """A name that the plugin makes up where the program has none."""
    return Field(type="string", named=True, check=not_empty, **settings)


def output(type: Type, **settings: Any) -> Field:
    """A property that only the API sets."""
    return Field(type=type, output=True, **settings)


def sequence(
    kind: Literal["list", "set"], element: Type, check: Callable[[Any], str | None] = lambda value: None
) -> Callable[..., Field]:
    """Make fields that hold several values of one type."""
    return lambda **settings: Field(type=kind, element=Field(type=element, check=check), **settings)


def tags_field() -> Field:
    """The tags of a droplet, a firewall or a rule's other end."""
    return sequence("set", "string", tag_name)()


def failures(inputs: Mapping[str, Any], fields: Fields, path: str = "") -> Iterator[CheckFailure]:
    """What is wrong with `inputs` by name, type or value."""
    for key, value in inputs.items():
        if not key.startswith("__"):
            name = f"{path}{key}"
            if key not in fields or fields[key].output:
                yield CheckFailure(name, f"Invalid or unknown key. Examine values at '{name}'.")
            else:
                yield from _value_failures(value, fields[key], name)
    for key, known in fields.items():
        if known.required and inputs.get(key) is None:
            yield CheckFailure(f"{path}{key}", f"Missing required argument: '{path}{key}' is required.")


def _value_failures(value: Any, known: Field, name: str) -> Iterator[CheckFailure]:
    if value is None or value == UNKNOWN:
        return
    if known.unserved:
        reason = f"'{name}' is not in the lab's stand-in: leave it out or install the official plugin"
        yield CheckFailure(name, reason)
    elif not _is(value, known.type):
        yield CheckFailure(
            name, f"'{name}' expected type '{known.type}', got {type(value).__name__}: {value!r}"
        )
    elif known.type == "object":
        yield from failures(value, known.fields, f"{name}.")
    elif known.type in ("list", "set"):
        assert known.element is not None
        for index, item in enumerate(value):
            yield from _value_failures(item, known.element, f"{name}[{index}]")
    elif problem := known.check(value):
        yield CheckFailure(name, f"'{name}' {problem}. Examine values at '{name}'.")


def _is(value: Any, type: Type) -> bool:
    match type:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "object":
            return isinstance(value, Mapping)
    return isinstance(value, Sequence) and not isinstance(value, str)


def with_defaults(inputs: Mapping[str, Any], fields: Fields) -> Values:
    """`inputs` without what is null, and with those defaults that are not False, 0 or empty."""
    filled = {
        key: _element_defaults(value, fields[key]) for key, value in inputs.items() if value is not None
    }
    return filled | {
        key: known.default
        for key, known in fields.items()
        if known.default and not known.deprecated and key not in filled
    }


def _element_defaults(value: Any, known: Field) -> Any:
    if value == UNKNOWN:
        return value
    if known.type == "object":
        return with_defaults(value, known.fields)
    if known.element is not None:
        return [_element_defaults(item, known.element) for item in value]
    return int(value) if known.type == "integer" else value


@dataclass(kw_only=True)
class Plan:
    """What a resource is to become."""

    inputs: Mapping[str, Any]
    old: Mapping[str, Any]
    """The state. Empty for what is still to be made."""
    values: Values
    """The state to come, with UNKNOWN for what the API is yet to say."""
    changes: dict[str, PropertyDiff]
    """By path, such as `inboundRules[0].portRange`."""

    def changed(self, *names: str) -> bool:
        """Whether one of the properties `names` changes."""
        return not {_top(path) for path in self.changes}.isdisjoint(names)

    def replace(self, name: str) -> None:
        """Make the change of `name` one that replaces the resource."""
        for path, change in self.changes.items():
            if _top(path) == name:
                change.kind = _REPLACE.get(change.kind, change.kind)

    @property
    def replaces(self) -> list[str]:
        """The properties whose change replaces the resource."""
        kinds = set(_REPLACE.values())
        return sorted({_top(path) for path, change in self.changes.items() if change.kind in kinds})


def plan(
    inputs: Mapping[str, Any], old: Mapping[str, Any], fields: Fields, ignored: Sequence[str] = ()
) -> Plan:
    """Compare `inputs` with the state `old`, which is empty for what is still to be made."""
    values = {name: _planned(inputs.get(name), old, known, name) for name, known in fields.items()}
    made = Plan(inputs=inputs, old=old, values=values, changes={})
    for name, known in fields.items():
        if not old or known.output:
            continue
        before, after = old.get(name), values[name]
        if name in ignored or (after != UNKNOWN and known.same(before, after, values)):
            values[name] = before
        elif _differs(before, after, known):
            kinds = _changes(name, before, after, known)
            made.changes |= {path: PropertyDiff(kind, False) for path, kind in kinds}
            if known.replaces:
                made.replace(name)
    return made


def _planned(value: Any, old: Mapping[str, Any], known: Field, name: str) -> Any:
    if known.output or (value is None and known.computed):
        return old.get(name) if old else UNKNOWN
    if value is None:
        return known.default
    return known.stored(value) if known.stored is not None and value != UNKNOWN else value


def _differs(old: Any, new: Any, known: Field) -> bool:
    if new == UNKNOWN:
        return True
    if known.type not in _ZEROS:
        return bool(_canonical(old, known) != _canonical(new, known))
    zero = _ZEROS[known.type]
    if new is None:
        return old is not None and old != zero
    # False for what was never set is a change, "" is none: as the official plugin's SDK has it.
    return bool((old or "") != new) if known.type == "string" else bool(old != new)


def _canonical(value: Any, known: Field) -> Any:
    """`value` so that equal ones compare equal: sets in order, zeros for what is not set."""
    if value == UNKNOWN:
        return value
    if known.type == "object":
        if value is None:
            return None
        return {name: _canonical(value.get(name), inner) for name, inner in known.fields.items()}
    if known.element is not None:
        items = [_canonical(item, known.element) for item in value or []]
        return sorted(items, key=repr) if known.type == "set" else items
    if value is None:
        return _ZEROS[known.type] if known.default is None else known.default
    return int(value) if known.type == "integer" else value


def canonical_items(values: Any, known: Field) -> list[Any]:
    """The elements of a list or set so that equal ones compare equal, in their order."""
    assert known.element is not None
    return [_canonical(item, known.element) for item in values or []]


def _changes(path: str, old: Any, new: Any, known: Field) -> Iterator[tuple[str, PropertyDiffKind]]:
    if old is None:
        yield path, PropertyDiffKind.ADD
    elif new is None:
        yield path, PropertyDiffKind.DELETE
    elif new == UNKNOWN or known.type in _ZEROS:
        yield path, PropertyDiffKind.UPDATE
    elif known.type == "object":
        for name, inner in known.fields.items():
            if _canonical(old.get(name), inner) != _canonical(new.get(name), inner):
                yield from _changes(f"{path}.{name}", old.get(name), new.get(name), inner)
    else:
        yield from _element_changes(path, old, new, known)


def _element_changes(path: str, old: Any, new: Any, known: Field) -> Iterator[tuple[str, PropertyDiffKind]]:
    """Of a set, elements that only one side has; of a list, those that differ in their place."""
    assert known.element is not None
    before, after = (canonical_items(values, known) for values in (old, new))
    in_place = known.type == "list"
    for index in range(max(len(before), len(after))):
        gone = index < len(before) and (in_place or before[index] not in after)
        come = index < len(after) and (in_place or after[index] not in before)
        inner = f"{path}[{index}]"
        if gone and come:
            if before[index] != after[index]:
                yield from _changes(inner, old[index], new[index], known.element)
        elif gone or come:
            yield inner, PropertyDiffKind.ADD if come else PropertyDiffKind.DELETE


def refreshed(inputs: Mapping[str, Any], values: Mapping[str, Any], fields: Fields) -> Values:
    """The program's inputs as the state `values` now has them.

    Only what the program gave comes back; what the state has in another form, such as a digest, stays.
    """
    return {
        key: _refreshed(value, values.get(key), fields[key])
        for key, value in inputs.items()
        if not key.startswith("__")
    }


def _refreshed(given: Any, now: Any, known: Field) -> Any:
    if known.stored is not None:
        return given
    if known.type == "object" and isinstance(now, Mapping):
        return refreshed(given, now, known.fields)
    if known.element is not None and now is not None:
        left = canonical_items(now, known)
        return [item for item in given if _canonical(item, known.element) in left]
    return now


def _top(path: str) -> str:
    return re.split(r"[.\[]", path, maxsplit=1)[0]
