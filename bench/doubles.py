"""Doubles of the plugins for command and kubernetes that reach nothing: every step succeeds at once.

python -m bench.doubles command|kubernetes
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from pulumi.provider.experimental.provider import (
    CheckRequest,
    CheckResponse,
    CreateRequest,
    CreateResponse,
    DeleteRequest,
    DiffRequest,
    DiffResponse,
    GetSchemaRequest,
    GetSchemaResponse,
    Provider,
    UpdateRequest,
    UpdateResponse,
)

from components.ssh import DONE
from lab import pins
from lab.plugins.command import CommandProvider, Output
from lab.plugins.common import EngineLog, serve

__all__ = ["install"]


class CommandDouble(CommandProvider):
    """The stand-in, checks and diffs included, but for the running: each host says who it is."""

    async def _run(self, request: Any, *_: Any) -> Output:
        async def unheard(stream: str, line: str) -> None:
            pass

        output = Output(log=unheard)
        name = request.urn.rpartition("::")[2]
        output.stdout.extend(f"machine-id={name}\nhostname={name}\n{DONE}\n".encode())
        return output


class KubernetesDouble(Provider):
    """An API that takes every object as it is."""

    def __init__(self, log: EngineLog) -> None:
        self._log = log

    async def get_schema(self, request: GetSchemaRequest) -> GetSchemaResponse:
        """The package's name and version: the types are in the SDK."""
        return GetSchemaResponse(f'{{"name": "kubernetes", "version": "{pins.PLUGINS["kubernetes"]}"}}')

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Every object is right."""
        return CheckResponse(inputs=request.new_inputs)

    async def diff(self, request: DiffRequest) -> DiffResponse:
        """Any change is an update."""
        return DiffResponse(changes=dict(request.old_state) != dict(request.new_inputs))

    async def create(self, request: CreateRequest) -> CreateResponse:
        """The object is in the state and nowhere else."""
        return CreateResponse(resource_id=request.name, properties=request.properties)

    async def update(self, request: UpdateRequest) -> UpdateResponse:
        """As above."""
        return UpdateResponse(request.news)

    async def delete(self, request: DeleteRequest) -> None:
        """As above."""


DOUBLES = {"command": CommandDouble, "kubernetes": KubernetesDouble}


def install(pulumi_home: Path) -> None:
    """Puts the doubles in the place of the plugins of that PULUMI_HOME."""
    for name in DOUBLES:
        program = pulumi_home / f"plugins/resource-{name}-v{pins.PLUGINS[name]}/pulumi-resource-{name}"
        program.unlink()  # a link into the cache
        program.write_text(
            f"#!/bin/sh\nexport PYTHONPATH={shlex.quote(str(pins.CHECKOUT))}\n"
            f'exec {shlex.quote(sys.executable)} -P -m bench.doubles {name} "$@"\n'
        )
        program.chmod(0o755)


if __name__ == "__main__":
    name = sys.argv.pop(1)
    serve(DOUBLES[name], pins.PLUGINS[name])
