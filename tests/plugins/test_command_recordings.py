"""The command stand-in answers as the official plugin did."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lab.plugins.command import LOCAL, REMOTE
from tests.plugins.command_host import WRONG_HOST_KEY, Host, host, plugin, run, silent_port
from tests.plugins.replay import Call, recording, replay

RUNS = [
    "c1-create",
    "c2-next",
    "c3-update",
    "c4-replace",
    "c5-fails",
    "c6-badhostkey",
    "c7-deadhost",
    "c8-refresh",
    "c9-back",
    "c10-destroy",
]
RECORDED_HOST = "172.30.0.11"
DEAD_HOST = "172.30.0.99"
RECORDED_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----redacted-----END OPENSSH PRIVATE KEY-----"


def adapted(value: Any, here: Host, silent: int, directory: Path) -> Any:
    """`value` of a recording with this machine's addresses, keys and paths."""
    if isinstance(value, dict):
        adapted_items = {key: adapted(item, here, silent, directory) for key, item in value.items()}
        if value.get("host") in (RECORDED_HOST, DEAD_HOST):
            wrong = value["hostKey"] == WRONG_HOST_KEY
            adapted_items |= {
                "host": "127.0.0.1",
                "port": here.port if value["host"] == RECORDED_HOST else silent,
                "hostKey": WRONG_HOST_KEY if wrong else here.host_key,
                "perDialTimeout": 3 if value["host"] == RECORDED_HOST else 0.05,
            }
        return adapted_items
    if isinstance(value, list):
        return [adapted(item, here, silent, directory) for item in value]
    if isinstance(value, str):
        value = value.replace(RECORDED_KEY, here.user_key).replace("/tmp/", f"{directory}/")
        return value.replace(f"{DEAD_HOST}:22", f"127.0.0.1:{silent}")
    return value


def unexpected(call: Call) -> list[tuple[str, Any, Any]]:
    """The differences that are not in the nature of things: ids are random, two streams race."""
    left = []
    for path, recorded, answered in call.differences():
        name = call.request.get("urn", "").split("::")[-1]
        if (
            call.method == "Create"
            and path == "response.id"
            and re.fullmatch(f"{name}[0-9a-f]{{8}}", answered)
        ):
            continue
        if path == "errors[0]" and sorted(recorded.splitlines()) == sorted(answered.splitlines()):
            continue
        left.append((path, recorded, answered))
    return left


def test_answers_are_the_recorded_ones(tmp_path: Path) -> None:
    async def scenario(silent: int) -> None:
        async with host() as here, plugin() as stub:
            compared = 0
            for name in RUNS:
                calls = [
                    call
                    for call in recording(f"command/{name}")
                    if "CopyToRemote" not in call["request"].get("urn", "") and call["method"] != "DiffConfig"
                ]
                for call in await replay(
                    stub, calls, rewrite=lambda value: adapted(value, here, silent, tmp_path)
                ):
                    assert unexpected(call) == [], (name, call.method, call.request)
                    compared += call.type in (LOCAL, REMOTE)
            assert compared > 150

    with silent_port() as silent:
        run(lambda: scenario(silent))
    assert (tmp_path / "rec-deleted").read_text() == "deleted\n"
    assert (tmp_path / "deleted").read_text() == "d\nd\n"
