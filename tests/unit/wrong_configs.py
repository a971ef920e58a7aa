"""Wrong values of the config, and what their messages must say.

@pytest.mark.parametrize(WRONG, [case("mode", "rendr", "use 'cluster' or 'render'")])
def test_an_error_names_key_value_and_mend(
    base: Callable[[], Raw], path: str, value: object, key: str, shown: str, mend: str
) -> None:
    check(base, path, value, key, shown, mend)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.raw_configs import LEFT_OUT, S3, Raw, errors, lab, with_value

WRONG = ("base", "path", "value", "key", "shown", "mend")


def case(
    path: str, value: object, mend: str, *, base: Callable[[], Raw] = lab, key: str = "", shown: str = ""
) -> Any:
    """A wrong value and what its message must say; without `key` and `shown`, path and value themselves."""
    if not shown:
        shown = "(not set)" if value is LEFT_OUT else str(value)
    key = key or ".".join(path.split())
    return pytest.param(base, path, value, f"kubepivot:{key}", shown, mend, id=f"{path}: {shown} ({mend})")


def host_case(field: str, value: object, mend: str, **rest: Any) -> Any:
    return case(f"hosts worker-1 {field}", value, mend, **rest)


def label_case(key: str, value: object, mend: str, *, shown: str) -> Any:
    quoted = f'["{key}"]' if "/" in key else f".{key}"
    return host_case("labels", {key: value}, mend, key=f"hosts.worker-1.labels{quoted}", shown=shown)


def flag_case(flag: str, value: object, mend: str) -> Any:
    quoted = f".{flag}" if "=" not in flag else f'["{flag}"]'
    key = f"flags.kube-apiserver{quoted}"
    return case("flags kube-apiserver", {flag: value}, mend, key=key, shown=f'"{flag}"')


def taint_case(text: object, mend: str) -> Any:
    return host_case("taints", [text], mend, key="hosts.worker-1.taints[0]", shown=str(text))


def s3_case(field: str, value: object, mend: str, *, shown: str | None = None) -> Any:
    s3: dict[str, object] = {**S3, field: value}
    if value is LEFT_OUT:
        del s3[field]
        shown = "(not set)"
    shown = str(value) if shown is None else shown
    return case("backup s3", s3, mend, key=f"backup.s3.{field}", shown=shown)


def in_hosts() -> Raw:
    return lab() | {"network": {"hosts": "172.30.0.0/24"}}


LONG_DOMAIN = f"{'a.' * 115}a"
PORT = "use a whole number from 1 to 65535"
CIDR = "use an IPv4 range in CIDR form"
URL = "use an http:// or https:// URL"
DNS_LABEL = "lower-case letters, digits and hyphens"
WORKER = {"role": "worker", "address": "172.30.0.22"}
LOCKED = "~/.ssh/id_locked"


def check(base: Callable[[], Raw], path: str, value: object, key: str, shown: str, mend: str) -> None:
    """That one of the error's problems is that value's, and says so."""
    error = errors(with_value(base(), path, value))
    found = [str(problem) for problem in error.problems if problem.key == key]
    assert any(shown in line and mend in line for line in found), str(error)
    assert str(error).splitlines()[1:] == [f"  {problem}" for problem in error.problems]
