"""The documents that are made from the config's models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import ClusterConfig, HostConfig, parse, reference
from components.config.crosschecks import SECTIONS
from tests.unit.raw_configs import OF_PLATFORM, S3, with_value

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize("path", reference.files(), ids=lambda path: path.name)
def test_generated_documents_are_fresh(path: Path) -> None:
    assert path.read_text() == reference.files()[path], "run: python -m components.config.reference"


@pytest.mark.parametrize("path", [path for path in reference.files() if path.suffix == ".md"])
def test_every_row_of_a_table_is_whole(path: Path) -> None:
    rows = [line for line in reference.files()[path].splitlines() if "|" in line]
    assert all(row.startswith("|") and row.endswith("|") for row in rows)


def test_the_reference_has_its_example_and_the_example_parses() -> None:
    document = next(text for path, text in reference.files().items() if path.suffix == ".md")
    fenced = document.split("```yaml\n")[1].split("```")[0]
    raw = {key.removeprefix("kubepivot:"): value for key, value in yaml.safe_load(fenced)["config"].items()}
    config = parse(raw, stack="other")
    assert config.name == "prod"
    assert config.warnings == ()
    assert (config.controllers, config.workers) == (("controller-1",), ("worker-1",))


def field_examples() -> Iterator[tuple[str, object]]:
    schema = next(json.loads(text) for path, text in reference.files().items() if path.suffix == ".json")
    top = schema["properties"]["config"]["properties"]
    yield from _examples(schema, {key.removeprefix("kubepivot:"): field for key, field in top.items()}, "")


def _examples(
    schema: dict[str, Any], fields: dict[str, dict[str, Any]], path: str
) -> Iterator[tuple[str, object]]:
    for key, field in fields.items():
        section_name = field.get("$ref") or field.get("additionalProperties", {}).get("$ref")
        if section_name:
            section = schema["$defs"][section_name.rpartition("/")[2]]
            yield from _examples(
                schema, section["properties"], f"{path}{key} worker-1 " if key == "hosts" else f"{path}{key} "
            )
        else:
            yield f"{path}{key}", field["examples"][0]


@pytest.mark.parametrize(("path", "example"), field_examples())
def test_every_example_of_the_reference_parses(path: str, example: object) -> None:
    sections = {section: platform for platform, section in SECTIONS.items()}
    ordered = path in ("hosts worker-1 size", "hosts worker-1 generation")
    platform = "digitalocean" if ordered else sections.get(path.partition(" ")[0], "baremetal")
    raw = OF_PLATFORM[platform]()
    if path.startswith("mirror"):
        raw["mirror"] = {"artifacts": "http://mirror:8080", "images": "http://mirror:5000"}
    if path.startswith("backup s3"):
        raw["backup"] = {"s3": S3}
    if path.startswith("recovery"):
        raw["recovery"] = {"generation": 1}
    if path == "hosts worker-1 role":
        raw["api"] = {"host": "api.example.com"}
    parse(with_value(raw, path, example), stack="dev")


def test_the_schema_knows_every_key() -> None:
    schema = next(json.loads(text) for path, text in reference.files().items() if path.suffix == ".json")
    keys = {str(field.alias) for field in ClusterConfig.model_fields.values()}
    config = schema["properties"]["config"]
    assert set(config["properties"]) == {f"kubepivot:{key}" for key in keys}
    assert config["required"] == ["kubepivot:platform", "kubepivot:hosts"]
    assert all(not section["additionalProperties"] for section in (config, *schema["$defs"].values()))
    assert set(schema["$defs"]["HostConfig"]["properties"]) == {
        str(field.alias) for field in HostConfig.model_fields.values()
    }
