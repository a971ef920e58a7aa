"""A checkout of its own for the scenarios: they never touch a developer's stacks, state or passphrase."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import pins
from lab.engine import docker

MIRROR = {"artifacts": "http://172.30.0.2", "images": "http://172.30.0.2:5000"}


class Checkout:
    """The program in a directory of its own, with its own data directory and the machine's cache."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said = directory / "lab.log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")},
            "XDG_DATA_HOME": str(directory / "data"),
            # An engine that the developer's own `make up` started is not ours to stop.
            "XDG_STATE_HOME": str(directory / "state"),
        }
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=pins.CHECKOUT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in listed.stdout.splitlines():
            source = pins.CHECKOUT / name
            if source.is_file() and not name.startswith("tests/"):
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, directory / name)
        (directory / ".venv").symlink_to(pins.CHECKOUT / ".venv")

    def lab(self, verb: str, stack: str, *, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """`python -m lab VERB --stack STACK`, as make runs it."""
        return subprocess.run(
            [".venv/bin/python", "-m", "lab", verb, "--stack", stack],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start_lab(self, verb: str, stack: str) -> subprocess.Popen[bytes]:
        """The same, left running; what it says is in `said`."""
        with self.said.open("w") as log:
            return subprocess.Popen(
                [".venv/bin/python", "-m", "lab", verb, "--stack", stack],
                cwd=self.directory,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class Stack:
    """A stack of the checkout: its config, and Pulumi as a user types it after `eval "$(make -s env)"`.

    `translate` makes of every config the one that is written.
    """

    def __init__(
        self,
        checkout: Checkout,
        name: str,
        config: dict[str, Any],
        translate: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        self.checkout, self.name, self._translate = checkout, name, translate
        self.pace = 1.0
        """How many times as long as usual things take on this machine."""
        self.configure(config)
        settings = checkout.lab("env", name)
        assert settings.returncode == 0, settings.stderr
        self.environment = dict(checkout.environment)
        for line in settings.stdout.splitlines():
            if line.startswith("export "):
                key, value = shlex.split(line)[1].split("=", 1)
                self.environment[key] = value
        self.pulumi("stack", "init", name)

    def configure(self, config: dict[str, Any]) -> None:
        """Writes the stack's file; its salt, if it has one already, stays."""
        file = self.checkout.directory / f"Pulumi.{self.name}.yaml"
        kept = yaml.safe_load(file.read_text()) if file.exists() else {}
        kept["config"] = {f"kubepivot:{key}": value for key, value in self._translate(config).items()}
        file.write_text(yaml.safe_dump(kept))

    def start(self, *arguments: str, output: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        """Pulumi in a session of its own."""
        return subprocess.Popen(
            ["pulumi", *arguments, "--non-interactive", "--color", "never"],
            cwd=self.checkout.directory,
            env=self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def pulumi(self, *arguments: str, timeout: float = 600, fails: bool = False) -> str:
        """Runs Pulumi to its end and returns what it said; `fails` says how it has to end."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            pytest.fail(f"pulumi {' '.join(arguments)} took more than {timeout} s:\n{output}")
        assert (process.returncode != 0) == fails, output
        return output

    def up(self, *arguments: str, **options: Any) -> str:
        """`pulumi up` without asking."""
        output = self.pulumi("up", "--yes", "--skip-preview", *arguments, **options)
        if not options.get("fails"):
            kubeconfig = self.pulumi("stack", "output", "kubeconfig", "--show-secrets")
            Path(self.environment["KUBECONFIG"]).write_text(kubeconfig)
        return output

    def destroy(self) -> str:
        """`pulumi destroy` without asking."""
        return self.pulumi("destroy", "--yes", "--skip-preview", timeout=120)

    def second_up_changes_nothing(self) -> None:
        """A preview that looks at the cluster too finds nothing to do."""
        self.pulumi("preview", "--refresh", "--expect-no-changes")

    def state(self) -> dict[str, dict[str, Any]]:
        """Resources in the state by name, secrets in plain text."""
        process = self.start("stack", "export", "--show-secrets")
        export, _ = process.communicate(timeout=60)
        assert process.returncode == 0, export
        resources = json.loads(export)["deployment"].get("resources") or []
        return {resource["urn"].rsplit("::", 1)[-1]: resource for resource in resources}

    def run_kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl with the stack's kubeconfig, however it ends."""
        return subprocess.run(
            ["kubectl", "--request-timeout=20s", *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def kubectl(self, *arguments: str, fails: bool = False, stdin: str | None = None) -> str:
        """kubectl, which has to end as `fails` says."""
        done = self.run_kubectl(*arguments, stdin=stdin)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout if not fails else done.stderr

    def get(self, *arguments: str) -> Any:
        """An object or a list of them."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))


def eventually(what: str, seconds: float, condition: Callable[[], Any], *, every: float = 0.2) -> Any:
    """Polls until the condition is true, and returns what it was."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(every)
    return found


def lab_config(subnet: int, *, workers: int = 1) -> dict[str, Any]:
    """A lab of one controller at 172.30.<subnet>.11 and workers from .21 on."""
    hosts = {"controller-1": {"role": "controller", "address": f"172.30.{subnet}.11"}}
    for number in range(workers):
        hosts[f"worker-{number + 1}"] = {"role": "worker", "address": f"172.30.{subnet}.{21 + number}"}
    return {
        "platform": "lab",
        "hosts": hosts,
        "network": {"hosts": "172.30.0.0/16"},
        "mirror": MIRROR,
        "pki": {"protect": False},
    }


def remove_hosts(cluster: str) -> None:
    """Removes the containers of a cluster, whatever became of its stack."""
    label = f"label=kubepivot.cluster={cluster}"
    containers = docker("container", "ls", "--all", "--quiet", "--filter", label)
    if containers:
        docker("container", "rm", "--force", "--volumes", *containers.split())
