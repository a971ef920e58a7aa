"""The targets of the Makefile, as a user types them: from `make up` to a machine without a trace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import lifecycle, mirror, pins
from lab.cache import cache_dir
from lab.engine import docker
from lab.progress import Progress
from tests.e2e.stacks import Checkout, lab_config, remove_hosts

pytestmark = pytest.mark.e2e

STACK = "typed"
UP_SECONDS = 100
UNCHANGED_SECONDS = 15
DOWN_SECONDS = 30

# What the checkout is given beside its tracked files.
UNTRACKED = ("data", "state", ".venv", "__pycache__")


class User:
    """Somebody at a shell in a checkout of their own."""

    def __init__(self, directory: Path) -> None:
        self.checkout = Checkout(directory)
        self.directory = directory
        self.environment = dict(self.checkout.environment)
        for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "STACK"):  # of a `make test` that runs us
            self.environment.pop(name, None)
        (directory / "tests").mkdir()
        shutil.copy(pins.CHECKOUT / "tests/requirements.txt", directory / "tests")
        for file in directory.rglob("requirements.txt"):
            os.utime(file, (0, 0))  # the linked .venv is taken as it is

    def configure(self, config: dict[str, Any]) -> None:
        """Writes the stack's file."""
        settings = {f"kubepivot:{key}": value for key, value in config.items()}
        (self.directory / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump({"config": settings}))

    def types(self, line: str, *, fails: bool = False, timeout: float = 300) -> tuple[str, str]:
        """Runs a line in bash, and returns what it printed and what it said on stderr."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout, done.stderr

    def tracked(self) -> dict[str, bytes]:
        """The checkout's own files."""
        names = {file: file.relative_to(self.directory) for file in self.directory.rglob("*")}
        return {
            str(name): file.read_bytes()
            for file, name in names.items()
            if file.is_file() and not set(name.parts) & set(UNTRACKED)
        }

    def processes(self) -> list[str]:
        """Commands of the processes that work with this user's files."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                if (
                    process.name.isdigit()
                    and os.fsencode(self.directory) in (process / "environ").read_bytes()
                ):
                    found.append(os.fsdecode((process / "cmdline").read_bytes()))
            except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                continue
            except PermissionError:  # another user's
                continue
        return found


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """The engine is made ready before and the mirror after: other scenarios need them."""
    lifecycle.prepare((lifecycle.ENGINE,), Progress())
    user = User(tmp_path_factory.mktemp("make"))
    config = lab_config(5)
    del config["pki"]  # its default protects the authorities
    user.configure(config)
    yield user
    remove_hosts(STACK)
    lifecycle.prepare(lifecycle.machine_steps(), Progress())


@pytest.fixture(scope="module")
def tracked(user: User) -> dict[str, bytes]:
    """The checkout's files before anything was run."""
    return user.tracked()


@pytest.fixture(scope="module")
def first_up(user: User, tracked: dict[str, bytes]) -> tuple[str, float]:
    """What the first `make up` printed and its seconds. Tools and files are in the cache."""
    begin = time.monotonic()
    printed, _ = user.types(f"make up STACK={STACK}")
    return printed, time.monotonic() - begin


@pytest.fixture(scope="module")
def up(first_up: tuple[str, float]) -> str:
    """What the first `make up` printed."""
    return first_up[0]


def containers() -> list[str]:
    return docker(
        "container", "ls", "--all", "--quiet", "--filter", f"label=kubepivot.cluster={STACK}"
    ).split()


def others() -> set[str]:
    """Hosts of other stacks on the lab's network."""
    attached = docker(
        *("container", "ls", "--all", "--filter", f"network={mirror.NETWORK}", "--format", "{{.Names}}")
    )
    return {name for name in attached.split() if not name.startswith(f"{STACK}-")} - {mirror.CONTAINER}


def test_up_prints_the_nodes_and_what_to_type_next(up: str) -> None:
    lines = up.splitlines()
    nodes = {line.split()[0]: line.split()[1] for line in lines if "172.30.5." in line}
    assert nodes == {"controller-1": "Ready", "worker-1": "Ready"}
    assert [line.split("  ")[0] for line in lines[-3:]] == [
        f'eval "$(make -s env STACK={STACK})"',
        "kubectl get pods -A",
        f"make down STACK={STACK}",
    ]


def test_up_is_quick(first_up: tuple[str, float]) -> None:
    assert first_up[1] < UP_SECONDS


def test_unchanged_up_is_quick(user: User, up: str) -> None:
    begin = time.monotonic()
    printed, said = user.types(f"make up STACK={STACK}")
    assert time.monotonic() - begin < UNCHANGED_SECONDS
    assert re.findall(r"^ +\W*\d+ (\w+)$", said, re.MULTILINE) == ["unchanged"], said
    assert "controller-1" in printed


def test_kubeconfig_works(user: User, up: str) -> None:
    printed, _ = user.types(
        f"""
        set -eu
        make -s kubeconfig STACK={STACK} >data/printed.kubeconfig
        eval "$(make -s env STACK={STACK})"
        unset KUBECONFIG
        kubectl --kubeconfig data/printed.kubeconfig get nodes --output name
        """
    )
    assert printed.split() == ["node/controller-1", "node/worker-1"]


def test_environment_is_all_that_a_shell_needs(user: User, up: str) -> None:
    printed, _ = user.types(
        f"""
        set -eu
        eval "$(make -s env STACK={STACK})"
        kubectl get nodes --output name
        pulumi stack output api_endpoint
        """
    )
    assert printed.split() == ["node/controller-1", "node/worker-1", "https://172.30.5.11:6443"]


def test_environment_makes_the_plugins_ready(user: User, up: str) -> None:
    printed, said = user.types(
        f"""
        set -eu
        export XDG_DATA_HOME=$PWD/data/new
        eval "$(make -s env STACK={STACK})"
        stat --format %a $XDG_DATA_HOME/kubepivot
        pulumi plugin ls
        """
    )
    assert printed.splitlines()[0] == "700"
    for name, version in pins.PLUGINS.items():
        assert [line for line in printed.splitlines() if line.split()[:3] == [name, "resource", version]], (
            said
        )


def test_preview_of_what_is_up_has_nothing_to_do(user: User, up: str) -> None:
    printed, _ = user.types(f"make preview STACK={STACK}")
    (summary,) = [line.split() for line in printed.split("Resources:")[1].splitlines() if line.strip()]
    assert summary[1] == "unchanged"


def test_doctor_finds_nothing_wrong_and_changes_nothing(user: User, up: str) -> None:
    def listing() -> set[Path]:
        return {*cache_dir().rglob("*"), *(user.directory / "data").rglob("*")}

    before = listing()
    printed, _ = user.types("make doctor")
    assert "nothing is in the way" in printed
    assert listing() == before


@pytest.mark.parametrize("target", ["up", "down", "preview", "env", "kubeconfig"])
def test_stack_that_has_no_file_is_an_error(user: User, target: str) -> None:
    _, said = user.types(f"make {target} STACK=nonsense", fails=True)
    assert "error: the stack nonsense has no file Pulumi.nonsense.yaml" in said
    assert "mend:  write it" in said
    assert "Traceback" not in said


def test_down_deletes_nothing_while_something_is_protected(user: User, up: str) -> None:
    before = containers()
    _, said = user.types(f"make down STACK={STACK}", fails=True)
    assert f"the stack {STACK} has protected resources: {STACK}-" in said
    assert f"set kubepivot:pki.protect to false in Pulumi.{STACK}.yaml, run `make up STACK={STACK}`" in said
    assert containers() == before
    printed, _ = user.types(f"make preview STACK={STACK}")
    assert "create" not in printed.split("Resources:")[1]


def test_down_leaves_nothing_of_the_stack(user: User, tracked: dict[str, bytes], up: str) -> None:
    user.configure(lab_config(5))
    configured = user.tracked()
    user.types(f"make up STACK={STACK}")
    mounts = "{{range .Mounts}}{{.Name}}\n{{end}}"
    volumes = set(docker("container", "inspect", "--format", mounts, *containers()).split())
    assert volumes
    before = others()

    begin = time.monotonic()
    user.types(f"make down STACK={STACK}")
    assert time.monotonic() - begin < DOWN_SECONDS

    assert containers() == []
    assert not volumes & set(docker("volume", "ls", "--quiet").split())
    assert user.processes() == []
    if not before | others():  # or the mirror is theirs too
        assert docker("container", "ls", "--all", "--quiet", "--filter", f"name=^{mirror.CONTAINER}$") == ""
        assert docker("network", "ls", "--quiet", "--filter", f"name=^{mirror.NETWORK}$") == ""
    data = user.directory / "data/kubepivot"
    assert not (data / f"{STACK}.kubeconfig").exists()
    assert not list(data.glob(f"state/.pulumi/stacks/kubepivot/{STACK}.json"))
    # Not one of its files was written to by all this.
    assert user.tracked() == configured
    own = f"Pulumi.{STACK}.yaml"
    assert {**configured, own: b""} == {**tracked, own: b""}


def test_down_of_what_is_down_is_no_error(user: User) -> None:
    user.types(f"make down STACK={STACK}", timeout=DOWN_SECONDS)
