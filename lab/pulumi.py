"""Pulumi for one stack: its environment, its stack on a local file backend, `up`, `preview` and `destroy`."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lab import pins, toolchain
from lab.cache import cache_dir, data_dir, locked, make_dir, write_file
from lab.engine import is_running
from lab.errors import LabError
from lab.processes import end_with_children
from lab.progress import Progress
from lab.provider_plugins import pulumi_home

UPDATE_SECONDS = 3600
COMMAND_SECONDS = 120
STOP_SECONDS = 60
SLOW_SECONDS = 3  # a resource that took this long is worth a line that stays

FOREIGN_PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"  # set for the user's other stacks, it would win over our file


def environment(stack: str, progress: Progress | None = None) -> dict[str, str]:
    """Return the variables that pulumi and kubectl need for this stack, by hand as well as here.

    Makes Pulumi, kubectl and the passphrase ready if they are not. Plugins are `ensure_plugins`' work.
    """
    check_stack(stack)
    make_dir(data_dir() / "state")
    own = [Path(sys.executable).parent]  # first: the language host that we build takes `python` from PATH
    own += [toolchain.ensure(name, progress).parent for name in ("pulumi", "kubectl")]
    path = os.environ.get("PATH", "").split(os.pathsep)
    # A tool that is found by PATH as it is needs no place of its own in it.
    new = [
        str(entry)
        for entry in own
        if entry == own[0] or str(entry) not in path or cache_dir() in entry.parents
    ]
    return {
        "PATH": os.pathsep.join(dict.fromkeys(new + path)),
        "PULUMI_HOME": str(pulumi_home()),
        # Beside each file Pulumi keeps one of metadata, which it writes in place: one that was cut short by a
        # kill makes the state unreadable ("failed to load checkpoint: EOF").
        "PULUMI_BACKEND_URL": f"file://{data_dir() / 'state'}?metadata=skip",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(_passphrase_file()),
        "PULUMI_STACK": stack,
        # Pulumi keeps the salt of the passphrase in the stack's file and in the state. The file is tracked
        # by git and the passphrase is this machine's own, so the state is where ours is.
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
        # The engine would look for a plugin of every provider SDK that is installed, at every `up`.
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_ERROR_OUTPUT_STRING": "true",
        "KUBECONFIG": str(kubeconfig_file(stack)),
    }


def full_environment(stack: str) -> dict[str, str]:
    """Return this process's environment with the stack's over it."""
    others = {name: value for name, value in os.environ.items() if name != FOREIGN_PASSPHRASE}
    return {**others, **environment(stack)}


def kubeconfig_file(stack: str) -> Path:
    """Return where `up` puts the stack's kubeconfig."""
    return data_dir() / f"{stack}.kubeconfig"


def check_stack(stack: str) -> None:
    """Raise LabError unless the checkout has a file for this stack."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", stack):
        raise LabError(f"{stack!r} is no stack name", "use letters, digits, '-', '_' and '.' only")
    if not _config_file(stack).is_file():
        raise LabError(
            f"the stack {stack} has no file {_config_file(stack).name}",
            f"write it (docs/configuration.md has every setting), or run without STACK={stack}",
        )


def exists(stack: str) -> bool:
    """Say whether the backend has the stack."""
    return (data_dir() / "state/.pulumi/stacks" / _project() / f"{stack}.json").is_file()


def cluster_name(stack: str) -> str:
    """Return the cluster's name in the stack's config; the stack's own name is its default."""
    return str(_settings(stack).get("name", stack))


def has_lab_hosts(stack: str) -> bool:
    """Say whether the stack's config wants hosts that are containers on this machine."""
    settings = _settings(stack)
    return settings.get("platform") == "lab" and settings.get("mode") != "render"


def copies_snapshots(stack: str) -> bool:
    """Say whether the stack's config wants snapshots of etcd in S3-compatible storage."""
    backup = _settings(stack).get("backup")
    return isinstance(backup, dict) and "s3" in backup


def release(stack: str) -> pins.Release:
    """Return the release that the stack's config names, or the newest. Raises LabError for an unknown one."""
    return pins.find_release(str(_settings(stack).get("kubernetesVersion", pins.NEWEST.kubernetes)))


def make_command(target: str, stack: str) -> str:
    """Return what a user types to run a target of the Makefile for this stack."""
    return f"make {target}" if stack == "dev" else f"make {target} STACK={stack}"


def up(stack: str, progress: Progress) -> None:
    """Bring the stack to what its config says and write its kubeconfig, if it has one."""
    _release_stale_lock(stack)
    if not exists(stack):
        _init(stack)
    _update(stack, "up", progress)
    outputs: dict[str, Any] = json.loads(_run(stack, "stack", "output", "--json", "--show-secrets"))
    if kubeconfig := outputs.get("kubeconfig"):
        write_file(kubeconfig_file(stack), kubeconfig.encode(), mode=0o600)


def destroy(stack: str, progress: Progress) -> None:
    """Destroy everything in the stack, then the stack. Its file stays.

    Raises LabError, with nothing deleted, if something is protected: Pulumi would find that out last.
    """
    _release_stale_lock(stack)
    if protected := _protected(stack):
        names = [urn.rpartition("::")[2] for urn in protected]
        keys = sorted(
            {
                _PROTECT.get(urn.split("::")[2].rpartition("$")[2], "kubepivot:pki.protect")
                for urn in protected
            }
        )
        raise LabError(
            f"the stack {stack} has protected resources: {', '.join(names)}; nothing is deleted",
            f"set {' and '.join(keys)} to false in {_config_file(stack).name}, "
            f"run `{make_command('up', stack)}`, then `{make_command('down', stack)}`",
        )
    _update(stack, "destroy", progress)
    _run(stack, "stack", "rm", "--yes", "--preserve-config")
    kubeconfig_file(stack).unlink(missing_ok=True)


def read_kubeconfig(stack: str) -> str:
    """Return the stack's kubeconfig as `up` wrote it. Raises LabError if there is none."""
    check_stack(stack)
    file = kubeconfig_file(stack)
    if not file.exists():
        raise LabError(
            f"the stack {stack} has no kubeconfig: its cluster is not up",
            f"run `{make_command('up', stack)}`",
        )
    return file.read_text()


def preview(stack: str) -> int:
    """Show on the terminal what `up` would do. Returns Pulumi's exit code."""
    _release_stale_lock(stack)
    if not exists(stack):
        _init(stack)
    command = ["pulumi", "preview", "--config-file", str(_config_copy(stack))]
    try:
        return subprocess.run(
            command, cwd=pins.CHECKOUT, env=full_environment(stack), timeout=UPDATE_SECONDS
        ).returncode
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"`pulumi preview` of the stack {stack} did not end within {UPDATE_SECONDS // 60} minutes",
            "see that its hosts and its cluster answer, then run again",
        ) from error


def _update(stack: str, verb: str, progress: Progress) -> None:
    command = ["pulumi", verb, "--yes", "--skip-preview", "--non-interactive", "--color", "never"]
    command += ["--suppress-outputs", "--suppress-progress", "--config-file", str(_config_copy(stack))]
    process = subprocess.Popen(
        command,
        cwd=pins.CHECKOUT,
        env=full_environment(stack),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    display = _Display(progress)
    watch = threading.Thread(target=_watch, args=(process,))
    with process:
        assert process.stdout is not None
        try:
            watch.start()
            display.follow(process.stdout)
        except KeyboardInterrupt:
            progress.note("stopping: Pulumi ends what is under way; Ctrl-C again kills it")
            process.send_signal(signal.SIGINT)
            try:
                display.follow(process.stdout)
            except KeyboardInterrupt:
                process.kill()
            raise
        finally:
            if watch.is_alive():
                watch.join()
    if process.returncode:
        display.show_rest()
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"code {process.returncode}"
        raise LabError(
            f"`pulumi {verb}` of the stack {stack} ended with {how}",
            "mend what is said above, then run again: it continues",
        )


def _watch(process: subprocess.Popen[str]) -> None:
    """Wait for Pulumi, within limits; then end what is left of it: killed, it leaves its language host."""
    for seconds, stop in ((UPDATE_SECONDS, process.terminate), (STOP_SECONDS, process.kill)):
        try:
            process.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            stop()
    process.wait()
    end_with_children(process.pid)


class _Display:
    """Pulumi's lines: resources as they come, then its summary and its diagnostics in full."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._closing = False
        self._done = 0
        self._last: deque[str] = deque(maxlen=20)

    def follow(self, lines: Iterable[str]) -> None:
        """Show lines until there are no more."""
        for line in lines:
            self._show(line.rstrip())

    def _show(self, line: str) -> None:
        if line in ("Diagnostics:", "Resources:"):
            self._closing = True
        if self._closing:
            if line.startswith(" "):
                self._progress.note(line)
            return
        self._last.append(line)
        found = _RESOURCE.fullmatch(line)
        if found is None:
            return
        what = f"{found['kind']} {found['name']} {found['state']}"
        if found["state"].endswith("ing"):
            self._progress.detail(f"{what} ({self._done} done)")
            return
        self._done += 1
        if found["minutes"] or float(found["seconds"]) >= SLOW_SECONDS:
            self._progress.note(f"{what} ({found['minutes'] or ''}{found['seconds']}s)")

    def show_rest(self) -> None:
        """Show the last lines, where Pulumi ended without its diagnostics."""
        if not self._closing:
            for line in self._last:
                self._progress.note(line)


# ` +  kubernetes:apps/v1:DaemonSet flannel creating (0s)`, and `created (12s)` when it is done
_RESOURCE = re.compile(
    r"\s*[-+~<>=]+\s+\S*?(?P<kind>\w+) (?P<name>\S+) (?P<state>\w+ing|\w+ed\b[^(]*?)\s*"
    r"\((?P<minutes>\d+m)?(?P<seconds>[\d.]+)s\)\s*"
)


def _init(stack: str) -> None:
    """Make the stack from a copy of the project, because `stack init` writes into the stack's file."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(pins.CHECKOUT / "Pulumi.yaml", copy)
        shutil.copy(_config_copy(stack), copy)
        _run(stack, "stack", "init", stack, "--no-select", directory=Path(copy))


def _config_copy(stack: str) -> Path:
    """Copy the stack's file to where Pulumi may write its salt into it, and return the copy.

    A salt that is in the file is left out unless a secret there needs it: it may be of another passphrase.
    """
    text = _config_file(stack).read_text()
    if not re.search(r"^\s+secure:", text, re.MULTILINE):
        text = re.sub(r"^encryptionsalt:.*\n?", "", text, flags=re.MULTILINE)
    copy = data_dir() / "config" / _config_file(stack).name
    write_file(copy, text.encode(), mode=0o600)
    return copy


_PROTECT = {"digitalocean:index/droplet:Droplet": "kubepivot:digitalOcean.protect"}


def _protected(stack: str) -> list[str]:
    """Return the URNs of what Pulumi would refuse to delete."""
    state = json.loads(_run(stack, "stack", "export"))
    resources = state["deployment"].get("resources") or []
    return [resource["urn"] for resource in resources if resource.get("protect")]


def _release_stale_lock(stack: str) -> None:
    """Release the lock of a Pulumi that was killed. Raises LabError where it is not known to be dead."""
    stale = False
    for lock in (data_dir() / "state/.pulumi/locks/organization" / _project() / stack).glob("*.json"):
        try:
            owner = json.loads(lock.read_bytes())
            pid, hostname = int(owner["pid"]), str(owner["hostname"])
        except FileNotFoundError:  # its run has ended meanwhile
            continue
        except (ValueError, KeyError, TypeError):
            stale = True  # Pulumi puts a lock in place in one piece: this one was torn by a power cut
            continue
        here = hostname == socket.gethostname()
        if not here or is_running(pid, "pulumi"):
            where = "" if here else f" on {hostname}"
            raise LabError(
                f"the stack {stack} is in use by Pulumi with pid {pid}{where}",
                "wait for it to end; if it is dead, run `pulumi cancel` after "
                f'`eval "$({make_command("-s env", stack)})"`',
            )
        stale = True
    if stale:
        _run(stack, "cancel", "--yes")


def _run(stack: str, *arguments: str, directory: Path = pins.CHECKOUT) -> str:
    """Run a Pulumi command that is no update, and return its output."""
    command = ["pulumi", *arguments, "--non-interactive"]
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=full_environment(stack),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"`{' '.join(command)}` did not end within {COMMAND_SECONDS} s", "run again"
        ) from error
    if done.returncode:
        raise LabError(f"`{' '.join(command)}` failed: {done.stderr.strip()}", "mend that, then run again")
    return done.stdout


def _passphrase_file() -> Path:
    """Return the file of the passphrase that encrypts the secrets in the state; made on first use."""
    file = data_dir() / "passphrase"
    with locked(file):
        if not file.exists():
            write_file(file, secrets.token_urlsafe(32).encode(), mode=0o600)
    return file


def _settings(stack: str) -> dict[str, Any]:
    """Return the program's settings in the stack's file, unchecked."""
    try:
        document = yaml.safe_load(_config_file(stack).read_text()) or {}
    except yaml.YAMLError as error:
        raise LabError(f"{_config_file(stack).name} is not YAML: {error}", "mend the file") from error
    config = (document.get("config") or {}) if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise LabError(
            f"{_config_file(stack).name} has no map of settings below `config`",
            "write it as docs/configuration.md shows",
        )
    prefix = f"{_project()}:"
    return {str(key).removeprefix(prefix): value for key, value in config.items()}


def _config_file(stack: str) -> Path:
    return pins.CHECKOUT / f"Pulumi.{stack}.yaml"


@cache
def _project() -> str:
    return str(yaml.safe_load((pins.CHECKOUT / "Pulumi.yaml").read_text())["name"])
