"""What the program needs of the kubernetes provider's real plugin."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.stacks import Stack
from tests.plugins.api import Api, Json, free_port

pytestmark = pytest.mark.e2e

UP = ("up", "--yes", "--skip-preview")

ROLE = "node-role.kubernetes.io/control-plane"
SETTINGS = "/api/v1/namespaces/default/configmaps"
NODE = "/api/v1/nodes/n1"

Programs = Callable[[str, dict[str, Any]], Stack]


def config_map(**data: str) -> Json:
    metadata = {"name": "settings", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def config(kubeconfig: str, **manifests: Json) -> dict[str, Any]:
    return {"kubeconfig": kubeconfig, "manifests": manifests}


def test_what_a_killed_run_left_is_taken_over(api: Api, new_program: Programs) -> None:
    stack = new_program("objects", config(api.kubeconfig(), settings=config_map(a="1")))
    stack.pulumi(*UP)
    made = api.ask("GET", f"{SETTINGS}/settings")["metadata"]["uid"]
    stack.pulumi("state", "delete", "--yes", stack.state()["settings"]["urn"])
    stack.pulumi(*UP)
    stack.second_up_changes_nothing()
    assert api.ask("GET", f"{SETTINGS}/settings")["metadata"]["uid"] == made


def test_what_somebody_else_made_is_taken_over(api: Api, new_program: Programs) -> None:
    api.ask("POST", SETTINGS, config_map(a="0", b="0"))
    stack = new_program("objects", config(api.kubeconfig(), settings=config_map(a="1")))
    stack.pulumi(*UP)
    assert api.ask("GET", f"{SETTINGS}/settings")["data"]["a"] == "1"
    stack.second_up_changes_nothing()


def test_a_role_is_given_to_a_node_and_taken_back(api: Api, new_program: Programs) -> None:
    api.ask("POST", "/api/v1/nodes", {"metadata": {"name": "n1", "labels": {"own": "1"}}})
    role = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {ROLE: ""}}}
    stack = new_program("objects", config(api.kubeconfig(), role=role))
    stack.pulumi(*UP)
    assert api.ask("GET", NODE)["metadata"]["labels"] == {"own": "1", ROLE: ""}
    stack.second_up_changes_nothing()
    stack.configure(config(api.kubeconfig()))
    stack.pulumi(*UP)
    assert api.ask("GET", NODE)["metadata"]["labels"] == {"own": "1"}


def test_another_way_to_the_same_cluster_replaces_nothing(api: Api, new_program: Programs) -> None:
    stack = new_program("objects", config(api.kubeconfig(), settings=config_map(a="1")))
    stack.pulumi(*UP)
    made = api.ask("GET", f"{SETTINGS}/settings")["metadata"]["uid"]
    stack.configure(config(f"{api.kubeconfig()} ", settings=config_map(a="1")))
    stack.pulumi(*UP)
    assert api.ask("GET", f"{SETTINGS}/settings")["metadata"]["uid"] == made


@pytest.mark.parametrize("answers", [True, False], ids=["refused", "silent"])
def test_an_api_that_is_gone_fails_an_up_in_time_and_no_destroy(
    api: Api, new_program: Programs, answers: bool
) -> None:
    stack = new_program("objects", config(api.kubeconfig(), settings=config_map(a="1")))
    stack.pulumi(*UP)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = free_port() if answers else silent.getsockname()[1]
        settings = config_map(a="2")
        settings["metadata"]["name"] = "new"
        stack.configure(config(api.kubeconfig(port), settings=config_map(a="1"), new=settings))
        begin = time.monotonic()
        output = stack.pulumi(*UP, fails=True)
        print(f"{time.monotonic() - begin:.0f} s: {output}")
        assert "unreachable" in output
        stack.destroy()
    assert stack.state() == {}
