"""The scripts that run on hosts, run here in a sandbox: what they refuse, and that they converge."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from components.assets import templates
from components.assets.bootstrap import BOOTSTRAP_SECONDS
from components.assets.etcd import ETCD_SECONDS
from components.assets.handover import HANDOVER_SECONDS
from components.assets.templates import script
from components.assets.upgrade import UPGRADE_SECONDS
from tests.unit.recorder import LOCAL, ran
from tests.unit.sandbox import Sandbox

SCRIPTS = [name.removesuffix(".sh") for name in templates.names("scripts")]
LIB = {"lib.sh": script("lib")}

Change = Callable[[Sandbox], None]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_parses(name: str) -> None:
    done = subprocess.run(["sh", "-n"], input=script(name), capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("names", "seconds"),
    [
        (["bootstrap"], BOOTSTRAP_SECONDS),
        (["etcd"], ETCD_SECONDS),
        (["handover", "network-check"], HANDOVER_SECONDS),
        (["upgrade"], UPGRADE_SECONDS),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_step_outlasts_the_deadlines_of_its_scripts(names: list[str], seconds: int) -> None:
    """Else what they say when one of them passes would be lost."""
    deadlines = [re.findall(r"(?:wait_for|timeout) (\d+) ", script(name)) for name in names]
    assert all(deadlines)
    assert sum(int(each) for found in deadlines for each in found) < seconds


@pytest.mark.parametrize("case", ["lab", "baremetal"])
def test_what_runs_on_this_machine_parses(case: str) -> None:
    for command in ran(case).of(LOCAL):
        for text in (command.inputs["create"], command.inputs.get("delete", "")):
            done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, timeout=10)
            assert (done.returncode, done.stderr) == (0, ""), command.name


# -- lib.sh --------------------------------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A step's working directory; `target` below it stands for a directory of the host."""
    (tmp_path / "work" / f"root{tmp_path}/target").mkdir(parents=True)
    (tmp_path / "work" / "lib.sh").write_text(LIB["lib.sh"])
    return tmp_path / "work"


def _lib(work: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-euc", f". ./lib.sh\n{text}"], cwd=work, capture_output=True, text=True, timeout=20
    )


def _bring(work: Path, name: str, text: str, mode: int = 0o644) -> Path:
    """Puts a file below root/; the path is where it has to go."""
    target = work.parent / "target" / name
    source = work / f"root{target}"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text)
    source.chmod(mode)
    return target


# What a step of its own would do: use what is pending, then forget it.
PLACE = "pending=./pending; place; cat pending 2>/dev/null || true; rm -f pending"


def test_place_names_what_it_changed_and_nothing_else(work: Path) -> None:
    one, other = _bring(work, "one", "1"), _bring(work, "deep/down/other", "2", 0o600)
    assert _lib(work, PLACE).stdout.split() == sorted([str(one), str(other)])
    assert (one.read_text(), other.read_text()) == ("1", "2")
    assert _lib(work, PLACE).stdout.split() == []
    _bring(work, "one", "new")
    assert _lib(work, PLACE).stdout.split() == [str(one)]
    assert one.read_text() == "new"


def test_place_keeps_mode_and_owner_and_mends_them(work: Path) -> None:
    path = _bring(work, "secret", "1", 0o600)
    _lib(work, "place")
    assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o600, os.getuid())
    path.chmod(0o644)
    assert _lib(work, PLACE).stdout.split() == [str(path)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_place_swaps_a_file_at_once_and_leaves_no_other(work: Path) -> None:
    path = _bring(work, "file", "old")
    _lib(work, "place")
    with path.open() as reader:
        _bring(work, "file", "new")
        _lib(work, "place")
        assert reader.read() == "old"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


SAID = 'sync() { echo "sync $*"; }; mv() { echo "mv $2 $3"; command mv "$@"; }'
"""Says what reaches the disk and gets its name, in order."""


def test_what_is_placed_is_on_the_disk_before_it_gets_its_name(work: Path) -> None:
    """Everything with one command: the disk is quicker with many files than with one after another."""
    one, other, third = (_bring(work, name, "1") for name in ("deep/one", "other", "third"))
    news = {each: each.with_name(f".{each.name}.new") for each in (one, other, third)}
    assert _lib(work, f"{SAID}; place").stdout.splitlines() == [
        f"sync {news[one]} {news[other]} {news[third]}",
        *(f"mv {new} {path}" for path, new in news.items()),
        f"sync {other.parent} {one.parent}",
    ]
    assert _lib(work, f"{SAID}; place").stdout == ""


def test_a_place_that_is_cut_short_leaves_whole_files_and_what_is_pending(work: Path) -> None:
    one, other = _bring(work, "one", "1"), _bring(work, "other", "1")
    cut = 'mv() { case $3 in */other) exit 1 ;; esac; command mv "$@"; }'
    assert _lib(work, f"{cut}; pending=./pending; place").returncode == 1
    assert (one.read_text(), other.exists()) == ("1", False)
    assert _lib(work, PLACE).stdout.split() == [str(one), str(other), str(other)]
    assert sorted(each.name for each in one.parent.iterdir()) == ["one", "other"]


def test_what_is_recorded_is_on_the_disk_before_it_gets_its_name(work: Path) -> None:
    mark = work.parent / "mark"
    assert _lib(work, f"{SAID}; record {mark} text").stdout.splitlines() == [
        f"sync {mark}.new",
        f"mv {mark}.new {mark}",
        f"sync {mark.parent}",
    ]


def test_no_script_renames_what_is_not_synced() -> None:
    """Directories are: those that `recover` moves it syncs together."""
    for name in SCRIPTS:
        lines = script(name).splitlines()
        for number, line in enumerate(lines):
            if re.match(r"\s*mv .*\.new\b", line):
                around = "\n".join(lines[max(0, number - 2) : number])
                assert "sync" in around, f"{name}: {line}"


def test_place_leaves_files_of_others_alone(work: Path) -> None:
    path = _bring(work, "mine", "1")
    path.parent.mkdir()
    (path.parent / "theirs").write_text("2")
    _lib(work, "place")
    assert (path.parent / "theirs").read_text() == "2"


def test_a_change_whose_use_was_cut_short_is_still_pending(work: Path) -> None:
    path = _bring(work, "file", "1")
    _lib(work, "pending=./pending; place; exit 1")
    assert _lib(work, f"pending=./pending; place; has_changed {path}").returncode == 0


def test_has_changed_knows_whole_paths_only(work: Path) -> None:
    path = _bring(work, "file", "1")
    each = f"for p in {path} {path}x {path.parent}; do has_changed $p && echo $p; done; true"
    assert _lib(work, f"pending=./pending; place; {each}").stdout.split() == [str(path)]
    assert _lib(work, f"pending=./none; has_changed {path} {path}x").returncode == 1


def test_wait_for_ends_with_what_it_waited_for(work: Path) -> None:
    done = _lib(work, "wait_for 0 'the moon, to be full' false; echo after")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: timed out waiting for the moon, to be full\n"


def test_wait_for_tries_until_it_succeeds_and_passes_arguments(work: Path) -> None:
    text = (
        'try() { printf "%s." "$@"; [ -e tried ] || { touch tried; return 1; }; }\nwait_for 10 it try "a b" c'
    )
    done = _lib(work, text)
    assert (done.returncode, done.stdout) == (0, "a b.c.a b.c.")


def test_a_wait_has_a_deadline_in_every_script() -> None:
    """`sleep` stands in loops with a deadline only."""
    for name in SCRIPTS:
        for number, line in enumerate(script(name).splitlines()):
            if re.search(r"\bsleep\b", line) and not line.lstrip().startswith("#"):
                assert "deadline" in "\n".join(script(name).splitlines()[max(0, number - 3) : number]), name
