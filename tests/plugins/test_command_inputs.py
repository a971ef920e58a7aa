"""What the command stand-in says of inputs: what is wrong with them, and what has changed."""

from __future__ import annotations

import pytest

from lab.plugins.command import LOCAL, REMOTE
from lab.plugins.common import UNKNOWN
from tests.plugins.command_host import SECRET, check, plugin, run
from tests.plugins.replay import Json, ask


def test_check_fills_in_the_connection() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            answer = await check(stub, REMOTE, create="true", connection={"host": UNKNOWN, "password": "p"})
        assert answer["response"] == {
            "inputs": {
                "create": "true",
                "connection": {
                    "host": UNKNOWN,
                    "password": SECRET | {"value": "p"},
                    "port": 22,
                    "user": "root",
                    "dialErrorLimit": 10,
                    "perDialTimeout": 15,
                },
            }
        }

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "inputs", "property", "reason"),
    [
        (LOCAL, {"assetPaths": ["*"]}, "assetPaths", "'assetPaths' is not in the lab's stand-in"),
        (
            REMOTE,
            {"environment": {"A": "b"}, "connection": {"host": "h"}},
            "environment",
            "'environment' is not in the lab's stand-in",
        ),
        (LOCAL, {"create": ["ls"]}, "create", "'create' is not a string: Array"),
        (LOCAL, {"triggers": "once"}, "triggers", "'triggers' is not a list: String"),
        (LOCAL, {"logging": "all"}, "logging", "not one of stdout, stderr, stdoutAndStderr, none: all"),
        (REMOTE, {}, "connection", "Missing required property 'connection'"),
        (REMOTE, {"connection": {}}, "connection.host", "Missing required property 'host'"),
        (REMOTE, {"connection": {"host": "h", "proxy": {}}}, "connection.proxy", "'connection.proxy' is not"),
    ],
)
def test_check_refuses(kind: str, inputs: Json, property: str, reason: str) -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            answer = await check(stub, kind, **inputs)
        [failure] = answer["response"]["failures"]
        assert failure["property"] == property
        assert reason in failure["reason"]

    run(scenario)


def test_an_unknown_type_is_an_error() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            answer = await check(stub, "command:remote:CopyToRemote", remotePath="/x")
        assert "command:remote:CopyToRemote is not in the lab's stand-in" in answer["errors"][0]

    run(scenario)


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ({"create": "a"}, {"create": "a", "delete": "b"}, {"delete": {}}),
        ({"create": "a", "delete": "b"}, {"create": "a"}, {"delete": {"kind": "DELETE"}}),
        (
            {"environment": {"A": "1", "B.c": "2"}},
            {"environment": {"A": "2"}},
            {"environment.A": {"kind": "UPDATE"}, 'environment["B.c"]': {"kind": "DELETE"}},
        ),
        ({"triggers": ["a"]}, {"triggers": ["a", "b"]}, {"triggers[1]": {}}),
        ({"stdin": "s"}, {"stdin": SECRET | {"value": "s"}}, {"stdin": {"kind": "UPDATE"}}),
        ({"stdin": "s"}, {"stdin": UNKNOWN}, {"stdin": {"kind": "UPDATE"}}),
        ({"stdin": "s", "stdout": "o", "stderr": ""}, {"stdin": "s"}, {}),
    ],
)
def test_diff(old: Json, new: Json, changes: Json) -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            urn = f"urn:pulumi:dev::rec::{LOCAL}::it"
            answer = await ask(stub, "Diff", {"urn": urn, "id": "it", "olds": old, "news": new})
        assert answer["response"].get("detailedDiff", {}) == changes
        assert answer["response"]["changes"] == ("DIFF_SOME" if changes else "DIFF_NONE")

    run(scenario)
