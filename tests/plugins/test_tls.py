"""What the program needs of the tls provider's real plugin."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from components.pki import RENEW_HOURS
from tests.e2e.stacks import Stack, lab_config

pytestmark = pytest.mark.e2e

UP = ("up", "--yes", "--skip-preview")


def pem(stack: Stack) -> dict[str, str]:
    """Every key, request and certificate of the state by its resource."""
    names = ("privateKeyPem", "certRequestPem", "certPem")
    return {
        name: next(value["outputs"][each] for each in reversed(names) if each in value["outputs"])
        for name, value in stack.state().items()
        if value["type"].startswith("tls:")
    }


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def end_at(stack: Stack, name: str, end: datetime, directory: Path) -> None:
    """Makes a certificate in the state one that ends then."""
    file = directory / "state.json"
    stack.pulumi("stack", "export", "--file", str(file))
    state = json.loads(file.read_text())
    (found,) = [each for each in state["deployment"]["resources"] if each["urn"].endswith(f"::{name}")]
    found["outputs"]["validityEndTime"] = end.isoformat()
    file.write_text(json.dumps(state))
    stack.pulumi("stack", "import", "--file", str(file))


def test_what_changes_in_the_pki(new_program: Callable[[str, dict[str, Any]], Stack], tmp_path: Path) -> None:
    """A leaf inside its renewal window is made anew, and one with another name; keys and authorities stay."""
    config = lab_config(1)
    stack = new_program("pki", config)
    stack.pulumi(*UP)
    stack.second_up_changes_nothing()
    first = pem(stack)
    authority, leaf = (
        x509.load_pem_x509_certificate(first[f"pki-{name}-cert"].encode()) for name in ("ca", "apiserver")
    )
    leaf.verify_directly_issued_by(authority)

    now = datetime.now(UTC)
    end_at(stack, "pki-apiserver-cert", now + timedelta(hours=RENEW_HOURS + 1), tmp_path)
    stack.second_up_changes_nothing()
    end_at(stack, "pki-apiserver-cert", now + timedelta(hours=RENEW_HOURS - 1), tmp_path)
    stack.pulumi(*UP)
    renewed = pem(stack)
    assert changed(first, renewed) == {"pki-apiserver-cert"}
    stack.second_up_changes_nothing()

    stack.configure({**config, "api": {"host": "api.example.com"}})
    stack.pulumi(*UP)
    assert changed(renewed, pem(stack)) == {
        f"pki-{form}apiserver-{part}" for form in ("", "bootstrap-") for part in ("request", "cert")
    }
    stack.destroy()
    assert stack.state() == {}
