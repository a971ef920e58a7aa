"""A Pulumi that is imitated, in a checkout with one stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import pins, pulumi

PROJECT = "name: kubepivot\nruntime: python\n"
STACK = "# The user's comment\nconfig:\n  kubepivot:platform: lab   # as it was written\n"


class FakePulumi:
    """A `pulumi` of the pinned version that writes down its arguments and does what a test tells it to."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "pulumi.log"
        self._body = directory / "pulumi.body"
        self.does("")
        for name in ("pulumi", "pulumi-language-python", "pulumi-language-python-exec"):
            program = directory / name
            program.write_text(
                f'#!/bin/sh\n[ "$1" = version ] && echo v{pins.PULUMI} && exit\n'
                f'echo "$PWD $PULUMI_STACK $*" >> {self._log}\n. {self._body}\n'
            )
            program.chmod(0o755)
        program = directory / "kubectl"
        program.write_text(f"#!/bin/sh\necho v{pins.NEWEST.kubernetes}\n")
        program.chmod(0o755)

    def does(self, script: str) -> None:
        """Run `script` at every call. `$verb` is the first argument."""
        self._body.write_text(f"verb=$1\n{script}\n")

    @property
    def calls(self) -> list[str]:
        """The arguments of each call, without where it ran."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [line.split(" ", 2)[2] for line in lines]


def new_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePulumi:
    """A checkout with one stack on a machine of a new user."""
    for name in ("bin", "checkout", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkout/Pulumi.yaml").write_text(PROJECT)
    (tmp_path / "checkout/Pulumi.dev.yaml").write_text(STACK)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "PULUMI_HOME", pulumi.FOREIGN_PASSPHRASE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pins, "CHECKOUT", tmp_path / "checkout")
    return FakePulumi(tmp_path / "bin")
