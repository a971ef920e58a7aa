"""Checkpoints on disk: whole or not at all, for the program and at boot."""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.assets.templates import script
from components.programs.checkpointer.pods import APISERVER
from components.programs.checkpointer.store import Store, is_valid
from tests.sweeps import swept
from tests.unit.checkpoints import OWNERS, Object, checkpoint, directory_of
from tests.unit.sandbox import Sandbox


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A host that boots: `arm-checkpoints` runs in it."""
    host = Sandbox(tmp_path)
    host.real("cp", "cut", "ls", "mv", "sha256sum", "sync", "tail", "touch")
    host.path("/etc/kubernetes/manifests").mkdir(parents=True)
    return host


@pytest.fixture
def store(host: Sandbox) -> Store:
    return Store(host.path("/etc/kubernetes"))


def _armed(store: Store) -> dict[str, Object]:
    return {path.name: json.loads(path.read_text()) for path in store.manifests.iterdir()}


def _flag(store: Store) -> str:
    made: Object = _armed(store)[APISERVER.manifest]
    return str(made["spec"]["containers"][0]["command"][1])


def _boot(host: Sandbox) -> str:
    done = host.run(script("arm-checkpoints"))
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_is_saved_is_there_and_private(store: Store) -> None:
    assert store.save(checkpoint())
    revision = store.generation(APISERVER)
    assert revision is not None
    assert (revision / "secrets" / "a.key").read_bytes() == b"a.key"
    for path in (store.checkpoints, directory_of(store), *revision.resolve().rglob("*"), revision.resolve()):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o400 if path.parent.name == "secrets" else 0o600), path
    assert not store.save(checkpoint()), "it is there already"


def test_an_armed_pod_reads_the_revision_that_it_was_made_with(store: Store) -> None:
    store.save(checkpoint())
    assert store.arm(APISERVER)
    (volume,) = [v for v in _armed(store)[APISERVER.manifest]["spec"]["volumes"] if v["name"] == "secrets"]
    for flag in ("--flag=2", "--flag=3", "--flag=4"):
        store.save(checkpoint(flag=flag))
        assert (Path(volume["hostPath"]["path"]) / "a.key").read_bytes() == b"a.key"
    store.disarm(APISERVER)
    store.save(checkpoint(flag="--flag=4"))
    assert len([each for each in directory_of(store).iterdir() if not each.is_symlink()]) == 2
    assert not Path(volume["hostPath"]["path"]).exists()


def test_a_boot_arms_what_the_program_would_arm(host: Sandbox, store: Store) -> None:
    for owner in OWNERS:
        store.save(checkpoint(owner))
    assert store.booted() == 0
    assert _boot(host) == ""
    by_boot = _armed(store)
    assert store.booted() > 0
    for owner in OWNERS:
        store.disarm(owner)
        assert not store.is_armed(owner)
        store.arm(owner)
    assert _armed(store) == by_boot
    assert sorted(by_boot) == sorted(owner.manifest for owner in OWNERS)


def test_a_boot_without_checkpoints_arms_nothing(host: Sandbox, store: Store) -> None:
    assert _boot(host) == ""
    store.checkpoints.mkdir()
    (store.checkpoints / "kube-system-DaemonSet-empty").mkdir()
    assert _boot(host) == ""
    assert _armed(store) == {}
    assert store.generation(APISERVER) is None and not store.arm(APISERVER)


def test_a_clock_that_went_back_does_not_make_every_pod_look_old(
    host: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _boot(host)
    later = datetime.now(UTC).timestamp() + 86400
    os.utime(host.path("/etc/kubernetes/checkpoints.booted"), (later, later))
    assert store.booted() == 0
    # Nor is it when the clock gets there.
    monkeypatch.setattr("time.time", lambda: later + 1)
    assert store.booted() == 0


def _damages() -> dict[str, Callable[[Path], object]]:
    """Ways to break a revision."""
    manifest = APISERVER.manifest

    def cut(name: str, size: int) -> Callable[[Path], object]:
        return lambda revision: os.truncate(revision / name, size)

    def swap(revision: Path) -> None:
        lines = (revision / "SHA256SUMS").read_text().splitlines()
        (revision / "SHA256SUMS").write_text("\n".join(reversed(lines)) + "\n")

    damages: dict[str, Callable[[Path], object]] = {
        "no digests": lambda revision: (revision / "SHA256SUMS").unlink(),
        "no manifest": lambda revision: (revision / manifest).unlink(),
        "no secret": lambda revision: (revision / "secrets" / "a.key").unlink(),
        "another secret": lambda revision: _overwrite(revision / "secrets" / "a.key", b"b.key"),
        "another manifest": lambda revision: _overwrite(revision / manifest, b"{}"),
        "digests in another order": swap,
        "no revision": lambda revision: revision.rename(revision.with_name("away")),
    }
    damages |= {f"manifest of {size} bytes": cut(manifest, size) for size in (0, 1, 100)}
    damages |= {f"secret of {size} bytes": cut("secrets/a.key", size) for size in (0, 4)}
    damages |= {f"digests of {size} bytes": cut("SHA256SUMS", size) for size in (0, 1, 64, 82, 83, 166, 200)}
    return damages


def _overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", swept(_damages()))
def test_a_damaged_checkpoint_is_never_used(host: Sandbox, store: Store, damage: str) -> None:
    store.save(checkpoint(flag="--flag=old"))
    store.save(checkpoint(flag="--flag=new"))
    revision = (directory_of(store) / "current").resolve()
    _damages()[damage](revision)
    assert not is_valid(revision, APISERVER.manifest)
    said = _boot(host)
    assert _flag(store) == "--flag=old"
    assert damage == "no revision" or f"{revision.parent}/current is damaged" in said
    store.disarm(APISERVER)
    assert store.arm(APISERVER)
    assert _flag(store) == "--flag=old"
    store.disarm(APISERVER)
    assert store.save(checkpoint(flag="--flag=new")), "it is mended"
    _boot(host)
    assert _flag(store) == "--flag=new"


def test_with_both_generations_damaged_nothing_is_armed(host: Sandbox, store: Store) -> None:
    for flag in ("--flag=1", "--flag=2"):
        store.save(checkpoint(flag=flag))
    for link in ("current", "previous"):
        (directory_of(store) / link / APISERVER.manifest).unlink()
    _boot(host)
    assert _armed(store) == {} and not store.arm(APISERVER)


def test_a_host_that_runs_on_arms_them_without_having_booted(host: Sandbox, store: Store) -> None:
    """Pods that run since before stay as they are."""
    store.save(checkpoint())
    done = host.run(f"set -- --again\n{script('arm-checkpoints')}")
    assert (done.returncode, done.stdout) == (0, f"armed {APISERVER.manifest}\n")
    assert _armed(store).keys() == {APISERVER.manifest}
    assert store.booted() == 0


@pytest.mark.parametrize("damage", ["whole", "no manifest", "digests of 83 bytes"])
def test_the_hand_over_asks_for_what_a_boot_would_use(host: Sandbox, store: Store, damage: str) -> None:
    store.save(checkpoint())
    if damage != "whole":
        _damages()[damage]((directory_of(store) / "current").resolve())
    done = host.run(f"set -- --check {APISERVER}\n{script('arm-checkpoints')}")
    assert (done.returncode == 0) == (damage == "whole")
    assert _armed(store) == {} and store.booted() == 0


@pytest.mark.sweep
def test_a_save_that_is_cut_short_anywhere_leaves_a_whole_generation(
    host: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    for steps in itertools.count():
        flag = f"--flag={steps}"
        store.save(checkpoint(flag="--flag=old"))
        left = itertools.repeat(None, steps)

        def fsync(descriptor: int, left: Any = left) -> None:
            if next(left, "over") == "over":
                raise OSError(28, "No space left on device")
            real(descriptor)

        with monkeypatch.context() as disk:
            disk.setattr(os, "fsync", fsync)
            try:
                store.save(checkpoint(flag=flag))
                whole = True
            except OSError:
                whole = False
        _boot(host)
        assert _flag(store) in ("--flag=old", flag)
        store.disarm(APISERVER)
        assert store.save(checkpoint(flag=flag)) or store.generation(APISERVER) is not None
        _boot(host)
        assert _flag(store) == flag
        store.disarm(APISERVER)
        if whole:
            assert steps > 8, "it was cut short at every file, directory and link"
            return
