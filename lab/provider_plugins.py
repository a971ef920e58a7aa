"""The provider plugins in the lab's own PULUMI_HOME.

In this order: what is installed, the official download, a build from Go modules, a stand-in.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from lab import pins, toolchain
from lab.cache import cache_dir, data_dir, fresh_dir, locked
from lab.progress import Progress
from lab.toolchain.download import Sites
from lab.toolchain.tools import PLUGINS

INSTALL_SECONDS = 300
NOT_OFFICIAL = ".kubepivot-stand-in"  # marks what gives way to an official one

# Where `pulumi plugin install` looks for the plugins of these providers.
PLUGIN_SITES = ("https://api.github.com", "https://get.pulumi.com")

Source = Literal["installed", "cached", "download", "build", "stand-in"]


def pulumi_home() -> Path:
    """Return a PULUMI_HOME of our own, so that no stand-in ever serves the user's other projects.

    It is with the state and not in the cache: a stand-in runs the code of one checkout.
    """
    return data_dir() / "pulumi"


def ensure_plugins(progress: Progress, *, sites: Sites = toolchain.SITES) -> None:
    """Have every plugin of the program at exactly its SDK's version, which serves for other versions too.

    A state names the version that made it, which a refresh and a destroy ask for. Official ones stay.
    """
    for name in pins.PLUGINS:
        directory = ensure_plugin(name, progress, sites=sites)
        for other in directory.parent.glob(f"resource-{name}-v*"):
            if other != directory and (other / NOT_OFFICIAL).exists():
                with locked(other):
                    _link(directory / _program(name), other)


def ensure_plugin(name: str, progress: Progress, *, sites: Sites = toolchain.SITES) -> Path:
    """Return the directory of a plugin. An official one replaces any other as soon as there is one."""
    directory = _directory(pulumi_home(), name)
    with locked(directory):
        if _is_official(directory, name):
            return directory
        if official := _official(name, progress, sites):
            # The files one by one: Pulumi takes no link for a plugin's directory.
            with fresh_dir(directory) as partial:
                for file in official.iterdir():
                    (partial / file.name).symlink_to(file)
        elif name in PLUGINS:
            _link(toolchain.ensure(_program(name), progress, sites=sites), directory)
        else:
            _write_stand_in(name, directory)
    return directory


def plugin_source(name: str, *, sites: Sites = toolchain.SITES) -> Source:
    """Say where `ensure_plugin` would take the plugin from. Changes nothing."""
    for home in (pulumi_home(), _users_home()):
        if _is_official(_directory(home, name), name):
            return "installed"
    if _is_official(_directory(cache_dir(), name), name):
        return "cached"
    if _can_install(sites):
        return "download"
    return toolchain.source(PLUGINS[name], sites=sites) if name in PLUGINS else "stand-in"


def _users_home() -> Path:
    return Path.home() / ".pulumi"


def _directory(home: Path, name: str) -> Path:
    return home / "plugins" / f"resource-{name}-v{pins.PLUGINS[name]}"


def _is_official(directory: Path, name: str) -> bool:
    return (directory / _program(name)).exists() and not (directory / NOT_OFFICIAL).exists()


def _program(name: str) -> str:
    return f"pulumi-resource-{name}"


def _can_install(sites: Sites) -> bool:
    return not all(sites.unreachable(site) for site in PLUGIN_SITES)


def _official(name: str, progress: Progress, sites: Sites) -> Path | None:
    """Return the user's own plugin, else the one in the cache, installed there if it can be had."""
    users = _directory(_users_home(), name)
    if _is_official(users, name):
        return users
    directory = _directory(cache_dir(), name)
    with locked(directory):
        if _is_official(directory, name) or (_can_install(sites) and _install(name, directory, progress)):
            return directory
    return None


def _install(name: str, directory: Path, progress: Progress) -> bool:
    """Let Pulumi install the official plugin in a home apart, so that half a plugin is never used."""
    version = pins.PLUGINS[name]
    pulumi = str(toolchain.ensure("pulumi", progress))
    command = [pulumi, "plugin", "install", "resource", name, version, "--exact", "--non-interactive"]
    with (
        progress.step(f"install the plugin {name} {version}"),
        tempfile.TemporaryDirectory(dir=directory.parent, prefix=".install-") as home,
    ):
        environment = {**os.environ, "PULUMI_HOME": home, "PULUMI_SKIP_UPDATE_CHECK": "true"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS
            )
        except subprocess.TimeoutExpired:
            progress.note(f"not installed within {INSTALL_SECONDS} s")
            return False
        if done.returncode:
            progress.note(f"not installed: {done.stderr.strip()}")
            return False
        if directory.exists():  # without its program
            shutil.rmtree(directory)
        (Path(home) / "plugins" / directory.name).rename(directory)
    return True


def _link(program: Path, directory: Path) -> None:
    link = directory / program.name
    if link.is_symlink() and link.readlink() == program:
        return
    with fresh_dir(directory) as partial:
        (partial / program.name).symlink_to(program)
        (partial / NOT_OFFICIAL).touch()


def _write_stand_in(name: str, directory: Path) -> None:
    """Write a wrapper that runs lab.plugins.<name> of this checkout with this Python."""
    wrapper = (
        "#!/bin/sh\n"
        f"export PYTHONPATH={shlex.quote(str(pins.CHECKOUT))}\n"
        # -P, or the directory that the engine happens to start it in would come before
        f'exec {shlex.quote(sys.executable)} -P -m lab.plugins.{name} "$@"\n'
    )
    program = directory / _program(name)
    if program.exists() and program.read_text() == wrapper:
        return
    with fresh_dir(directory) as partial:
        (partial / _program(name)).write_text(wrapper)
        (partial / _program(name)).chmod(0o755)
        (partial / NOT_OFFICIAL).touch()
