"""Templates of objects as they stand, before anything is filled in."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cases import CHECKOUT

TEMPLATES = sorted((CHECKOUT / "components/assets").rglob("*.yaml"))


def _repeated(node: yaml.Node | None) -> list[str]:
    """Keys that a map of the document has more than once: of those YAML keeps the last and says nothing."""
    match node:
        case yaml.MappingNode(value=pairs):
            keys = [key.value for key, _ in pairs]
            inner = [found for _, value in pairs for found in _repeated(value)]
            return [key for key in set(keys) if keys.count(key) > 1] + inner
        case yaml.SequenceNode(value=items):
            return [found for item in items for found in _repeated(item)]
        case _:
            return []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_every_key_once(path: Path) -> None:
    assert [key for node in yaml.compose_all(path.read_text()) for key in _repeated(node)] == []
