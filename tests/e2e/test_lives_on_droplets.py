"""The lives, which `make test` has in the lab, on droplets: the same tests, the same stacks elsewhere."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# The stacks have the names and addresses of those in the lab, so no others run meanwhile.
pytestmark = pytest.mark.e2e

HERE = Path(__file__)
NOT_ON_DROPLETS = {"test_baremetal.py": "its machines are there before the stack is"}
LIVES = sorted(
    path.name
    for path in HERE.parent.glob("test_*.py")
    if path != HERE and "pytest.mark.life" in path.read_text() and path.name not in NOT_ON_DROPLETS
)
LIFE_SECONDS = 1200


@pytest.mark.parametrize("module", LIVES)
def test_a_life_is_lived_on_droplets(module: str) -> None:
    options = ["--platform=digitalocean", "-m", "e2e and life", "-s", str(HERE.with_name(module))]
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options],
        cwd=HERE.parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=LIFE_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it removes its hosts
        output, _ = process.communicate(timeout=120)
        pytest.fail(f"not within {LIFE_SECONDS} s:\n{output}")
    print(f"{module}: {time.monotonic() - begin:.0f} s")
    assert process.returncode == 0, output
