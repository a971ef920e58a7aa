"""The tools that the lab needs, each ready at its pinned version.

In this order: what is installed, the official download (checksum verified), a build from the Go modules
that the directories here pin. What was downloaded or built is cached under its pins.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal

from lab import pins
from lab.cache import cache_dir, fresh_dir, locked
from lab.errors import LabError
from lab.progress import Progress
from lab.toolchain import golang
from lab.toolchain.download import Sites, UnavailableError
from lab.toolchain.tools import ON_DEMAND, PLUGINS, Bundle, bundles_of

VERSION_SECONDS = 20

SITES = Sites()


def ensure(
    name: str,
    progress: Progress | None = None,
    *,
    release: pins.Release = pins.NEWEST,
    installed: bool = True,
    sites: Sites = SITES,
) -> Path:
    """Return the path of the ready binary `name` of a release; its bundle's other files are beside it.

    With `installed=False` what is on PATH is not taken: the binary is for another machine.
    Raises LabError for a wrong checksum, a missing Go toolchain or a failed build.
    """
    bundle = bundle_of(name, release)
    if installed and (found := find_installed(bundle)):
        return found / name
    return ensure_bundle(bundle, progress, sites=sites) / name


def ensure_bundle(bundle: Bundle, progress: Progress | None = None, *, sites: Sites = SITES) -> Path:
    """Return the directory that has the bundle's files, downloaded or built. Raises as `ensure`."""
    directory = cached(bundle)
    if not directory.is_dir():
        progress = progress or Progress()
        with progress.step(f"{bundle.name} {bundle.version}"), locked(directory):
            if not directory.is_dir():  # another run may have made it meanwhile
                with fresh_dir(directory) as partial:
                    _make(bundle, partial, progress, sites)
    return directory


def source(bundle: Bundle, *, sites: Sites = SITES) -> Literal["installed", "cached", "download", "build"]:
    """Say where `ensure` would take the bundle from. Changes nothing."""
    if find_installed(bundle):
        return "installed"
    if cached(bundle).is_dir():
        return "cached"
    official = bundle.official
    if official and not any(sites.unreachable(url) for url in (official.url, official.checksums)):
        return "download"
    return "build"


def bundle_of(name: str, release: pins.Release = pins.NEWEST) -> Bundle:
    """Return the bundle of a release that has the binary `name`."""
    return _bundle_of(release)[name]


@cache
def _bundle_of(release: pins.Release) -> dict[str, Bundle]:
    bundles = (*bundles_of(release), *ON_DEMAND, *PLUGINS.values())
    return {file: bundle for bundle in bundles for file in bundle.files}


def cached(bundle: Bundle) -> Path:
    """Return the directory of the bundle in the cache, there or not."""
    return cache_dir() / "toolchain" / bundle.key


def find_installed(bundle: Bundle) -> Path | None:
    """Return the directory on PATH that has the whole bundle at exactly its version."""
    if not bundle.installed:
        return None
    ours = cache_dir() / "toolchain"
    path = os.pathsep.join(
        entry for entry in os.environ.get("PATH", "").split(os.pathsep) if ours not in Path(entry).parents
    )
    found = shutil.which(bundle.installed[0], path=path)
    if not found or any(not (Path(found).parent / file).exists() for file in bundle.files):
        return None
    answer = _ask_version(found, bundle.installed[1:])
    exact = rf"(?<![\w.])v{re.escape(bundle.version)}(?![\w.+-])"
    return Path(found).parent if re.search(exact, answer) else None


@cache
def _ask_version(program: str, arguments: tuple[str, ...]) -> str:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=VERSION_SECONDS)
    except (OSError, subprocess.TimeoutExpired):  # not usable is not installed
        return ""
    return done.stdout


def _make(bundle: Bundle, directory: Path, progress: Progress, sites: Sites) -> None:
    if bundle.official:
        file = directory / PurePosixPath(bundle.official.url).name
        try:
            sites.fetch(bundle.official, file, progress)
        except UnavailableError as reason:
            file.unlink(missing_ok=True)
            progress.note_once(f"not downloaded, built instead: {reason}")
        else:
            if bundle.official.is_archive:
                _unpack(file, bundle, directory)
                file.unlink()
            else:
                file.chmod(0o755)
            return
    for name, recipe in bundle.builds.items():
        progress.detail(f"building {name}")
        golang.build(recipe, directory / name, progress, sites)
    for name, (module, origin, path) in bundle.scripts.items():
        golang.copy_script(module, origin, path, directory / name, progress, sites)


def _unpack(archive: Path, bundle: Bundle, directory: Path) -> None:
    missing = set(bundle.files)
    with tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            if member.isfile() and name in missing:
                content = tar.extractfile(member)
                assert content is not None  # it is a regular file
                with (directory / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
                (directory / name).chmod(0o755)
                missing.remove(name)
    if missing:
        raise LabError(
            f"{archive.name} has no {', '.join(sorted(missing))}",
            f"see what {bundle.official.url if bundle.official else archive} holds: its layout has changed",
        )
