"""Runs a host's scripts on this machine, as any user: absolute paths lead below a directory, and commands
that would look at or change the machine are made up.

    sandbox.write("/proc/swaps", "Filename\\n")
    sandbox.fake("id", "echo 0")
    done = sandbox.run(script("preflight"), {"env": "NAME=node\\n"})
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SHELL = shutil.which("sh") or "/bin/sh"
_SHEBANG = f"#!{_SHELL}\n"
_ABSOLUTE = re.compile(r"""(?<![\w./}$-])/(etc|lib|opt|proc|run|sys|usr|var)(?=[/\s"')]|$)""", re.MULTILINE)
_BROUGHT = re.compile(r"(?<![\w./}-])root/(?=(?:etc|lib|opt|usr|var)/)")
_SECONDS = 20
_IDLE = {"modprobe", "sleep", "sync"}
"""No script looks these up with `command -v`: a no-op is made a shell function, which takes no process."""

DIRECT = """
[ "${NO_PROXY:-}${no_proxy:-}" = '**' ] || { echo "this goes by a proxy if there is one" >&2; exit 1; }
"""
"""What a made-up command begins with that asks the API."""


def login_shells() -> list[str]:
    """The shells of this machine that somebody may log in to; sh and what else there is."""
    names = ("sh", "bash", "csh", "fish", "ksh", "mksh", "tcsh", "zsh")
    return [found for name in names if (found := shutil.which(name))]


class Sandbox:
    """A directory that stands for a host's root, and the only commands that its scripts find."""

    def __init__(self, root: Path) -> None:
        self.root = root / "host"
        self._bin = root / "bin"
        self._work = root / "work"
        for directory in (self.root, self._bin, self._work):
            directory.mkdir()

    def copied(self, root: Path) -> Sandbox:
        """Another host with all that this one has; what names a path of it names the other's."""
        copy = Sandbox(root)
        ours, theirs = str(self.root.parent), str(root)
        for path in sorted([*self.root.rglob("*"), *self._bin.iterdir()]):
            # A file that waits for its turn lies below a copy of its whole path.
            other = root / str(path.relative_to(ours)).replace(ours, theirs)
            if path.is_symlink():
                other.symlink_to(str(path.readlink()).replace(ours, theirs))
                continue
            if path.is_dir():
                other.mkdir(parents=True)
            else:
                other.write_bytes(path.read_bytes().replace(ours.encode(), theirs.encode()))
            shutil.copymode(path, other)
        return copy

    def path(self, path: str) -> Path:
        """Where an absolute path of the host is."""
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str = "") -> None:
        """Writes a file of the host."""
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(text)

    def real(self, *commands: str) -> None:
        """Lets scripts find commands of this machine."""
        for command in commands:
            found = shutil.which(command)
            assert found is not None, f"the tests need the command {command}"
            (self._bin / command).unlink(missing_ok=True)
            (self._bin / command).symlink_to(found)

    def fake(self, command: str, body: str = "") -> None:
        """Lets scripts find a command that runs the shell text instead."""
        (self._bin / command).unlink(missing_ok=True)
        (self._bin / command).write_text(f"{_SHEBANG}{self.moved(body)}\n")
        (self._bin / command).chmod(0o755)

    def without(self, command: str) -> None:
        """Takes a command away."""
        (self._bin / command).unlink()

    def _does_nothing(self, command: str) -> bool:
        program = self._bin / command
        return program.exists() and not program.is_symlink() and program.read_text() == f"{_SHEBANG}\n"

    def moved(self, text: str) -> str:
        """The text with absolute paths below the root, and those of files that `place` brings there."""
        absolute = _ABSOLUTE.sub(lambda match: f"{self.root}/{match[1]}", text)
        return _BROUGHT.sub(f"root{self.root}/", absolute)

    def run(
        self, text: str, files: Mapping[str, str] | None = None, *, stdin: str = "", here: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script as a step does, with the files in its working directory."""
        for name, content in (files or {}).items():
            path = self._work / self.moved(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.moved(content))
        idle = "".join(f"{name}() {{ :; }}; " for name in _IDLE if self._does_nothing(name))
        return subprocess.run(
            [_SHELL, "-euc", idle + self.moved(text)],
            cwd=here or self._work,
            env={"PATH": str(self._bin)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
