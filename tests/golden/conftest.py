"""The asset directory of each golden case."""

from __future__ import annotations

import pytest
import yaml

from components.archive import File
from components.assets.render import render
from tests.cases import Case
from tests.golden.objects import Object


@pytest.fixture(scope="session")
def files(case: Case) -> dict[str, File]:
    """Every file by its path."""
    return render(case.cfg, case.machines, case.texts)


@pytest.fixture(scope="session")
def objects(files: dict[str, File]) -> dict[str, Object]:
    """Every Kubernetes object by its path; fails if a file has not exactly one."""
    return {
        path: _only(list(yaml.safe_load_all(file.text)))
        for path, file in files.items()
        if path.endswith(".yaml")
    }


def _only(documents: list[Object]) -> Object:
    (document,) = documents
    return document
