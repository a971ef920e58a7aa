"""kubepivot beside kubeadm, of the same versions on hosts of the same image, one after the other in one run.

Makes clusters of each on this machine, changes and upgrades them under load, prints a table, and removes what
it made. Ends with 1 if kubepivot takes longer to make a cluster or to upgrade one.

    .venv/bin/python -m bench.sidebyside [--phases create flag worker patch minor] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from bench import load
from bench.availability import Login, wait_until_available
from bench.comparison import LIMIT, Figures, exceeded, ratio, table
from bench.kubeadm_cluster import KubeadmCluster, settings_of
from bench.kubepivot_cluster import KubepivotCluster
from lab import lifecycle, pins
from lab.progress import Progress
from tests.e2e.hosts import Box, KeyPair
from tests.e2e.stacks import Checkout, eventually, remove_hosts

CLUSTER = "beside"
SUBNET = 13
PHASES = ("create", "flag", "worker", "patch", "minor")
UPGRADES = ("patch", "minor")
VERSIONS = ("1.36.1", "1.36.3", "1.37.2")
"""Where upgrades begin, a patch of the same minor, and a version of the next."""
FLAG = ("event-ttl", "2h")
SSH_SECONDS = 60


class Cluster(Protocol):
    """A cluster of one controller and some workers, and how its tool does what is measured."""

    def create(self) -> None:
        """Makes it of machines that can be logged in to."""

    def login(self) -> Login:
        """Of an administrator."""

    def change_flag(self, flag: str, value: str) -> None:
        """Has kube-apiserver run with one flag more."""

    def upgrade(self, version: str) -> None:
        """Has everything run another version."""

    def add_worker(self, name: str, box: Box) -> None:
        """Makes a node of one more machine."""


@dataclass(frozen=True, kw_only=True)
class Life:
    """What one cluster of each tool goes through, from its creation on."""

    version: str
    workers: int
    phases: Mapping[str, str]
    """Each with the version that runs at its end."""

    @property
    def versions(self) -> list[str]:
        """All that it runs, in order."""
        return list(dict.fromkeys((self.version, *self.phases.values())))


def lives(phases: Sequence[str], versions: Sequence[str]) -> list[Life]:
    """The clusters that these phases take, with versions as in VERSIONS."""
    first, patch, newest = versions
    small = {phase: newest for phase in PHASES if phase in phases and phase not in UPGRADES}
    upgrades = {
        phase: version for phase, version in zip(UPGRADES, (patch, newest), strict=True) if phase in phases
    }
    begin = first if "patch" in upgrades else patch
    return [
        *([Life(version=newest, workers=1, phases=small)] if small else []),
        *([Life(version=begin, workers=2, phases=upgrades)] if upgrades else []),
    ]


def live(life: Life, make: Callable[[dict[str, Box]], Cluster], progress: Progress) -> dict[str, Figures]:
    """Has a cluster on new hosts go through its phases; the figures of each. The hosts stay."""
    key = KeyPair.generate()
    boxes = {"controller-1": _box("controller-1", 11, key)}
    boxes |= {
        f"worker-{number}": _box(f"worker-{number}", 20 + number, key)
        for number in range(1, life.workers + 1)
    }
    cluster = make(boxes)

    def time_until_available(work: Callable[[], None], version: str) -> float:
        worked = _seconds(work)
        login = cluster.login()  # read from the state or from a host: not part of it
        waited = _seconds(lambda: wait_until_available(login, nodes=boxes, version=version))
        progress.note(f"{worked:.1f} s, and {waited:.1f} s until all was available")
        return worked + waited

    figures = {"create": Figures(seconds=time_until_available(cluster.create, life.version))}
    running = life.version
    for phase, version in life.phases.items():
        if phase == "worker":
            boxes["worker-2"] = _box("worker-2", 22, key)
            seconds = time_until_available(lambda: cluster.add_worker("worker-2", boxes["worker-2"]), version)
            figures[phase] = Figures(seconds=seconds)
        elif phase != "create":
            login = cluster.login()
            load.begin(login)
            wait_until_available(login, nodes=boxes, version=running)
            with load.under_load(login, boxes["controller-1"].address, boxes["worker-1"]) as clients:
                if phase == "flag":
                    seconds = time_until_available(lambda: cluster.change_flag(*FLAG), version)
                else:
                    seconds = time_until_available(partial(cluster.upgrade, version), version)
            figures[phase] = Figures(seconds=seconds, clients=clients)
        running = version
    return {phase: figures[phase] for phase in life.phases}


def _seconds(work: Callable[[], None]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def _box(name: str, last: int, key: KeyPair) -> Box:
    box = Box.make(CLUSTER, name, f"172.30.{SUBNET}.{last}", key)
    eventually(f"SSH of {name}", SSH_SECONDS, lambda: _answers(box.address))
    return box


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(3) == b"SSH"
    except OSError:
        return False


def compare(life: Life, progress: Progress) -> dict[str, tuple[Figures, Figures]]:
    """The same life by both tools, ours first: kubeadm's hosts take over how its hosts are configured."""
    remove_hosts(CLUSTER)  # those of a run that was killed
    try:
        with tempfile.TemporaryDirectory() as directory, progress.step(f"kubepivot {life.version}"):
            checkout = Checkout(Path(directory))
            ours = live(
                life, lambda boxes: KubepivotCluster(checkout, CLUSTER, boxes, life.version), progress
            )
            settings = settings_of(f"{CLUSTER}-controller-1")
        remove_hosts(CLUSTER)
        with progress.step(f"kubeadm {life.version}"):
            theirs = live(
                life, lambda boxes: KubeadmCluster(boxes, life.versions, settings, progress), progress
            )
    finally:
        remove_hosts(CLUSTER)
    return {phase: (ours[phase], theirs[phase]) for phase in life.phases}


def main(arguments: Sequence[str]) -> int:
    """Measures, prints, and says by the exit code whether it is within the limits."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.sidebyside", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument(
        "--versions",
        nargs=3,
        choices=list(pins.RELEASES),
        default=VERSIONS,
        help="where upgrades begin, a patch of the same minor, and a version of the next",
    )
    parser.add_argument("--json", type=Path, help="a file for all that was counted")
    given = parser.parse_args(arguments)
    progress = Progress()
    results: dict[str, tuple[Figures, Figures]] = {}
    with lifecycle.machine(progress):
        for life in lives(given.phases, given.versions):
            for version in life.versions:
                lifecycle.prepare_release(version, progress)
            results |= compare(life, progress)
    if given.json:
        counted = {phase: [dataclasses.asdict(each) for each in both] for phase, both in results.items()}
        given.json.write_text(json.dumps(counted, indent=2))
    print(table(results))
    for phase in exceeded(results):
        print(f"{phase}: {ratio(results[phase]):.2f} times kubeadm's time (limit {LIMIT})")
    return int(bool(exceeded(results)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
