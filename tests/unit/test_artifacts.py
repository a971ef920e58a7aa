"""The mirror's tree has the official files, or files of the same layout, each with its checksum file."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import artifacts, pins, toolchain
from lab.errors import LabError
from lab.mirror import files_dir
from lab.progress import Progress
from tests.unit.sites import FakeGo, OfficialSites, archive, unreachable

ARCHITECTURE = pins.architecture()
KUBERNETES = f"dl.k8s.io/v{pins.NEWEST.kubernetes}/bin/linux/{ARCHITECTURE}"
CONTAINERD = (
    f"github.com/containerd/containerd/releases/download/v{pins.CONTAINERD}/"
    f"containerd-{pins.CONTAINERD}-linux-{ARCHITECTURE}.tar.gz"
)
CNI = (
    f"github.com/containernetworking/plugins/releases/download/v{pins.CNI_PLUGINS}/"
    f"cni-plugins-linux-{ARCHITECTURE}-v{pins.CNI_PLUGINS}.tgz"
)
ETCD = (
    f"github.com/etcd-io/etcd/releases/download/v{pins.NEWEST.etcd}/"
    f"etcd-v{pins.NEWEST.etcd}-linux-{ARCHITECTURE}.tar.gz"
)
CHECKSUMS = {
    f"{KUBERNETES}/kubelet": f"{KUBERNETES}/kubelet.sha256",
    f"{KUBERNETES}/kubectl": f"{KUBERNETES}/kubectl.sha256",
    CONTAINERD: f"{CONTAINERD}.sha256sum",
    CNI: f"{CNI}.sha256",
    ETCD: f"{ETCD.rsplit('/', 1)[0]}/SHA256SUMS",
}


@pytest.fixture(autouse=True)
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    """A machine with an empty cache and nothing but a go that fakes its builds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return FakeGo(tmp_path / "bin")


@pytest.fixture
def official() -> Iterator[OfficialSites]:
    with OfficialSites() as sites:
        yield sites


def files(tree: Path) -> dict[str, bytes]:
    return {str(file.relative_to(tree)): file.read_bytes() for file in tree.rglob("*") if file.is_file()}


def members(archive: Path) -> dict[str, tuple[int, float]]:
    with tarfile.open(archive) as tar:
        return {member.name: (member.mode, member.mtime) for member in tar}


def test_tree_has_the_official_paths_with_checksum_files() -> None:
    found = files(artifacts.ensure_tree(Progress(), sites=unreachable()))
    assert set(found) == set(CHECKSUMS) | set(CHECKSUMS.values())
    for file, checksums in CHECKSUMS.items():
        digest = hashlib.sha256(found[file]).hexdigest()
        named = f"{digest}  {file.rsplit('/', 1)[1]}\n"
        assert found[checksums].decode() == (digest if file.startswith("dl.k8s.io") else named)


def test_archives_are_laid_out_as_the_official_ones() -> None:
    tree = artifacts.ensure_tree(Progress(), sites=unreachable())
    assert set(members(tree / CONTAINERD)) == {
        "bin/containerd",
        "bin/containerd-shim-runc-v2",
        "bin/ctr",
    }
    assert set(members(tree / CNI)) == {"./bridge", "./host-local", "./loopback", "./portmap"}
    directory = f"etcd-v{pins.NEWEST.etcd}-linux-{ARCHITECTURE}"
    assert members(tree / ETCD) == {f"{directory}/{name}": (0o755, 0) for name in ("etcdctl", "etcdutl")}
    with tarfile.open(tree / CNI) as tar:
        content = tar.extractfile("./portmap")
        assert content is not None
        with content:
            assert content.read() == b"built github.com/containernetworking/plugins/plugins/meta/portmap"


def test_the_same_binaries_make_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = files(artifacts.ensure_tree(Progress(), sites=unreachable()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert files(artifacts.ensure_tree(Progress(), sites=unreachable())) == first


def test_a_second_run_does_nothing(go: FakeGo, capsys: pytest.CaptureFixture[str]) -> None:
    artifacts.ensure_tree(Progress(), sites=unreachable())
    built = go.built
    capsys.readouterr()
    artifacts.ensure_tree(Progress(), sites=unreachable())
    assert go.built == built
    assert capsys.readouterr().err == ""


def test_an_official_archive_is_taken_as_it_is(official: OfficialSites, go: FakeGo) -> None:
    content = archive({"bin/containerd": b"official", "bin/extra": b"official"})
    official.publish(f"https://{CONTAINERD}", content, f"https://{CHECKSUMS[CONTAINERD]}")
    found = files(artifacts.ensure_tree(Progress(), sites=official.sites()))
    assert found[CONTAINERD] == content
    assert found[CHECKSUMS[CONTAINERD]] == official.files[CHECKSUMS[CONTAINERD]]
    assert not any("containerd/containerd" in package for package in go.built)


def test_an_official_binary_keeps_its_checksum(official: OfficialSites) -> None:
    url = f"https://{KUBERNETES}/kubelet"
    official.publish(url, b"official", f"{url}.sha256")
    found = files(artifacts.ensure_tree(Progress(), sites=official.sites()))
    assert found[f"{KUBERNETES}/kubelet"] == b"official"
    assert found[f"{KUBERNETES}/kubelet.sha256"] == hashlib.sha256(b"official").hexdigest().encode()


def test_a_wrong_checksum_is_an_error(official: OfficialSites) -> None:
    official.publish(f"https://{CONTAINERD}", b"official", f"https://{CHECKSUMS[CONTAINERD]}")
    official.files[CONTAINERD] = b"altered"
    with pytest.raises(LabError, match="has SHA-256"):
        artifacts.ensure_tree(Progress(), sites=official.sites())
    assert not (files_dir() / CONTAINERD).exists()


def test_what_was_taken_away_comes_back() -> None:
    tree = artifacts.ensure_tree(Progress(), sites=unreachable())
    whole = files(tree)
    (tree / CNI).unlink()
    artifacts.ensure_tree(Progress(), sites=unreachable())
    assert files(tree) == whole


def test_changed_pins_make_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = artifacts.ensure_tree(Progress(), sites=unreachable())
    (tree / CNI).write_bytes(b"of older pins")
    assert artifacts.is_ready(next(artifact for artifact in artifacts.ARTIFACTS if artifact.path == CNI))
    monkeypatch.setattr(pins, "module_digest", lambda name: f"other {name}")
    assert not any(artifacts.is_ready(artifact) for artifact in artifacts.ARTIFACTS)
    artifacts.ensure_tree(Progress(), sites=unreachable())
    assert tarfile.is_tarfile(tree / CNI)


def test_another_release_lies_beside_the_newest_and_what_they_share_is_made_once(
    go: FakeGo, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = files(artifacts.ensure_tree(Progress(), sites=unreachable()))
    made, other = len(go.calls), next(iter(pins.RELEASES.values()))
    tree = artifacts.ensure_tree(Progress(), artifacts.artifacts_of(other), sites=unreachable())
    assert go.built[made:] == [
        *(f"k8s.io/kubernetes/cmd/{name}" for name in ("kubelet", "kubectl")),
        *(f"go.etcd.io/etcd/{name}/v3" for name in ("server", "etcdctl", "etcdutl")),
    ]
    kubernetes = f"dl.k8s.io/v{other.kubernetes}/bin/linux/{ARCHITECTURE}"
    etcd = f"github.com/etcd-io/etcd/releases/download/v{other.etcd}"
    assert set(files(tree)) - set(newest) == {
        *(f"{kubernetes}/{name}" for name in ("kubelet", "kubelet.sha256", "kubectl", "kubectl.sha256")),
        *(f"{etcd}/{name}" for name in (f"etcd-v{other.etcd}-linux-{ARCHITECTURE}.tar.gz", "SHA256SUMS")),
    }
    capsys.readouterr()
    artifacts.ensure_tree(Progress(), sites=unreachable())
    artifacts.ensure_tree(Progress(), artifacts.artifacts_of(other), sites=unreachable())
    assert capsys.readouterr().err == ""


def test_an_installed_kubectl_is_not_for_hosts(tmp_path: Path) -> None:
    installed = tmp_path / "bin" / "kubectl"
    installed.write_text(f"#!/bin/sh\necho Client Version: v{pins.NEWEST.kubernetes}\n")
    installed.chmod(0o755)
    assert toolchain.ensure("kubectl", sites=unreachable()) == installed
    tree = artifacts.ensure_tree(Progress(), sites=unreachable())
    assert (tree / KUBERNETES / "kubectl").read_text() == "built k8s.io/kubernetes/cmd/kubectl"
