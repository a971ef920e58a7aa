"""What the tests share: their options, and Pulumi's check that no Output lands in a string."""

from __future__ import annotations

import gc
import os
import re
import shutil
from collections.abc import Callable, Mapping
from functools import cache

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from components.archive import File
from components.assets import templates
from components.assets.claims import claims_script
from components.assets.registration import keep_node_script
from tests import slices
from tests.cases import CASES, CHECKOUT, DIRECTORY, Case, load

# An Output in an f-string is an error then, not a sentence about Outputs in some file.
os.environ["PULUMI_ERROR_OUTPUT_STRING"] = "1"

GoldenCheck = Callable[[str, Mapping[str, File]], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what the program renders to tests/golden/cases"
    )
    parser.addoption(
        "--platform",
        choices=("lab", "digitalocean"),
        default="lab",
        help="where end-to-end tests have the clusters whose config says lab: there, or on droplets of an "
        "imitated DigitalOcean",
    )
    parser.addoption(
        "--slice",
        type=slices.parse,
        metavar="K/N",
        help="of the scenarios, those of the modules in the k-th of n parts of even length",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Whatever is imported stays: to look through it for garbage again and again takes a seventh of the time.
    gc.disable()
    # SDKs warn of their own classes when they are imported.
    config.addinivalue_line("filterwarnings", "ignore:This resource is deprecated:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:digitalocean.* deprecated in favor:DeprecationWarning")


@pytest.hookimpl(tryfirst=True)  # the parts are the same whatever else is asked for, such as `-k reboot`
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted: tuple[int, int] | None = config.getoption("--slice")
    if wanted is not None:
        chosen = slices.select(items, *wanted)
        config.hook.pytest_deselected(items=[*{*items} - {*chosen}])
        items[:] = chosen


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
    gc.set_threshold(100_000)  # runs of the program make as many objects in no time


def pytest_sessionfinish() -> None:
    # pytest looks through all that the tests made, five times over.
    gc.collect()
    gc.freeze()


class Scheduling(LoadScopeScheduling):
    """With several processes, a file's tests run in one, as they share what was made for the first of them.

    Those of all files that use the runs with a case's own config do, too.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid.partition("::")[0])


@cache
def _scope(path: str) -> str:
    imports = r"tests\.unit\.recorder import (?:\([^)]*|[^\n(]*)\bran\b"
    shares = re.search(imports, (CHECKOUT / path).read_text())
    return "the cases' runs" if shares else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


@pytest.fixture(scope="session", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Each golden case in turn."""
    return load(request.param)


@pytest.fixture
def golden(request: pytest.FixtureRequest, case: Case) -> GoldenCheck:
    """Compares files with those in the case's `expected/<part>`, byte for byte; with --update-golden,
    replaces these.

    LISTING there has mode, owner and path of each. One that is a template or a text of the PKI as it stands
    is only listed, with that one's name.
    """
    update: bool = request.config.getoption("--update-golden")
    sources = {templates.read(path): path for path in _template_paths()}
    sources |= {
        claims_script(): "scripts/claims.sh",
        keep_node_script(case.cfg.pod_network): "scripts/keep-node.sh",
    }
    sources |= {text: name for name, text in case.texts.items()}

    def check(part: str, files: Mapping[str, File]) -> None:
        directory = DIRECTORY / case.name / "expected" / part
        actual = {path: file.text for path, file in files.items() if file.text not in sources}
        actual["LISTING"] = "".join(
            f"{file.mode:04o} {file.owner} {path}"
            + (f" <- {sources[file.text]}\n" if file.text in sources else "\n")
            for path, file in sorted(files.items())
        )
        if update:
            shutil.rmtree(directory, ignore_errors=True)
            for path, text in actual.items():
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                (directory / path).write_text(text)
        expected = {
            str(path.relative_to(directory)): path.read_text()
            for path in directory.rglob("*")
            if path.is_file()
        }
        assert sorted(actual) == sorted(expected), f"other files than in {directory}: see --update-golden"
        for path, text in sorted(actual.items()):
            assert text == expected[path], f"{directory / path} differs: see --update-golden"

    return check


def _template_paths() -> list[str]:
    return [f"{kind}/{name}" for kind in ("files", "scripts") for name in templates.names(kind)]
