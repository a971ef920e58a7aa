"""The scenarios in parts of even length, for `make scenarios SLICE=k/n`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from statistics import fmean

import pytest

# Seconds that a module's scenarios take with its set-up, on two cores. Measure anew (`--durations=0`) when
# scenarios come or go; one that is not here counts as the mean.
SECONDS = {
    "tests/e2e/test_backup.py": 250,
    "tests/e2e/test_bad_changes.py": 1000,
    "tests/e2e/test_baremetal.py": 300,
    "tests/e2e/test_carried_over.py": 270,
    "tests/e2e/test_checkpoints.py": 920,
    "tests/e2e/test_clock.py": 290,
    "tests/e2e/test_digitalocean.py": 520,
    "tests/e2e/test_digitalocean_balancer.py": 120,
    "tests/e2e/test_digitalocean_faults.py": 190,
    "tests/e2e/test_digitalocean_killed.py": 320,
    "tests/e2e/test_digitalocean_seconds.py": 120,
    "tests/e2e/test_droplets.py": 80,
    "tests/e2e/test_killed_in_cluster.py": 530,
    "tests/e2e/test_killed_on_hosts.py": 420,
    "tests/e2e/test_lives_on_droplets.py": 930,
    "tests/e2e/test_make.py": 130,
    "tests/e2e/test_measurements.py": 200,
    "tests/e2e/test_mirror.py": 20,
    "tests/e2e/test_power_cuts.py": 220,
    "tests/e2e/test_reboot.py": 310,
    "tests/e2e/test_recovery.py": 450,
    "tests/e2e/test_upgrades.py": 450,
    "tests/e2e/test_upgrades_minor.py": 410,
    "tests/e2e/test_upgrades_killed.py": 450,
    "tests/e2e/test_upgrades_refused.py": 360,
    "tests/e2e/test_upgrades_power_cuts.py": 1290,
    "tests/e2e/test_workers.py": 280,
    "tests/plugins/test_digitalocean_godo.py": 20,
    "tests/plugins/test_digitalocean_life.py": 250,
    "tests/plugins/test_kubernetes.py": 140,
    "tests/plugins/test_tls.py": 50,
}


def parse(text: str) -> tuple[int, int]:
    """Which part of how many, from "k/n"."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f'"{text}" is no k/n with k from 1 to n, such as 1/8')
    return int(number), int(count)


def share(modules: Iterable[str], number: int, count: int) -> list[str]:
    """Modules of one of the parts, longest first.

    The longest one that is left goes to the part that has least so far.
    """
    unknown = fmean(SECONDS.values())
    seconds = {name: SECONDS.get(name, unknown) for name in modules}
    parts: list[list[str]] = [[] for _ in range(count)]
    for name in sorted(seconds, key=lambda name: (-seconds[name], name)):
        min(parts, key=lambda part: sum(seconds[each] for each in part)).append(name)
    return parts[number - 1]


def select(items: Iterable[pytest.Item], number: int, count: int) -> list[pytest.Item]:
    """Of all that was collected, the scenarios of one of the parts, by module."""
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("e2e") and not item.get_closest_marker("life"):
            modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    return [item for name in share(modules, number, count) for item in modules[name]]
