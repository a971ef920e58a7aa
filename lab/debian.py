"""Debian as the stuff that images are made of."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lab import apt, processes
from lab.cache import cache_dir, locked
from lab.engine import can_pull, docker
from lab.errors import LabError
from lab.progress import Progress

SUITE = "bookworm"
LEFT_OUT = ("doc", "info", "locale", "man")
RECIPES = Path(__file__).parent / "image"
BUILD_SECONDS = 900


def recipe_image(name: str, progress: Progress) -> str:
    """Have the image that lab/image/<name> describes, and return its name: kubepivot/<name>:<digest>.

    A recipe is a list of Debian packages and a Dockerfile that goes on from them.
    """
    recipe = RECIPES / name
    packages = (recipe / "packages").read_text().split()
    base = f"kubepivot/debian:{_digest(repr((packages, SUITE, LEFT_OUT)))}"
    image = f"kubepivot/{name}:{_digest(base + directory_digest(recipe))}"
    if not docker("image", "ls", "--quiet", image):
        with locked(cache_dir() / f"image-{name}"), progress.step(f"image kubepivot/{name}"):
            if not docker("image", "ls", "--quiet", base):
                _make_base(base, packages, progress)
            build_image(image, recipe, {"BASE": base})
    return image


def _make_base(image: str, packages: list[str], progress: Progress) -> None:
    with progress.step(f"Debian {SUITE} with {len(packages)} packages"):
        if can_pull("docker.io"):
            arguments = {"BASE": f"debian:{SUITE}-slim", "PACKAGES": " ".join(packages)}
            build_image(image, RECIPES / "debian", arguments, network=True)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                archive = Path(scratch) / "root.tar"
                bootstrap(archive, packages, variant="minbase")
                docker("import", str(archive), image)


def build_image(
    image: str, context: Path, arguments: dict[str, str] | None = None, *, network: bool = False
) -> None:
    """Run `docker build`; its RUN steps reach the network only if asked."""
    options = [] if network else ["--network", "none"]
    for name, value in (arguments or {}).items():
        options += ["--build-arg", f"{name}={value}"]
    docker("build", "--quiet", *options, "--tag", image, str(context), timeout=BUILD_SECONDS)


def bootstrap(target: Path, packages: Iterable[str], *, variant: str) -> None:
    """Run mmdebstrap into `target`: an archive if it ends in .tar, else a directory.

    `variant` is mmdebstrap's: `minbase` is a whole small system, `extract` no more than the packages' files.
    """
    apt.ensure_command("mmdebstrap", "mmdebstrap", "debian-archive-keyring")
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    try:
        done = processes.run(
            [
                *("mmdebstrap", "--quiet", f"--variant={variant}", f"--include={','.join(packages)}"),
                *options,
                *(SUITE, str(target)),  # no mirror: Debian's own, security updates among them
            ],
            seconds=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"mmdebstrap did not end within {BUILD_SECONDS // 60} minutes", "see that Debian's mirror answers"
        ) from error
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-10:])
        raise LabError(f"mmdebstrap failed:\n{last}", "be root, and see that Debian's mirror answers")


def directory_digest(directory: Path) -> str:
    """Return a short digest of the files in a directory: names and content."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return _digest(repr([(str(path.relative_to(directory)), path.read_bytes()) for path in files]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
