"""The look at the network between the nodes, at the end of a hand-over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.assets.manifests import manifests
from components.assets.network_check import network_digest
from components.config import parse
from components.hosts.machine import configured_machines
from tests.cases import load
from tests.unit.sandbox import Sandbox
from tests.unit.temporary_control_plane import (
    arrange,
    hand_over,
    leave,
)

CHECKED = "/var/lib/kubepivot/network-checked"


@pytest.fixture
def controller(tmp_path: Path) -> Sandbox:
    return arrange(Sandbox(tmp_path))


def is_left(host: Sandbox) -> bool:
    """Whether pods of the network check are left."""
    return host.path("/var/check").exists()


def test_pods_that_reach_no_other_node_end_a_hand_over(controller: Sandbox) -> None:
    leave(controller, "all done")
    controller.write("/var/connected", "controller-1|True\nworker-1|False\n")
    said = "Readiness probe failed: no pod of another node answers"
    controller.write("/var/warnings", f"coredns-a: other\nnetwork-check-b: {said}\n")
    code, error = hand_over(controller)
    assert code == 1
    assert "These nodes' pods reach no Service on another node: worker-1\n" in error
    assert "    | network-check-b: Readiness probe failed: no pod of another node answers\n" in error
    assert "coredns" not in error
    assert "docs/operations.md" in error
    assert not controller.path(CHECKED).exists()
    assert not is_left(controller)
    controller.write("/var/connected", "controller-1|True\nworker-1|True\n")
    assert hand_over(controller) == (0, "")
    assert controller.path(CHECKED).exists()
    assert not is_left(controller)


def test_a_node_without_a_pod_of_the_check_is_waited_for(controller: Sandbox) -> None:
    leave(controller, "all done")
    controller.write("/var/connected", "controller-1|True\n")
    code, error = hand_over(controller)
    assert (code, "another node: worker-1" in error) == (1, True)


def test_the_network_is_looked_at_again_when_it_has_changed(controller: Sandbox) -> None:
    leave(controller, "all done")
    assert hand_over(controller) == (0, "")
    controller.write("/var/connected", "controller-1|True\nworker-1|False\n")
    assert hand_over(controller) == (0, "")
    controller.write(CHECKED, "another")
    assert hand_over(controller)[0] == 1


def test_what_has_gone_is_not_deleted_again(controller: Sandbox) -> None:
    """Nor does an API that is silent then fail a hand-over that is done."""
    leave(controller, "all done")
    assert hand_over(controller) == (0, "")
    assert controller.path("/var/deleted-check").read_text() == "\n"


def test_pods_of_the_check_go_whatever_ends_the_hand_over(controller: Sandbox) -> None:
    leave(controller, "apiserver gone")
    controller.write("/var/no-real-api")
    assert hand_over(controller)[0] == 1
    assert not is_left(controller)


def test_the_pods_ask_at_the_address_that_the_service_got(controller: Sandbox) -> None:
    leave(controller, "all done")
    controller.fake("rm", 'case "$*" in *check*) ;; *) "${none-/bin/rm}" "$@" ;; esac')
    assert hand_over(controller) == (0, "")
    service, pods = yaml.safe_load_all(
        controller.path("/var/check").read_text().replace("\napiV", "\n---\napiV")
    )
    assert service["spec"]["publishNotReadyAddresses"]
    assert "nc -w 2 10.96.0.99 7007" in str(pods["spec"]["template"]["spec"]["containers"])


def test_what_calls_for_another_look_at_the_network() -> None:
    case = load("lab")

    def digest(**config: Any) -> str:
        cfg = parse(case.raw | config, stack="lab")
        machines = configured_machines(cfg)
        return network_digest(cfg, machines, manifests(cfg, machines, lambda name: "value").values())

    hosts = case.raw["hosts"]
    assert digest() == digest(flags={"kube-apiserver": {"v": "2"}}, images={"coredns": "c:d"})
    worker = {"role": "worker", "address": "172.30.0.77"}
    others = [
        digest(hosts=hosts | {"worker-2": worker}),
        digest(hosts={**hosts, "worker-1": hosts["worker-1"] | {"address": "172.30.0.78"}}),
        digest(images={"flannel": "f:1"}),
        digest(images={"kube-proxy": "p:1"}),
    ]
    assert len({digest(), *others}) == 5
    assert digest(hosts={"controller-1": hosts["controller-1"]}) == ""
