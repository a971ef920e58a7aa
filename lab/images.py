"""The images that a cluster runs, in the mirror's registry under their official names.

Each is pulled where its registry can be reached. Elsewhere it is made of the toolchain's binaries with the
same name, entrypoint, user and places of files as the official one, so that one manifest serves both.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lab import apt, pins, toolchain
from lab.cache import cache_dir, locked, write_file
from lab.debian import RECIPES, bootstrap, build_image, directory_digest
from lab.engine import can_pull, docker
from lab.errors import LabError
from lab.mirror import push_address, registry_dir
from lab.progress import Progress

TRANSFER_SECONDS = 900
COMPILE_SECONDS = 60

# Capabilities(7) of a file, version 2: effective, permitted CAP_NET_BIND_SERVICE (10), inheritable none.
NET_BIND_SERVICE = b"\x01\x00\x00\x02" + (1 << 10).to_bytes(4, "little") + bytes(12)


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image and how to make it.

    `files` maps places in it to names of the toolchain's binaries of `release`, or to `pause`.
    `base` is what lies below: nothing; users, CA certificates and /tmp; that, nft, iptables and conntrack; or
    Python and users.
    """

    name: str
    files: tuple[tuple[str, str], ...]
    base: Literal["scratch", "static", "network", "python"] = "static"
    shell: bool = False  # /bin has BusyBox's commands
    privileged_ports: bool = False  # its programs may bind them without being root
    user: str = "0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    release: pins.Release = field(default=pins.NEWEST, repr=False)

    @property
    def registry(self) -> str:
        """The host that the image is published on."""
        return self.name.split("/")[0]

    @property
    def key(self) -> str:
        """A digest of all that decides what is in it."""
        binaries = [toolchain.bundle_of(file, self.release).key for _, file in self.files if file != PAUSE]
        names = ("python",) if self.base == "python" else ("base", "pause")
        recipes = [directory_digest(RECIPES / name) for name in names]
        # The release is in the binaries' keys, and not in itself: what two releases share is made once.
        return hashlib.sha256(repr((self, binaries, recipes)).encode()).hexdigest()[:12]


PAUSE = "pause"  # ours, compiled here

# Recipe of a base, and what of its root is taken.
BASES = {
    "static": ("base", ("etc", "tmp")),
    "network": ("base", ("etc", "tmp", "lib", "lib64", "usr")),
    "python": ("python", ("etc", "tmp", "lib", "lib64", "usr")),
}


def _kubernetes(name: str, release: pins.Release, base: Literal["static", "network"] = "static") -> Image:
    return Image(
        name=f"registry.k8s.io/{name}:v{release.kubernetes}",
        files=((f"usr/local/bin/{name}", name),),
        base=base,
        release=release,
    )


def images_of(release: pins.Release) -> tuple[Image, ...]:
    """Return the images that a cluster of this release runs."""
    return (
        Image(
            name=f"registry.k8s.io/pause:{release.pause}",
            files=(("pause", "pause"),),
            base="scratch",
            user="65535:65535",
            entrypoint=("/pause",),
        ),
        Image(
            name=f"quay.io/coreos/etcd:v{release.etcd}",
            files=tuple((f"usr/local/bin/{name}", name) for name in ("etcd", "etcdctl", "etcdutl")),
            release=release,
        ),
        _kubernetes("kube-apiserver", release),
        _kubernetes("kube-controller-manager", release),
        _kubernetes("kube-scheduler", release),
        _kubernetes("kube-proxy", release, base="network"),
        Image(
            name=f"registry.k8s.io/coredns/coredns:v{release.coredns}",
            files=(("coredns", "coredns"),),
            privileged_ports=True,
            user="65532:65532",
            entrypoint=("/coredns",),
            release=release,
        ),
        Image(
            name=f"ghcr.io/flannel-io/flannel:v{pins.FLANNEL}",
            files=(("opt/bin/flanneld", "flanneld"),),
            base="network",
            shell=True,
            entrypoint=("/opt/bin/flanneld",),
        ),
        Image(
            name=f"ghcr.io/flannel-io/flannel-cni-plugin:{pins.FLANNEL_CNI_IMAGE}",
            files=(("flannel", "flannel-cni"),),
            base="network",
            shell=True,
            command=("/bin/sh",),
        ),
        Image(
            name="docker.io/library/busybox:1.35",  # what Debian bookworm has
            files=(),
            base="network",  # for libc: a static BusyBox resolves no names
            shell=True,
            command=("sh",),
        ),
        Image(
            name=f"docker.io/library/python:{pins.PYTHON_IMAGE}",
            files=(),
            base="python",
            command=("python3",),
        ),
    )


IMAGES = images_of(pins.NEWEST)

S3_CLIENT = Image(
    name=f"docker.io/rclone/rclone:{pins.RCLONE}",
    files=(("usr/local/bin/rclone", "rclone"),),
    entrypoint=("rclone",),
)
"""Only hosts of a stack that copies its snapshots take it."""


def ensure_images(progress: Progress, images: Sequence[Image] = IMAGES) -> None:
    """Have these images in the registry of the mirror, which must be running."""
    if all(_is_done(image) for image in images):
        return
    with locked(_stamp()), progress.step("images"), tempfile.TemporaryDirectory() as scratch:
        workshop = Workshop(Path(scratch), progress)
        for image in images:
            if _is_done(image):
                continue
            with progress.step(image.name):
                target = f"{push_address()}/{image.name}"
                if not _pull(image, target, progress):
                    workshop.make(image, target)
                docker("push", "--quiet", target, timeout=TRANSFER_SECONDS)
                docker("image", "rm", target)
            write_file(_stamp(), json.dumps({**_done(), image.name: image.key}, indent=2).encode())


class Workshop:
    """Makes images of binaries. Debian's share of them is unpacked once, and only if one is made."""

    def __init__(self, scratch: Path, progress: Progress) -> None:
        self._scratch = scratch
        self._progress = progress

    def make(self, image: Image, target: str) -> None:
        """Have `image` in the engine under the name `target`."""
        base = "scratch" if image.base == "scratch" else self._base(image.base)
        context = self._scratch / "context"
        context.mkdir(exist_ok=True)
        with tarfile.open(context / "layer.tar", "w") as layer:
            for place, name in image.files:
                add(layer, self._binary(name, image.release), place, privileged_ports=image.privileged_ports)
            if image.shell:
                self._add_shell(layer)
        (context / "Dockerfile").write_text(dockerfile(image, base))
        build_image(target, context)

    def _binary(self, name: str, release: pins.Release) -> Path:
        if name == PAUSE:
            return self._compile(RECIPES / "pause" / "pause.c")
        return toolchain.ensure(name, self._progress, release=release, installed=False)

    def _compile(self, source: Path) -> Path:
        apt.ensure_command("gcc", "gcc", "libc6-dev")
        program = self._scratch / source.stem
        done = subprocess.run(
            ["gcc", "-static", "-Os", "-s", "-o", str(program), str(source)],
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
        )
        if done.returncode:
            raise LabError(
                f"gcc can't make {source.name}: {done.stderr.strip()}", "see that libc6-dev is installed"
            )
        return program

    def _base(self, name: Literal["static", "network", "python"]) -> str:
        """Have the layer that images share in the engine and return its name."""
        recipe, places = BASES[name]
        image = f"kubepivot/{name}:{directory_digest(RECIPES / recipe)}"
        if not docker("image", "ls", "--quiet", image):
            archive = self._scratch / f"{name}.tar"
            root = self._debian(recipe)
            with tarfile.open(archive, "w") as layer:
                for place in places:
                    if (root / place).exists():  # not every architecture has a lib64
                        add(layer, root / place, place)
            docker("import", str(archive), image)
        return image

    def _add_shell(self, layer: tarfile.TarFile) -> None:
        busybox = self._debian("base") / "bin" / "busybox"
        add(layer, busybox, "bin/busybox")
        done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True, timeout=10)
        for command in sorted(set(done.stdout.split()) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{command}")
            link.type = tarfile.SYMTYPE
            link.linkname = "busybox"
            layer.addfile(link)

    def _debian(self, name: str) -> Path:
        root, recipe = self._scratch / f"root-{name}", RECIPES / name
        if not root.exists():
            bootstrap(root, (recipe / "packages").read_text().split(), variant="extract")
            subprocess.run(["sh", str(recipe / "trim"), str(root)], check=True, timeout=60)
        return root


def dockerfile(image: Image, base: str) -> str:
    """Return the Dockerfile that puts `layer.tar` on `base`."""
    lines = [f"FROM {base}", "ADD layer.tar /", f"USER {image.user}", "WORKDIR /"]
    lines.append("ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if image.entrypoint:
        lines.append(f"ENTRYPOINT {json.dumps(image.entrypoint)}")
    if image.command:
        lines.append(f"CMD {json.dumps(image.command)}")
    return "\n".join(lines) + "\n"


def add(layer: tarfile.TarFile, source: Path, place: str, *, privileged_ports: bool = False) -> None:
    """Add a file, or a directory with all in it: root's and without a time."""
    attributes = {"SCHILY.xattr.security.capability": NET_BIND_SERVICE.decode()} if privileged_ports else {}

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        member.pax_headers = attributes
        return member

    layer.add(source, place, filter=plain)


def _pull(image: Image, target: str, progress: Progress) -> bool:
    """Have the official image in the engine as `target`. What its user had pulled before stays."""
    if not can_pull(image.registry):
        return False
    was_there = docker("image", "ls", "--quiet", image.name)
    try:
        docker("pull", "--quiet", image.name, timeout=TRANSFER_SECONDS)
    except LabError as error:
        progress.note(f"not pulled, made instead: {error}")
        return False
    docker("tag", image.name, target)
    if not was_there:
        docker("image", "rm", image.name)
    return True


def _stamp() -> Path:
    return cache_dir() / "mirror" / "images.json"


def _done() -> dict[str, str]:
    try:
        done: dict[str, str] = json.loads(_stamp().read_text())
    except FileNotFoundError:
        return {}
    return done


def _is_done(image: Image) -> bool:
    """Whether the image was put there as it is described now, and the registry's files have it."""
    repository, tag = image.name.rsplit(":", 1)
    manifests = registry_dir() / "docker/registry/v2/repositories" / repository / "_manifests"
    return _done().get(image.name) == image.key and (manifests / "tags" / tag / "current" / "link").is_file()
