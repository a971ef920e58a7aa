"""What the tests on the provider plugins share: an API, and small Pulumi programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stacks import Checkout, Stack
from tests.plugins.api import Api, free_port, write_admin

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """An API of its own, which the test may stop."""
    directory = tmp_path / "api"
    directory.mkdir()
    write_admin(directory)
    api = Api(directory=directory, etcd_port=free_port(), port=free_port())
    try:
        api.start()
        yield api
    finally:
        api.stop()


@pytest.fixture
def new_program(tmp_path: Path) -> Callable[[str, dict[str, Any]], Stack]:
    """Makes a stack whose program is one of tests/plugins/programs, with what the lab gives it."""

    def new(name: str, config: dict[str, Any]) -> Stack:
        (tmp_path / "checkout").mkdir()
        checkout = Checkout(tmp_path / "checkout")
        shutil.copyfile(PROGRAMS / f"{name}.py", checkout.directory / "__main__.py")
        return Stack(checkout, name, config)

    return new
