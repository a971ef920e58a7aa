"""What the documents say is there: examples parse, links lead somewhere, what they name exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import parse
from tests.cases import CHECKOUT, Raw, login_key, read

DOCUMENTS = (
    CHECKOUT / "README.md",
    CHECKOUT / "bench/README.md",
    *sorted((CHECKOUT / "docs").glob("*.md")),
)

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")


def _ids(document: Path) -> str:
    return str(document.relative_to(CHECKOUT))


def fenced(document: Path, language: str) -> list[str]:
    return [text for kind, text in _FENCED.findall(document.read_text()) if kind == language]


def prose(document: Path) -> str:
    """The text without its code blocks."""
    return _FENCED.sub("", document.read_text())


# -- examples ------------------------------------------------------------------------------------------------


def examples() -> Iterator[Any]:
    for document in DOCUMENTS:
        for number, text in enumerate(fenced(document, "yaml"), 1):
            yield pytest.param(text, id=f"{document.name}-{number}")


@pytest.mark.parametrize("text", examples())
def test_every_example_of_a_config_parses(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_text(login_key())
    document = yaml.safe_load(text)
    assert set(document) == {"config"}
    raw = {key.removeprefix("kubepivot:"): value for key, value in document["config"].items()}
    assert all(key.startswith("kubepivot:") for key in document["config"])
    config = parse(raw if "platform" in raw else completed(raw), stack="example")
    assert config.warnings == ()


def completed(part: Raw) -> Raw:
    """A part of a config in its place: the hosts of an example beside one controller."""
    controller = {
        "role": "controller",
        "address": "192.168.1.11",
        "key": login_key(),
        "hostKey": read("baremetal")["hosts"]["alpha"]["hostKey"],
    }
    return {
        "platform": "baremetal",
        **part,
        "hosts": {"controller-1": controller, **part.get("hosts", {})},
    }


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 130


def test_the_quick_start_is_a_whole_config_with_every_kind_of_login() -> None:
    (quick_start,) = fenced(CHECKOUT / "README.md", "yaml")
    config = yaml.safe_load(quick_start)["config"]
    assert config["kubepivot:platform"] == "baremetal"
    hosts = config["kubepivot:hosts"]
    assert {host["role"] for host in hosts.values()} == {"controller", "worker"}
    assert {"user", "port", "labels"} <= {key for host in hosts.values() for key in host}


# -- links ---------------------------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_internal_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", prose(document)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = document if not path else (document.parent / path).resolve()
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{path or document.name} has no heading {anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_named_files_of_the_checkout_exist(document: Path) -> None:
    named = re.findall(r"(?<![\w/.~-])((?:components|lab|tests|docs)/[\w./-]+)", document.read_text())
    missing = [name for name in named if not (CHECKOUT / name.rstrip(".")).exists()]
    assert missing == []


def test_every_document_is_in_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[\w.-]+)", (CHECKOUT / "README.md").read_text()))
    assert linked == {f"docs/{document.name}" for document in DOCUMENTS if document.parent.name == "docs"}


def test_every_decision_has_its_own_number_and_is_listed_by_subject() -> None:
    text = (CHECKOUT / "docs/decisions.md").read_text()
    contents, first, decisions = text.partition("\n## ")
    assert first
    titles = re.findall(r"^### (\d+\. .*)$", decisions, re.MULTILINE)
    assert sorted(int(title.split(".")[0]) for title in titles) == list(range(1, len(titles) + 1))
    assert re.findall(r"^- \[(.*)\]\(", contents, re.MULTILINE) == titles
    subjects = re.findall(r"^\*\*(.*)\*\*$", contents, re.MULTILINE)
    assert subjects == re.findall(r"^## (\D.*)$", text, re.MULTILINE)


def test_the_glossary_is_in_order() -> None:
    lines = (CHECKOUT / "docs/glossary.md").read_text().splitlines()
    words = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")][1:]
    assert len(words) > 20
    assert words == sorted(words, key=str.lower)


# -- commands ------------------------------------------------------------------------------------------------


def targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_named_make_targets_exist(document: Path) -> None:
    code = [*fenced(document, "sh"), *_CODE.findall(prose(document))]
    named = {
        target
        for text in code
        for target in re.findall(r"(?:^|\$\(|\s)make (?:-s )?([a-z0-9]+)", text, re.MULTILINE)
    }
    assert named <= targets()


def test_the_readme_shows_what_a_user_types_first() -> None:
    first = fenced(CHECKOUT / "README.md", "sh")[0]
    assert re.findall(r"^make (\w+)", first, re.MULTILINE) == ["up", "test"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_named_keys_of_the_config_exist(document: Path) -> None:
    known = set(re.findall(r"^\| `(\w+)` \|", (CHECKOUT / "docs/configuration.md").read_text(), re.MULTILINE))
    for name in re.findall(r"kubepivot:([a-z][A-Za-z]*)(?=[\s:.`])", prose(document)):
        # Groups and bindings of the cluster are named in the same way.
        assert name in known | {"admins"}, name


# -- messages ------------------------------------------------------------------------------------------------


def messages() -> list[str]:
    """The symptoms in the table: what stands in code there is a message of ours, or a part of it."""
    lines = (CHECKOUT / "docs/troubleshooting.md").read_text().splitlines()
    first_cells = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    return [code for cell in first_cells for code in _CODE.findall(cell)]


def test_messages_in_troubleshooting_are_those_that_the_program_prints() -> None:
    sources = "\n".join(
        path.read_text()
        for directory in ("components", "lab")
        for path in (CHECKOUT / directory).rglob("*")
        if path.suffix in (".py", ".sh", ".yaml")
    )
    # A message may be broken over two lines of source, or say its subject by a variable.
    said = re.sub(r'"\s*f?"', "", re.sub(r"\s+", " ", sources))
    parts = [part.strip() for message in messages() for part in message.split("…")]
    assert len(parts) > 20
    unknown = [part for part in parts if part not in said]
    assert unknown == []


def test_files_of_the_recipes_exist() -> None:
    """Those of `docs/extending.md`; one with a `<name>` is new."""
    lines = (CHECKOUT / "docs/extending.md").read_text().splitlines()
    cells = [line.split(" | ")[0] for line in lines if line.startswith("| `")]
    named = [path for cell in cells for path in _CODE.findall(cell) if "<" not in path]
    assert len(named) > 10
    assert [
        path for path in named if not any((CHECKOUT / at / path).exists() for at in ("", "components"))
    ] == []
