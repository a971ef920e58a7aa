"""A worker that leaves the config leaves the cluster: the script on a controller, and its place in a run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.assets.removal import removal_files
from components.assets.templates import script
from components.config import parse
from tests.cases import load, read
from tests.unit.recorder import ran
from tests.unit.sandbox import DIRECT, Sandbox

KUBECTL = f"""
{DIRECT}
shift 2
echo "$*" >>/var/asked
case "$*" in
  *dev/cordoned}}*) cat /var/ours 2>/dev/null ;;
  get*) cat /var/node ;;
esac
case $1 in
  annotate) case $4 in *=*) echo removal >/var/ours ;; *) rm -f /var/ours ;; esac ;;
  drain) [ ! -e /var/dies ] || {{ echo "worker-1 Unknown true" >/var/node; exit 1; }}
    [ ! -e /var/blocked ] || {{ echo "it would violate the pod's disruption budget"; exit 1; }} ;;
esac
"""
OURS = "annotate node worker-1 kubepivot.dev/cordoned=removal --overwrite"
UNCORDON = ["uncordon worker-1", "annotate node worker-1 kubepivot.dev/cordoned-"]
DELETE = "delete node worker-1 --ignore-not-found --wait=false"
DRAIN = "drain worker-1 --ignore-daemonsets --timeout=300s"


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    host = Sandbox(tmp_path)
    host.real("cat", "date", "rm", "sleep", "tail")
    host.fake("kubectl", KUBECTL)
    host.write("/var/asked")
    return host


def run(host: Sandbox, node: str, **upgrade: object) -> subprocess.CompletedProcess[str]:
    host.write("/var/node", node)
    cfg = parse(read("lab") | {"upgrade": upgrade}, stack="lab")
    files = removal_files(cfg, "worker-1", load("lab").texts)
    return host.run(script("remove"), {path: file.text for path, file in files.items()})


def asked(host: Sandbox) -> list[str]:
    return [line for line in host.path("/var/asked").read_text().splitlines() if not line.startswith("get")]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("worker-1 True ", [OURS, DRAIN, DELETE]),
        ("worker-1 True true", [DRAIN, DELETE]),
        ("worker-1 Unknown ", [DELETE]),
        ("", []),
    ],
    ids=["ready", "cordoned", "dead", "gone already"],
)
def test_its_pods_go_elsewhere_and_its_node_is_deleted(host: Sandbox, node: str, expected: list[str]) -> None:
    done = run(host, node)
    assert (done.returncode, done.stderr) == (0, "")
    assert asked(host) == expected


def test_one_that_was_dead_all_the_time_is_deleted(host: Sandbox) -> None:
    host.write("/var/dies")
    done = run(host, "worker-1 True ")
    assert (done.returncode, done.stderr) == (0, "")
    assert asked(host) == [OURS, DRAIN, DELETE]


@pytest.mark.parametrize(
    ("node", "ours", "expected"),
    [
        ("worker-1 True ", False, [OURS, DRAIN, *UNCORDON]),
        ("worker-1 True true", False, [DRAIN]),
        ("worker-1 True true", True, [DRAIN, *UNCORDON]),
    ],
    ids=["takes pods", "cordoned by an admin", "cordoned by a run that was cut short"],
)
def test_one_that_cannot_be_drained_stays(host: Sandbox, node: str, ours: bool, expected: list[str]) -> None:
    host.write("/var/blocked")
    if ours:
        host.write("/var/ours", "removal")
    done = run(host, node)
    assert done.returncode == 1
    assert asked(host) == expected
    assert "disruption budget" in done.stderr
    assert "put worker-1 back into kubepivot:hosts" in done.stderr


def test_what_the_config_allows_is_allowed(host: Sandbox) -> None:
    run(host, "worker-1 True ", drain={"seconds": 20, "deleteEmptyDir": True, "force": True})
    drain = "drain worker-1 --ignore-daemonsets --timeout=20s --delete-emptydir-data --force"
    assert drain in asked(host)


def test_it_comes_before_the_workers_steps_go_and_ends_with_the_cluster() -> None:
    run = ran("lab")
    step = run.only("lab-worker-1-removal")
    bootstrap = run.only("lab-bootstrap")
    assert {run.only("lab-worker-1-node").urn, bootstrap.urn} <= step.dependencies
    assert step.deleted_with == bootstrap.urn
    assert step.plain["connection"]["host"] == load("lab").machines["controller-1"].address
    assert not [each for each in run.resources if each.name == "lab-controller-1-removal"]
