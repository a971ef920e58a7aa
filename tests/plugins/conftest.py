"""The control plane that the kubernetes stand-in's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.plugins.controlplane import ControlPlane, free_port, write_admin


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    directory = tmp_path_factory.mktemp("plane")
    write_admin(directory)
    plane = ControlPlane(directory=directory, etcd_port=free_port(), port=free_port())
    try:
        plane.start()
        plane.api("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
        yield plane
    finally:
        for name in list(plane.processes):
            plane.stop(name)
