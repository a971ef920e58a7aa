"""Debian packages on this machine. Knows how to install them, not what they are for."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

from lab import processes
from lab.cache import cache_dir, locked
from lab.errors import LabError

APT_SECONDS = 900
WAIT_SECONDS = 600  # for another program's apt: machines update themselves when they have just booted


def can_install() -> bool:
    """Whether this is Debian or Ubuntu and we are root."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        return False
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    return bool({"debian", "ubuntu"} & {release.get("ID", ""), *release.get("ID_LIKE", "").split()})


def install(*packages: str) -> None:
    """Install packages with apt. Raises LabError with the last lines that apt wrote."""
    with locked(cache_dir() / "apt"):  # `apt-get update` fails at once while another one runs
        _apt_get("update")
        _apt_get("install", "--yes", "--no-install-recommends", *packages)


def _apt_get(*arguments: str) -> None:
    options = (
        f"--option=DPkg::Lock::Timeout={WAIT_SECONDS}",
        "--option=Dpkg::Use-Pty=0",  # or dpkg has a session of its own, and does not end with it
    )
    command = ["apt-get", *options, *arguments]
    text = " ".join(command)
    try:
        done = processes.run(
            command,
            environment={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            seconds=APT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"`{text}` did not end within {APT_SECONDS // 60} minutes",
            "see that the Debian mirror answers",
        ) from error
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-10:])
        raise LabError(f"`{text}` failed:\n{last}", f"make `{text}` work, then run again")


def ensure_command(command: str, *packages: str) -> None:
    """Have `command` on PATH, from `packages` where it is missing."""
    if shutil.which(command):
        return
    if not can_install():
        raise LabError(
            f"{command} is not on PATH and this user can't install it",
            f"install it ({' '.join(packages)} on Debian and Ubuntu), or run as root",
        )
    install(*packages)
