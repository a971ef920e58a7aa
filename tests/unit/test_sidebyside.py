"""kubepivot beside kubeadm: which clusters are made, what is counted as available, and what is printed."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import kubeadm, kubeadm_cluster, load, sidebyside
from bench.availability import Login, lacking
from bench.comparison import Figures, exceeded, table
from bench.sidebyside import PHASES, Life, lives
from lab import lifecycle, pins, toolchain
from lab.progress import Progress
from tests.e2e.hosts import Box, KeyPair
from tests.e2e.prober import Tally

VERSIONS = ("1.36.1", "1.36.3", "1.37.2")
SMALL = dict.fromkeys(("create", "flag", "worker"), "1.37.2")


def test_a_small_cluster_serves_all_that_needs_no_older_one() -> None:
    assert lives(PHASES, VERSIONS) == [
        Life(version="1.37.2", workers=1, phases=SMALL),
        Life(version="1.36.1", workers=2, phases={"patch": "1.36.3", "minor": "1.37.2"}),
    ]


@pytest.mark.parametrize(
    ("phases", "made"),
    [
        (["minor"], [("1.36.3", ["minor"])]),
        (["patch"], [("1.36.1", ["patch"])]),
        (["worker", "create"], [("1.37.2", ["create", "worker"])]),
    ],
)
def test_a_phase_can_be_measured_alone(phases: list[str], made: list[tuple[str, list[str]]]) -> None:
    assert [(life.version, list(life.phases)) for life in lives(phases, VERSIONS)] == made


def test_a_life_knows_all_versions_that_its_hosts_run() -> None:
    small, upgraded = lives(PHASES, VERSIONS)
    assert (small.versions, upgraded.versions) == (["1.37.2"], ["1.36.1", "1.36.3", "1.37.2"])


# -- a life --------------------------------------------------------------------------------------------------


class Noted:
    """A cluster that only notes what it is told."""

    def __init__(self, done: list[str], boxes: dict[str, Box]) -> None:
        self._done = done
        done.append(f"hosts {' '.join(boxes)}")

    def create(self) -> None:
        self._done.append("create")

    def login(self) -> Login:
        return Login(endpoint="https://api", pair={})

    def change_flag(self, flag: str, value: str) -> None:
        self._done.append(f"flag {flag}={value}")

    def upgrade(self, version: str) -> None:
        self._done.append(f"upgrade {version}")

    def add_worker(self, name: str, box: Box) -> None:
        self._done.append(f"add {name} at {box.address}")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done with a cluster in turn."""
    done: list[str] = []

    @contextlib.contextmanager
    def under_load(login: Login, address: str, worker: Box) -> Iterator[dict[str, Any]]:
        counts: dict[str, Any] = {}
        done.append(f"clients of {address}, on {worker.name}")
        yield counts
        done.append("clients end")
        counts |= {"endpoint": {}, "service": {}}

    def make(cluster: str, name: str, address: str, login: Any) -> Box:
        return Box(container=f"{cluster}-{name}", name=name, address=address, identity=login, login=login)

    monkeypatch.setattr(Box, "make", make)
    monkeypatch.setattr(sidebyside, "_answers", lambda address: True)
    monkeypatch.setattr(load, "begin", lambda login: done.append("pods"))
    monkeypatch.setattr(load, "under_load", under_load)
    monkeypatch.setattr(
        sidebyside,
        "wait_until_available",
        lambda login, *, nodes, version: done.append(f"available: {len(nodes)} of {version}"),
    )
    return done


def test_clients_ask_while_a_cluster_is_changed(done: list[str]) -> None:
    life = Life(version="1.36.3", workers=1, phases=dict.fromkeys(SMALL, "1.36.3"))
    figures = sidebyside.live(life, lambda boxes: Noted(done, boxes), Progress())
    assert done == [
        *("hosts controller-1 worker-1", "create", "available: 2 of 1.36.3"),
        *("pods", "available: 2 of 1.36.3", "clients of 172.30.13.11, on worker-1"),
        *("flag event-ttl=2h", "available: 2 of 1.36.3", "clients end"),
        *("add worker-2 at 172.30.13.22", "available: 3 of 1.36.3"),
    ]
    assert [(phase, sorted(each.clients)) for phase, each in figures.items()] == [
        *(("create", []), ("flag", ["endpoint", "service"]), ("worker", [])),
    ]


def test_an_upgrade_ends_when_all_nodes_have_the_newer_version(done: list[str]) -> None:
    life = Life(version="1.36.1", workers=2, phases={"patch": "1.36.3", "minor": "1.37.2"})
    figures = sidebyside.live(life, lambda boxes: Noted(done, boxes), Progress())
    assert done[1:3] == ["create", "available: 3 of 1.36.1"]
    assert [each for each in done[3:] if each.startswith(("upgrade", "available"))] == [
        *("available: 3 of 1.36.1", "upgrade 1.36.3", "available: 3 of 1.36.3"),
        *("available: 3 of 1.36.3", "upgrade 1.37.2", "available: 3 of 1.37.2"),
    ]
    assert list(figures) == ["patch", "minor"]


# -- what counts as available --------------------------------------------------------------------------------


def node(name: str, *, ready: str = "True", version: str = "v1.36.3", cordoned: bool = False) -> Any:
    return {
        "metadata": {"name": name},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "nodeInfo": {"kubeletVersion": version},
        },
    }


def daemon_set(**status: int) -> Any:
    good = {
        "observedGeneration": 2,
        **dict.fromkeys(("desiredNumberScheduled", "currentNumberScheduled"), 2),
        **dict.fromkeys(("updatedNumberScheduled", "numberReady"), 2),
    }
    return {"metadata": {"name": "flannel", "generation": 2}, "spec": {}, "status": good | status}


def deployment(**status: int) -> Any:
    good = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}
    return {
        "metadata": {"name": "coredns", "generation": 1},
        "spec": {"replicas": 2},
        "status": good | status,
    }


def test_all_is_available() -> None:
    assert lacking([node("a")], [daemon_set(), deployment()], wanted={"a"}, version="1.36.3") == []


@pytest.mark.parametrize(
    ("nodes", "workloads"),
    [
        ([], []),
        ([node("a", ready="Unknown")], []),
        ([node("a", version="v1.36.1")], []),
        ([node("a", cordoned=True)], []),
        ([node("a")], [daemon_set(observedGeneration=1)]),
        ([node("a")], [daemon_set(numberReady=1)]),
        ([node("a")], [daemon_set(updatedNumberScheduled=1)]),
        ([node("a")], [deployment(readyReplicas=1)]),
        ([node("a")], [deployment(replicas=3)]),
    ],
)
def test_something_is_lacking(nodes: list[Any], workloads: list[Any]) -> None:
    assert lacking(nodes, workloads, wanted={"a"}, version="1.36.3")


# -- kubeadm -------------------------------------------------------------------------------------------------


def test_a_flag_is_added_to_what_the_cluster_was_made_with() -> None:
    plain, changed = (
        [*yaml.safe_load_all(kubeadm.configuration("172.30.13.11", "1.36.1", flags))][1]
        for flags in ({}, {"event-ttl": "2h"})
    )
    assert plain["kubernetesVersion"] == "v1.36.1"
    assert plain["apiServer"]["extraArgs"] == []
    assert changed["apiServer"]["extraArgs"] == [{"name": "event-ttl", "value": "2h"}]


def test_kubeadm_runs_the_flannel_that_kubepivot_runs() -> None:
    objects = [*yaml.safe_load_all(kubeadm_cluster.flannel())]
    pod = objects[-1]["spec"]["template"]["spec"]
    images = {each["image"] for each in (*pod["initContainers"], *pod["containers"])}
    assert images == {
        f"ghcr.io/flannel-io/flannel:v{pins.FLANNEL}",
        f"ghcr.io/flannel-io/flannel-cni-plugin:{pins.FLANNEL_CNI_IMAGE}",
    }


def test_hosts_get_the_kubeadm_of_the_version_that_they_are_upgraded_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def docker(*words: str, **_: Any) -> str:
        done.append(" ".join(words))
        return ""

    def ensure(name: str, _: Progress, *, release: pins.Release, installed: bool) -> Path:
        assert not installed
        return Path(f"{name}-{release.kubernetes}")

    monkeypatch.setattr(kubeadm_cluster, "docker", docker)
    monkeypatch.setattr(toolchain, "ensure", ensure)
    key = KeyPair(private="", public="")
    box = Box(container="host", name="controller-1", address="172.30.13.11", identity=key, login=key)
    cluster = kubeadm_cluster.KubeadmCluster({box.name: box}, ["1.36.3", "1.37.2"], b"", Progress())
    cluster.upgrade("1.37.2")
    commands = [command for command in done if "kubelet.service" not in command]
    assert commands[:2] == [
        f"cp kubeadm-{version} host:/usr/local/bin/kubeadm" for version in ("1.36.3", "1.37.2")
    ]
    assert " kubeadm upgrade apply v1.37.2 --yes " in commands[2]


def test_a_kubeconfig_of_kubeadm_is_a_login() -> None:
    data = {name: base64.b64encode(name.encode()).decode() for name in ("ca", "cert", "key")}
    cluster = {"server": "https://172.30.13.11:6443", "certificate-authority-data": data["ca"]}
    user = {"client-certificate-data": data["cert"], "client-key-data": data["key"]}
    kubeconfig = yaml.safe_dump({"clusters": [{"cluster": cluster}], "users": [{"user": user}]})
    assert kubeadm_cluster.login(kubeconfig) == Login(
        endpoint="https://172.30.13.11:6443", pair={"ca": "ca", "cert": "cert", "key": "key"}
    )


# -- the result ----------------------------------------------------------------------------------------------


def counted(failed: int, silence: float) -> dict[str, Any]:
    return {
        "requests": 1000,
        "raw_failures": failed,
        "failed_after_retry": failed // 2,
        "seconds_without_answer": silence,
    }


def test_the_table_has_both_tools_and_their_ratio() -> None:
    ours = Figures(seconds=50, clients={"endpoint": counted(0, 0.12), "service": counted(2, 0.3)})
    theirs = Figures(seconds=40, clients={"endpoint": counted(400, 38), "service": counted(500, 41)})
    results = {"create": (Figures(seconds=30), Figures(seconds=40)), "patch": (ours, theirs)}
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table(results).splitlines()]
    assert [row[1:] for row in rows] == [
        ["kubepivot", "kubeadm", "ratio"],
        ["---"] * 3,
        ["30.0 s", "40.0 s", "0.75"],
        ["50.0 s", "40.0 s", "1.25"],
        ["0 of 1,000 / 2 of 1,000", "400 of 1,000 / 500 of 1,000", ""],
        ["0 / 1", "200 / 250", ""],
        ["0.1 s / 0.3 s", "38.0 s / 41.0 s", ""],
    ]
    assert exceeded(results) == ["patch"]


@pytest.mark.parametrize(("ours", "code"), [(40.0, 0), (40.5, 1)])
def test_slower_than_kubeadm_fails(
    ours: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(lifecycle, "machine", lambda progress: progress.step("machine"))
    monkeypatch.setattr(lifecycle, "prepare_release", lambda version, progress: None)
    both = (Figures(seconds=ours), Figures(seconds=40))
    monkeypatch.setattr(sidebyside, "compare", lambda life, progress: {"create": both})
    file = tmp_path / "figures.json"
    assert sidebyside.main(["--phases", "create", "--json", str(file)]) == code
    assert f"| {ours} s | 40.0 s |" in capsys.readouterr().out
    assert [each["seconds"] for each in json.loads(file.read_text())["create"]] == [ours, 40]


def test_clients_know_how_long_none_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 100.0)
    tally = Tally()
    for moment in (100.1, 107.6, 108.0):
        tally.answered(moment)
    assert tally.summary()["seconds_without_answer"] == 7.5
