"""The images' table, and how one is made, pulled and pushed. Docker itself is imitated."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.assets.networks import NETWORKS
from lab import cache, debian, images, mirror, pins, toolchain
from lab.errors import LabError
from lab.images import IMAGES, S3_CLIENT, Image
from lab.progress import Progress

BY_REPOSITORY = {image.name.rsplit(":", 1)[0]: image for image in IMAGES}


class Engine:
    """Records what Docker is asked, and pushes into the registry's files as the real registry does."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.reachable: set[str] = set()
        self.unpullable: set[str] = set()
        self.there: set[str] = set()  # the user's own

    def __call__(self, *args: str, timeout: float = 0) -> str:
        self.calls.append(args)
        match args:
            case ("pull", *_, name) if name in self.unpullable:
                raise LabError(f"`docker pull {name}` failed: denied", "")
            case ("push", *_, target):
                repository, tag = target.split("/", 1)[1].rsplit(":", 1)
                repositories = mirror.registry_dir() / "docker/registry/v2/repositories"
                link = repositories / repository / "_manifests/tags" / tag / "current/link"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.touch()
            case ("image", "ls", *_, name) if name in self.there:
                return "0123456789ab"
        return ""

    def asked(self, verb: str) -> list[str]:
        return [call[-1] for call in self.calls if call[0] == verb]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(images, "docker", engine)
    monkeypatch.setattr(images, "push_address", lambda: "127.0.0.1:5555")
    monkeypatch.setattr(images, "can_pull", lambda registry: registry in engine.reachable)
    return engine


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are made instead of pulled."""
    made: list[str] = []
    monkeypatch.setattr(images.Workshop, "make", lambda self, image, target: made.append(image.name))
    return made


def test_names_are_the_official_ones_of_the_pinned_versions() -> None:
    names = {image.name for image in IMAGES}
    assert {
        f"registry.k8s.io/kube-apiserver:v{pins.NEWEST.kubernetes}",
        f"registry.k8s.io/kube-proxy:v{pins.NEWEST.kubernetes}",
        f"quay.io/coreos/etcd:v{pins.NEWEST.etcd}",
        f"registry.k8s.io/coredns/coredns:v{pins.NEWEST.coredns}",
        f"registry.k8s.io/pause:{pins.NEWEST.pause}",
        f"ghcr.io/flannel-io/flannel:v{pins.FLANNEL}",
    } <= names
    assert len(names) == len(IMAGES)


@pytest.mark.parametrize(
    ("repository", "place"),
    [
        ("registry.k8s.io/kube-apiserver", "usr/local/bin/kube-apiserver"),
        ("quay.io/coreos/etcd", "usr/local/bin/etcdctl"),
        ("registry.k8s.io/coredns/coredns", "coredns"),
        ("registry.k8s.io/pause", "pause"),
        ("ghcr.io/flannel-io/flannel", "opt/bin/flanneld"),
        ("ghcr.io/flannel-io/flannel-cni-plugin", "flannel"),
    ],
)
def test_files_lie_where_the_official_images_have_them(repository: str, place: str) -> None:
    assert place in dict(BY_REPOSITORY[repository].files)


def test_control_plane_images_have_no_shell_as_the_official_ones_do_not() -> None:
    with_shell = {repository for repository, image in BY_REPOSITORY.items() if image.shell}
    networks = [network.workload.images for network in NETWORKS.values()]
    of_networks = {image.reference.rpartition(":")[0] for images in networks for image in images}
    assert with_shell == {*of_networks, "docker.io/library/busybox"}


def test_dockerfile_names_user_entrypoint_and_path() -> None:
    text = images.dockerfile(BY_REPOSITORY["registry.k8s.io/coredns/coredns"], "kubepivot/static:0")
    assert text.splitlines() == [
        "FROM kubepivot/static:0",
        "ADD layer.tar /",
        "USER 65532:65532",
        "WORKDIR /",
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        'ENTRYPOINT ["/coredns"]',
    ]
    assert 'CMD ["sh"]' in images.dockerfile(BY_REPOSITORY["docker.io/library/busybox"], "scratch")


def layer_of(source: Path, *, privileged_ports: bool = False) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        images.add(layer, source, "usr/local/bin/tool", privileged_ports=privileged_ports)
    return content.getvalue()


def test_layer_is_roots_executable_and_the_same_when_made_again(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_bytes(b"#!")
    program.chmod(0o755)
    first = layer_of(program)
    program.touch()
    assert layer_of(program) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as layer:
        (member,) = layer.getmembers()
    assert (member.uid, member.gid, member.mode, member.mtime) == (0, 0, 0o755, 0)
    assert "SCHILY.xattr.security.capability" not in member.pax_headers


def test_capability_to_bind_privileged_ports_is_an_attribute_of_the_file(tmp_path: Path) -> None:
    program = tmp_path / "coredns"
    program.write_bytes(b"")
    with tarfile.open(fileobj=io.BytesIO(layer_of(program, privileged_ports=True))) as layer:
        (member,) = layer.getmembers()
    capability = member.pax_headers["SCHILY.xattr.security.capability"].encode()
    # As setcap(8) writes cap_net_bind_service=ep.
    assert capability.hex() == "0100000200040000000000000000000000000000"


def test_key_changes_with_whatever_changes_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    image = BY_REPOSITORY["quay.io/coreos/etcd"]
    keys = {image.key, replace(image, user="1").key, replace(image, files=image.files[:1]).key}
    monkeypatch.setattr(images, "directory_digest", lambda directory: f"other {directory.name}")
    keys.add(image.key)
    assert len(keys) == 4


def test_recipe_digest_follows_names_and_content(tmp_path: Path) -> None:
    def digest(change: Callable[[], object]) -> str:
        change()
        return debian.directory_digest(tmp_path)

    file = tmp_path / "etc" / "file"
    file.parent.mkdir()
    digests = [digest(lambda: file.write_text("1")), digest(file.touch), digest(lambda: file.write_text("2"))]
    digests.append(digest(lambda: file.rename(tmp_path / "file")))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_everything_is_made_where_no_registry_answers_and_nothing_the_second_time(
    engine: Engine, made: list[str]
) -> None:
    images.ensure_images(Progress())
    assert made == [image.name for image in IMAGES]
    assert engine.asked("push") == [f"127.0.0.1:5555/{image.name}" for image in IMAGES]
    engine.calls.clear()
    images.ensure_images(Progress())
    assert engine.calls == []


def test_the_client_for_copies_is_made_only_where_it_is_asked_for(engine: Engine, made: list[str]) -> None:
    images.ensure_images(Progress(), (S3_CLIENT,))
    assert made == [f"docker.io/rclone/rclone:{pins.RCLONE}"]
    made.clear()
    images.ensure_images(Progress(), (S3_CLIENT,))
    images.ensure_images(Progress())
    assert made == [image.name for image in IMAGES]
    assert S3_CLIENT not in IMAGES


def test_another_release_has_images_of_its_own_beside_those_that_it_shares(
    engine: Engine, made: list[str]
) -> None:
    images.ensure_images(Progress())
    made.clear()
    other = next(iter(pins.RELEASES.values()))
    images.ensure_images(Progress(), images.images_of(other))
    components = ("apiserver", "controller-manager", "scheduler", "proxy")
    assert made == [
        f"registry.k8s.io/pause:{other.pause}",
        f"quay.io/coreos/etcd:v{other.etcd}",
        *(f"registry.k8s.io/kube-{name}:v{other.kubernetes}" for name in components),
        f"registry.k8s.io/coredns/coredns:v{other.coredns}",
    ]
    made.clear()
    images.ensure_images(Progress())
    assert made == []


def test_image_has_the_binaries_of_its_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, pins.Release]] = []

    def ensure(name: str, progress: Progress, *, release: pins.Release, installed: bool) -> Path:
        asked.append((name, release))
        (tmp_path / name).touch()
        return tmp_path / name

    monkeypatch.setattr(toolchain, "ensure", ensure)
    monkeypatch.setattr(images, "build_image", lambda target, context: None)
    monkeypatch.setattr(images.Workshop, "_base", lambda self, name: name)
    other = next(iter(pins.RELEASES.values()))
    own = ("kube-scheduler", "coredns")
    for image in images.images_of(other):
        if image.files and image.files[0][1] in own:
            images.Workshop(tmp_path, Progress()).make(image, "target")
    assert asked == [(name, other) for name in own]


def test_official_image_is_taken_where_its_registry_answers(engine: Engine, made: list[str]) -> None:
    engine.reachable = {"ghcr.io"}
    images.ensure_images(Progress())
    official = [image.name for image in IMAGES if image.registry == "ghcr.io"]
    assert engine.asked("pull") == official
    assert not set(made) & set(official)


def test_image_that_the_user_has_pulled_stays(engine: Engine, made: list[str]) -> None:
    engine.reachable = {"docker.io"}
    busybox = BY_REPOSITORY["docker.io/library/busybox"].name
    engine.there = {busybox}
    images.ensure_images(Progress())
    assert busybox in engine.asked("pull")
    assert ("image", "rm", busybox) not in engine.calls
    assert ("image", "rm", f"127.0.0.1:5555/{busybox}") in engine.calls


def test_image_that_cannot_be_pulled_is_made(engine: Engine, made: list[str]) -> None:
    engine.reachable = {image.registry for image in IMAGES}
    engine.unpullable = {f"registry.k8s.io/coredns/coredns:v{pins.NEWEST.coredns}"}
    images.ensure_images(Progress())
    assert set(made) == engine.unpullable


def test_interrupted_run_goes_on_where_it_was(
    engine: Engine, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_at_the_third(self: images.Workshop, image: Image, target: str) -> None:
        if len(made) == 2:
            raise LabError("the disk is full", "")
        made.append(image.name)

    with monkeypatch.context() as broken:
        broken.setattr(images.Workshop, "make", break_at_the_third)
        with pytest.raises(LabError, match="the disk is full"):
            images.ensure_images(Progress())
    images.ensure_images(Progress())
    assert made == [image.name for image in IMAGES]


def test_emptied_registry_is_filled_again(engine: Engine, made: list[str]) -> None:
    images.ensure_images(Progress())
    (mirror.registry_dir()).rename(cache.cache_dir() / "away")
    made.clear()
    images.ensure_images(Progress())
    assert made == [image.name for image in IMAGES]


def test_network_of_another_range_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"ls": "0123", "inspect": "10.1.0.0/16"}
    monkeypatch.setattr(mirror, "docker", lambda *args: answers[args[1]])
    with pytest.raises(LabError, match=r"has the subnet 10\.1\.0\.0/16, not 172\.30\.0\.0/16") as raised:
        mirror.ensure_network()
    assert "docker network rm kubepivot" in raised.value.mend


def test_network_that_overlaps_with_anothers_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def docker(*args: str) -> str:
        if args[1] == "create":
            raise LabError("Pool overlaps with other one on this address space", "see docker")
        return ""

    monkeypatch.setattr(mirror, "docker", docker)
    with pytest.raises(
        LabError, match=r"another network .* has addresses of the lab.s, 172\.30\.0\.0/16"
    ) as it:
        mirror.ensure_network()
    assert "docker network ls" in it.value.mend


def test_mirror_is_asked_past_the_users_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    (tmp_path / "v2").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(mirror, "push_address", lambda: f"127.0.0.1:{server.server_port}")
        monkeypatch.setattr(mirror, "START_SECONDS", 0)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        try:
            mirror._wait_until_serving()
        finally:
            server.shutdown()
            thread.join()


def test_mirror_stays_while_a_host_is_on_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def docker(*args: str) -> str:
        asked.append(args)
        return f"{mirror.CONTAINER}\nother-worker-1"

    monkeypatch.setattr(mirror, "docker", docker)
    mirror.remove_mirror()
    assert len(asked) == 1, "looked, and removed nothing"
