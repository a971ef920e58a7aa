"""What `pulumi preview` and an unchanged `pulumi up` cost as the number of hosts grows, in CPU and memory.

Bare-metal hosts on doubles of the plugins, so that no host and no API is needed, beside a program with as
many trivial resources. Ends with 1 if four times the hosts cost more than LIMIT times as much.

    .venv/bin/python -m bench.scale [--hosts 10 50 200]
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench import doubles, floor
from lab import pins
from lab.progress import Progress
from tests.cases import login_key
from tests.e2e.stacks import Checkout, Stack

HOSTS = (10, 50, 200)
LIMIT = 5.0
"""Of 4 times the hosts, in CPU seconds of a preview."""
SAMPLE_SECONDS = 0.1
DEADLINE_SECONDS = 1800
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
# Only to make a state: Pulumi writes all of it at every step.
ONE_WRITE = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a run of Pulumi with all its processes: engine, program and plugins."""

    cpu: float
    """Seconds."""
    memory: float
    """MiB at the highest, pages that processes share counted in each."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A program at one size."""

    resources: int
    preview: Cost
    up: Cost
    """Of one that has nothing to do."""


def config(hosts: int) -> dict[str, Any]:
    """The config of that many bare-metal hosts, one of them a controller."""
    key = login_key()
    return {
        "platform": "baremetal",
        "hosts": {
            f"host-{number:03}": {
                "role": "worker" if number else "controller",
                "address": f"10.100.{number // 200}.{number % 200 + 10}",
                "key": key,
                "hostKey": Ed25519PrivateKey.generate()
                .public_key()
                .public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
                .decode(),
            }
            for number in range(hosts)
        },
        "pki": {"protect": False},
    }


def run(stack: Stack, *arguments: str) -> Cost:
    """Runs Pulumi to its end; an error if it fails."""
    before = _cpu()
    with tempfile.TemporaryFile("w+") as output:
        process = stack.start(*arguments, output=output)
        memory, deadline = 0, time.monotonic() + DEADLINE_SECONDS
        while process.poll() is None:
            memory = max(memory, resident(process.pid))
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(SAMPLE_SECONDS)
        # What the engine ended and did not wait for is ours to wait for.
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(
                f"pulumi {' '.join(arguments)} ended with {process.returncode}:\n{output.read()}"
            )
    return Cost(cpu=_cpu() - before, memory=memory / 2**20)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident(session: int) -> int:
    """Bytes of memory that the processes of a session hold."""
    pages = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                pages += int(fields[21])
    return pages * resource.getpagesize()


def measure(stack: Stack) -> Measured:
    """A preview without a state, then an `up` after one that made everything."""
    preview = run(stack, "preview")
    settings, stack.environment = stack.environment, stack.environment | ONE_WRITE
    run(stack, "up", "--yes", "--skip-preview")
    stack.environment = settings
    up = run(stack, "up", "--yes", "--skip-preview", "--expect-no-changes")
    return Measured(resources=len(stack.state()), preview=preview, up=up)


def measure_hosts(checkout: Checkout, trivial: Checkout, hosts: int) -> tuple[Measured, Measured]:
    """The program at that number of hosts, and a trivial one with as many resources."""
    stack = Stack(checkout, f"hosts-{hosts}", config(hosts))
    ours = measure(_on_doubles(stack))
    # The stack is a resource, too, and so is a provider.
    least = Stack(trivial, f"floor-{hosts}", {"resources": ours.resources - 2})
    return ours, measure(_on_doubles(least))


def make(directory: Path) -> tuple[Checkout, Checkout]:
    """A checkout of the program, and one of the trivial program."""
    # A plugin that its engine ended without waiting for it becomes a child of this process.
    if ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    checkouts = []
    for name in ("kubepivot", "floor"):
        (directory / name).mkdir()
        checkouts.append(Checkout(directory / name))
    # Doubles have no API to ask, so that an `up` would wait for it in vain.
    with (checkouts[0].directory / "components/rollout.py").open("a") as file:
        file.write("\n\nasync def _await(*_: object) -> None:\n    return\n")
    shutil.copyfile(floor.__file__, checkouts[1].directory / "__main__.py")
    return checkouts[0], checkouts[1]


def _on_doubles(stack: Stack) -> Stack:
    command = "from lab import progress, provider_plugins as p; p.ensure_plugins(progress.Progress())"
    subprocess.run(
        [sys.executable, "-c", command],
        cwd=pins.CHECKOUT,
        env=stack.environment,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    doubles.install(Path(stack.environment["PULUMI_HOME"]))
    return stack


def table(measured: Mapping[int, tuple[Measured, Measured]]) -> str:
    """A line for each number of hosts and kind of run, with the floor and how many times that it is."""
    rows = [["hosts", "resources", "run", "CPU s", "floor s", "ratio", "MiB", "floor MiB", "ratio"]]
    for hosts, (ours, trivial) in sorted(measured.items()):
        runs = (("preview", ours.preview, trivial.preview), ("unchanged up", ours.up, trivial.up))
        for name, cost, least in runs:
            cells = [f"{cost.cpu:.1f}", f"{least.cpu:.1f}", f"{cost.cpu / least.cpu:.2f}"]
            cells += [f"{cost.memory:.0f}", f"{least.memory:.0f}", f"{cost.memory / least.memory:.2f}"]
            rows.append([str(hosts), str(ours.resources), name, *cells])
    return "\n".join("".join(f"{cell:>14}" for cell in row) for row in rows)


def growths(costs: Mapping[int, Measured]) -> dict[str, float]:
    """How many times as much each kind of run costs, by pairs of neighbouring sizes, scaled to 4 times the
    hosts: 4 would be proportional, 16 the square.
    """
    found = {}
    for few, many in itertools.pairwise(sorted(costs)):
        power = math.log(4) / math.log(many / few)
        found[f"preview, {few} to {many} hosts"] = (costs[many].preview.cpu / costs[few].preview.cpu) ** power
        found[f"unchanged up, {few} to {many} hosts"] = (costs[many].up.cpu / costs[few].up.cpu) ** power
    return found


def main(arguments: Sequence[str]) -> int:
    """Measures, prints, and says by the exit code whether it is within the limit."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=HOSTS, help="how many hosts (10 50 200)")
    sizes = sorted(set(parser.parse_args(arguments).hosts))
    if len(sizes) < 2 or not 1 <= sizes[0] <= sizes[-1] <= 250:
        parser.error("--hosts: two numbers at least, each from 1 to 250")
    progress = Progress()
    measured = {}
    with tempfile.TemporaryDirectory() as directory:
        checkouts = make(Path(directory))
        for hosts in sizes:
            with progress.step(f"{hosts} hosts"):
                measured[hosts] = measure_hosts(*checkouts, hosts)
    grown = growths({hosts: ours for hosts, (ours, _) in measured.items()})
    print(table(measured))
    for pair, times in grown.items():
        print(f"{pair}: {times:.1f} times as much for 4 times the hosts (limit {LIMIT:.0f})")
    return int(max(grown.values()) > LIMIT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
