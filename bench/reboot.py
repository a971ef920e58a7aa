"""How long a single controller takes from its start to the first good `/readyz`: kubepivot beside kubeadm.

Makes one cluster of each on this machine, reboots them in turn, prints a table, and removes what it made.
Ends with 1 if kubepivot takes more than LIMIT times as long.

    .venv/bin/python -m bench.reboot [--rounds 5]
"""

from __future__ import annotations

import argparse
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.kubeadm import KubeadmHost
from lab import lifecycle
from lab.engine import docker
from lab.progress import Progress
from tests.e2e.stacks import Checkout, Stack, eventually, lab_config, remove_hosts

CLUSTER = "bench"
SUBNET = 12
ROUNDS = 5
LIMIT = 1.3
READY_SECONDS = 120
SETTLED_SECONDS = 180
POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A host with a control plane. `settled` is a shell's condition on it: all of the control plane works."""

    name: str
    container: str
    address: str
    settled: str

    def boot(self) -> float:
        """Starts the host; the seconds from then to the first 200 of `/readyz`."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # two authorities, timing only
        begin = time.monotonic()
        docker("start", self.container)

        def ready() -> bool:
            try:
                url = f"https://{self.address}:6443/readyz"
                urllib.request.urlopen(url, context=context, timeout=1).close()
            except (urllib.error.URLError, OSError):
                return False
            return True

        eventually(f"/readyz of {self.name}", READY_SECONDS, ready, every=POLL_SECONDS)
        return time.monotonic() - begin

    def settle(self) -> None:
        """Waits until a reboot would find it as any other would."""
        command = ["docker", "exec", self.container, "sh", "-c", self.settled]
        eventually(
            f"{self.name} to settle",
            SETTLED_SECONDS,
            lambda: subprocess.run(command, capture_output=True, timeout=30).returncode == 0,
            every=1,
        )

    def shut_down(self) -> None:
        """In an orderly way, as `reboot` does."""
        docker("stop", "--time", "60", self.container)


WORKING = "curl -skf https://127.0.0.1:10257/healthz && curl -skf https://127.0.0.1:10259/healthz"
ALONE = '[ "$(ls -A /etc/kubernetes/manifests)" = etcd.yaml ]'


def make(checkout: Checkout, progress: Progress) -> tuple[Contender, Contender]:
    """A cluster of each kind, one controller and nothing else."""
    remove_hosts(CLUSTER)  # those of a run that was killed
    config = lab_config(SUBNET, workers=0)
    address = config["hosts"]["controller-1"]["address"]
    other = f"172.30.{SUBNET}.12"
    with progress.step("kubepivot"):
        Stack(checkout, CLUSTER, config).up()
    ours = Contender(
        name="kubepivot",
        container=f"{CLUSTER}-controller-1",
        address=address,
        settled=f"{ALONE} && {WORKING}",
    )
    ours.settle()
    with progress.step("kubeadm"):
        host = KubeadmHost.make(CLUSTER, other, like=ours.container, progress=progress)
    theirs = Contender(name="kubeadm", container=host.container, address=other, settled=WORKING)
    theirs.settle()
    return ours, theirs


def race(contenders: Sequence[Contender], rounds: int, progress: Progress) -> dict[str, list[float]]:
    """Seconds of each boot by name. Whoever is not measured is off; each has settled before it goes down."""
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        contender.shut_down()
    for number in range(rounds):
        for contender in contenders:
            with progress.step(f"{contender.name}, boot {number + 1} of {rounds}"):
                seconds[contender.name].append(contender.boot())
                if number + 1 < rounds:
                    contender.settle()
                contender.shut_down()
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Of the medians: one slow boot on a busy machine decides nothing."""
    return statistics.median(ours) / statistics.median(theirs)


def table(seconds: Mapping[str, Sequence[float]]) -> str:
    """A line for each boot and one for the medians, in seconds."""
    names = list(seconds)
    rows = [["boot", *names]]
    rows += [
        [str(number), *(f"{each:.2f}" for each in boots)]
        for number, boots in enumerate(zip(*seconds.values(), strict=True), 1)
    ]
    rows.append(["median", *(f"{statistics.median(seconds[name]):.2f}" for name in names)])
    return "\n".join("".join(f"{cell:>12}" for cell in row) for row in rows)


def main(arguments: Sequence[str]) -> int:
    """Measures, prints, and says by the exit code whether it is within the limit."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.reboot", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"boots of each ({ROUNDS})")
    rounds = parser.parse_args(arguments).rounds
    if rounds < 1:
        parser.error("--rounds: at least 1")
    progress = Progress()
    with tempfile.TemporaryDirectory() as directory, lifecycle.machine(progress):
        try:
            contenders = make(Checkout(Path(directory)), progress)
            seconds = race(contenders, rounds, progress)
        finally:
            remove_hosts(CLUSTER)
    ours, theirs = (seconds[contender.name] for contender in contenders)
    result = ratio(ours, theirs)
    print(table(seconds))
    print(f"kubepivot / kubeadm: {result:.2f} (limit {LIMIT})")
    return int(result > LIMIT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
