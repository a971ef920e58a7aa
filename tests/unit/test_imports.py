"""Data flows one way, and imports obey it."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.cases import CHECKOUT

# A module imports from lines above its own, or from its own package.
STAGES = """
    components.archive components.programs.checkpointer components.programs.reuseport components.programs
    components.config.releases components.config.k8s_names components.config.sshkeys components.config.base
    components.config.durations components.config.sizes components.config.addresses
    components.config.digitalocean
    components.tables
    components.assets.networks
    components.config.flags components.config.images components.config.s3
    components.config.etcd components.config.backup components.config.lab components.config.mirror
    components.config.upgrade components.config.host components.config.network
    components.config.recovery
    components.config.errors
    components.config.crosschecks
    components.config.cluster
    components.config
    components.config.reference components.hosts.machine
    components.assets.templates components.assets.document
    components.hosts.host components.lasting components.intent
    components.ssh
    components.hosts
    components.pki
    components.assets
    components.api
    components.reset components.upgrade_checks components.living_cluster
    components.upgrade_path components.node components.bootstrap
    components.etcd
    components.recovery components.snapshot
    components.labels
    components.rollout
    components.selfhosted
    components.handover
    components.removal
    components.drain
    components.upgrade
    components.backup
    components.cluster components.rendering
"""

# Plain functions and values. Config knows Pulumi's error class and reads the stack's config, no more.
PURE = (
    "components.config.addresses",
    "components.archive",
    "components.assets",
    "components.programs.checkpointer",
    "components.config.crosschecks",
    "components.config.digitalocean",
    "components.hosts.digitalocean.account",
    "components.config.durations",
    "components.config.etcd",
    "components.config.flags",
    "components.config.host",
    "components.config.images",
    "components.config.lab",
    "components.config.mirror",
    "components.config.network",
    "components.config.recovery",
    "components.tables",
    "components.config.k8s_names",
    "components.hosts.machine",
    "components.config.s3",
    "components.config.base",
    "components.config.sizes",
    "components.config.backup",
    "components.config.sshkeys",
    "components.programs.reuseport",
    "components.config.releases",
    "components.config.upgrade",
)
KNOWS_PULUMI = ("components.config.cluster", "components.config.errors")


def modules(package: str) -> list[Path]:
    """Every Python file of a package."""
    return sorted((CHECKOUT / package).rglob("*.py"))


COMPONENTS = modules("components")


def _name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


OURS = {_name(path) for path in COMPONENTS}


@cache
def _imports(path: Path) -> set[str]:
    """Modules that the file imports. From a package it may be modules alone, and of the package nothing."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module, names, level):
                assert level == 0, f"{path}: relative import"
                assert module is not None
                inner = {f"{module}.{alias.name}" for alias in names}
                found |= inner if inner <= OURS else {module, *inner}
    return found


def _stages() -> dict[str, int]:
    return {name: line for line, names in enumerate(STAGES.strip().splitlines()) for name in names.split()}


def _stage(module: str) -> tuple[str, int]:
    """The unit of STAGES that a module belongs to, with its line: the innermost."""
    units = [name for name in _stages() if module == name or module.startswith(f"{name}.")]
    if units:
        unit = max(units, key=len)
        return unit, _stages()[unit]
    raise AssertionError(f"{module} has no place in STAGES: put it after what it imports")


@pytest.mark.parametrize("path", COMPONENTS, ids=_name)
def test_imports_go_one_way(path: Path) -> None:
    module = _name(path)
    if module == "components":
        assert not _imports(path) - {"__future__", "__future__.annotations"}
        return
    unit, line = _stage(module)
    for imported in sorted(_imports(path)):
        if imported.startswith("components."):
            other, earlier = _stage(imported)
            assert other == unit or earlier < line, f"{module} imports {imported}"


def _drawn() -> dict[str, int]:
    """The line of each module or folder in the picture."""
    text = (CHECKOUT / "docs/architecture.md").read_text()
    picture = text.partition("```\n")[2].partition("```\n")[0]
    return {
        f"components.{name.replace('/', '.')}": line
        for line, words in enumerate(picture.splitlines())
        for name in re.findall(r"([a-z_/]+)(?:\.py|/)(?=[ :]|$)", words)
    }


@pytest.mark.parametrize("path", COMPONENTS, ids=_name)
def test_the_picture_of_imports_is_true(path: Path) -> None:
    def line(module: str) -> int:
        units = [name for name in drawn if module == name or module.startswith(f"{name}.")]
        assert units, f"{module} is not in the picture of docs/architecture.md"
        return drawn[max(units, key=len)]

    drawn = _drawn()
    if (module := _name(path)) != "components":
        for imported in _imports(path):
            if imported.startswith("components."):
                assert line(imported) <= line(module), f"{module} imports {imported}, which is drawn below it"


def test_every_stage_is_a_module() -> None:
    names = {_stage(name)[0] for name in map(_name, COMPONENTS) if name != "components"}
    assert names == set(_stages())


@pytest.mark.parametrize("path", COMPONENTS, ids=_name)
def test_the_core_does_not_know_pulumi(path: Path) -> None:
    module = _name(path)
    pulumi = {name for name in _imports(path) if name.split(".")[0].startswith("pulumi")}
    if module.startswith(PURE):
        assert pulumi == set()
    if module in KNOWS_PULUMI:
        assert pulumi == {"pulumi"}


def test_only_one_module_runs_remote_commands() -> None:
    """By import or by attribute: `pulumi_command.remote`, or `command.remote` of an alias."""
    users = {
        _name(path) for path in COMPONENTS if "pulumi_command" in path.read_text() and _uses_remote(path)
    }
    assert users == {"components.ssh"}


def _uses_remote(path: Path) -> bool:
    imports = _imports(path)
    nodes = ast.walk(ast.parse(path.read_text()))
    attribute = any(isinstance(node, ast.Attribute) and node.attr == "remote" for node in nodes)
    return "pulumi_command.remote" in imports or ("pulumi_command" in imports and attribute)


def test_no_stage_takes_an_address_from_the_config() -> None:
    """Platforms and `mode: render` do; the others ask the host, whose address may be an Output."""
    for path in COMPONENTS:
        if not _name(path).startswith(("components.config", "components.hosts")):
            assert not re.search(r"\bcfg\.(addresses|hosts\[)", path.read_text()), path


def test_no_stage_asks_for_the_platform() -> None:
    """A host says of itself what its platform makes of it."""
    for path in COMPONENTS:
        if not _name(path).startswith(("components.config", "components.hosts")):
            assert not re.search(r"\.platform\b", path.read_text()), path


def test_programs_need_nothing_but_python() -> None:
    for path in modules("components/programs"):
        for name in _imports(path):
            standard = name.split(".")[0] in sys.stdlib_module_names
            assert standard or name.startswith("components.programs"), path


def test_program_and_lab_do_not_know_each_other() -> None:
    for path in [*COMPONENTS, CHECKOUT / "__main__.py"]:
        assert not [name for name in _imports(path) if name.split(".")[0] == "lab"], path
    for path in modules("lab"):
        assert not [name for name in _imports(path) if name.split(".")[0] == "components"], path
