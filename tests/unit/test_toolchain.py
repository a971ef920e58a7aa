"""A tool comes from where it is installed, else from the official site, verified, else from a build."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import pins, toolchain
from lab.cache import cache_dir
from lab.errors import LabError
from lab.progress import Progress
from lab.toolchain import golang, gotoolchain
from lab.toolchain.download import Sites
from lab.toolchain.tools import BUNDLES
from tests.unit.sites import FakeGo, OfficialSites, archive, sha256_line, unreachable

OLDEST = next(iter(pins.RELEASES.values()))
KUBELET = f"https://dl.k8s.io/v{pins.NEWEST.kubernetes}/bin/linux/{pins.architecture()}/kubelet"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache and nothing on PATH but what a test puts into the directory returned."""
    bin = tmp_path / "bin"
    bin.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(bin))
    monkeypatch.delenv("GOPROXY", raising=False)
    monkeypatch.setattr(gotoolchain, "GO_DIRECTORY", str(tmp_path / "nowhere"))
    return bin


@pytest.fixture
def go(machine: Path) -> FakeGo:
    return FakeGo(machine)


@pytest.fixture
def official() -> Iterator[OfficialSites]:
    with OfficialSites() as sites:
        yield sites


def program(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


class TestDownload:
    def test_is_verified_and_kept(self, official: OfficialSites, go: FakeGo) -> None:
        official.publish(KUBELET, b"official", f"{KUBELET}.sha256")
        first = toolchain.ensure("kubelet", sites=official.sites())
        asked = list(official.asked)
        second = toolchain.ensure("kubelet", sites=official.sites())
        assert first == second
        assert first.read_bytes() == b"official"
        assert first.stat().st_mode & 0o777 == 0o755
        assert official.asked == asked
        assert go.built == []

    def test_takes_a_checksum_file_with_nothing_but_the_sum(self, official: OfficialSites) -> None:
        official.publish(KUBELET, b"official", f"{KUBELET}.sha256")
        official.files[f"{KUBELET.removeprefix('https://')}.sha256"] = sha256_line(KUBELET, b"official")[:64]
        assert toolchain.ensure("kubelet", sites=official.sites()).read_bytes() == b"official"

    def test_wrong_checksum_is_an_error_and_never_a_build(self, official: OfficialSites, go: FakeGo) -> None:
        official.publish(KUBELET, b"official", f"{KUBELET}.sha256")
        official.files[KUBELET.removeprefix("https://")] = b"altered"
        with pytest.raises(
            LabError, match=rf"{KUBELET} has SHA-256 {hashlib.sha256(b'altered').hexdigest()}"
        ) as it:
            toolchain.ensure("kubelet", sites=official.sites())
        assert hashlib.sha256(b"official").hexdigest() in str(it.value)
        assert "run again" in it.value.mend
        assert go.built == []
        assert not toolchain.cached(toolchain.bundle_of("kubelet")).exists()

    def test_checksum_file_without_the_file_is_an_error(self, official: OfficialSites) -> None:
        official.publish(KUBELET, b"official", f"{KUBELET}.sha256")
        official.files[f"{KUBELET.removeprefix('https://')}.sha256"] = b"<html>log in</html>"
        with pytest.raises(LabError, match=r"kubelet\.sha256 has no SHA-256 of kubelet"):
            toolchain.ensure("kubelet", sites=official.sites())

    @pytest.mark.parametrize("lacks", ["", ".sha256"])
    def test_not_there_is_built(
        self, lacks: str, official: OfficialSites, go: FakeGo, capsys: pytest.CaptureFixture[str]
    ) -> None:
        official.publish(KUBELET, b"official", f"{KUBELET}.sha256")
        del official.files[KUBELET.removeprefix("https://") + lacks]
        tool = toolchain.ensure("kubelet", sites=official.sites())
        assert tool.read_text().startswith("built ")
        assert list(tool.parent.iterdir()) == [tool]
        assert f"not downloaded, built instead: {KUBELET}{lacks} answered 404" in capsys.readouterr().err

    def test_that_breaks_off_is_tried_again_then_built(self, official: OfficialSites, go: FakeGo) -> None:
        official.publish(KUBELET, b"official", f"{KUBELET}.sha256")
        official.broken.add(KUBELET.removeprefix("https://"))
        assert toolchain.ensure("kubelet", sites=official.sites()).read_text().startswith("built ")
        assert official.asked.count(KUBELET.removeprefix("https://")) == 3

    def test_that_is_redirected_without_end_is_built(self, official: OfficialSites, go: FakeGo) -> None:
        official.circling.add(f"{KUBELET}.sha256".removeprefix("https://"))
        assert toolchain.ensure("kubelet", sites=official.sites()).read_text().startswith("built ")

    def test_archive_gives_all_of_its_binaries(self, official: OfficialSites) -> None:
        bundle = toolchain.bundle_of("etcd")
        assert bundle.official is not None
        members = {f"etcd-v{bundle.version}/{name}": name.encode() for name in ("README", *bundle.files)}
        official.publish(bundle.official.url, archive(members), bundle.official.checksums)
        sums = bundle.official.checksums.removeprefix("https://")
        official.files[sums] = sha256_line("https://x/other.tar.gz", b"x") + official.files[sums]
        directory = toolchain.ensure("etcdctl", sites=official.sites()).parent
        assert {file.name: file.read_bytes() for file in directory.iterdir()} == {
            name: name.encode() for name in ("etcd", "etcdctl", "etcdutl")
        }

    def test_archive_that_lacks_a_binary_is_an_error(self, official: OfficialSites) -> None:
        bundle = toolchain.bundle_of("etcd")
        assert bundle.official is not None
        official.publish(bundle.official.url, archive({"etcd/etcd": b"x"}), bundle.official.checksums)
        with pytest.raises(LabError, match="has no etcdctl, etcdutl"):
            toolchain.ensure("etcd", sites=official.sites())

    def test_pulumi_brings_its_language_host(self, official: OfficialSites) -> None:
        bundle = toolchain.bundle_of("pulumi")
        assert bundle.official is not None
        assert bundle.official.url.startswith("https://get.pulumi.com/releases/sdk/pulumi-v")
        members = {f"pulumi/{name}": name.encode() for name in bundle.files}
        official.publish(bundle.official.url, archive(members), bundle.official.checksums)
        exec = toolchain.ensure("pulumi-language-python-exec", sites=official.sites())
        assert sorted(file.name for file in exec.parent.iterdir()) == [
            "pulumi",
            "pulumi-language-python",
            "pulumi-language-python-exec",
        ]


class TestUnreachableSite:
    def test_is_passed_over(self, go: FakeGo, capsys: pytest.CaptureFixture[str]) -> None:
        assert toolchain.ensure("kubelet", sites=unreachable()).read_text().startswith("built ")
        assert "dl.k8s.io cannot be reached" in capsys.readouterr().err

    def test_is_probed_once_a_run(self, go: FakeGo) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            accepted = []

            def hang_up() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    accepted.append(1)
                    connection.close()

            thread = threading.Thread(target=hang_up)
            thread.start()
            sites = Sites({"https://dl.k8s.io": f"http://127.0.0.1:{listener.getsockname()[1]}"})
            toolchain.ensure("kubelet", sites=sites)
            toolchain.ensure("kube-scheduler", sites=sites)
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
        assert accepted == [1]
        assert go.built == ["k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes/cmd/kube-scheduler"]


class TestBuild:
    def test_has_its_version_and_no_cgo(self, go: FakeGo) -> None:
        toolchain.ensure("kubelet", sites=unreachable())
        (call,) = go.calls
        assert "CGO_ENABLED=0" in call
        assert f"-X k8s.io/component-base/version.gitVersion=v{pins.NEWEST.kubernetes}" in call
        assert "-trimpath" in call

    def test_of_pulumi_takes_the_script_of_the_same_version(self, go: FakeGo) -> None:
        script = toolchain.ensure("pulumi-language-python-exec", sites=unreachable())
        assert script.read_text() == "script\n"
        assert script.stat().st_mode & 0o111
        assert (script.parent / "pulumi").read_text() == "built github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"

    def test_that_fails_says_what_go_said_and_leaves_nothing(self, machine: Path) -> None:
        FakeGo(machine, fails=True)
        with pytest.raises(LabError, match="no space left on device") as it:
            toolchain.ensure("kubelet", sites=unreachable())
        assert "run again" in it.value.mend
        assert not toolchain.cached(toolchain.bundle_of("kubelet")).exists()
        FakeGo(machine)
        assert toolchain.ensure("kubelet", sites=unreachable()).exists()

    def test_has_a_deadline(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        FakeGo(machine, seconds=60)
        monkeypatch.setattr(golang, "BUILD_SECONDS", 0.5)
        with pytest.raises(LabError, match=r"did not end within 0\.5 s"):
            toolchain.ensure("kubelet", sites=unreachable())

    def test_recovers_from_an_interrupted_one(self, go: FakeGo) -> None:
        directory = toolchain.cached(toolchain.bundle_of("kubelet"))
        left = directory.parent / f".{directory.name}.partial"
        left.mkdir(parents=True)
        (left / "kubelet").write_text("half")
        (left / "junk").write_text("half")
        tool = toolchain.ensure("kubelet", sites=unreachable())
        assert tool.read_text() == "built k8s.io/kubernetes/cmd/kubelet"
        assert [file.name for file in directory.iterdir()] == ["kubelet"]
        assert not left.exists()

    def test_by_two_runs_at_once_happens_once(self, machine: Path) -> None:
        go = FakeGo(machine, seconds=0.5)
        ensure = (
            "import sys; sys.path[:0] = sys.argv[1:]\n"
            "from lab import toolchain; from sites import unreachable\n"
            "print(toolchain.ensure('kubelet', sites=unreachable()).read_text())"
        )
        command = [sys.executable, "-c", ensure, str(pins.CHECKOUT), str(Path(__file__).parent)]
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        answers = [run.communicate(timeout=30)[0] for run in runs]
        assert answers == ["built k8s.io/kubernetes/cmd/kubelet\n"] * 2
        assert len(go.built) == 1


class TestKey:
    def test_changes_with_every_pin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bundle = toolchain.bundle_of("kubelet")
        build = bundle.builds["kubelet"]
        keys = {
            bundle.key,
            dataclasses.replace(bundle, version="1.36.4").key,
            dataclasses.replace(bundle, official=None).key,
            dataclasses.replace(bundle, builds={"kubelet": dataclasses.replace(build, variables=())}).key,
            dataclasses.replace(bundle, builds={"kubelet": dataclasses.replace(build, cgo=True)}).key,
        }
        modules = tmp_path / "modules"
        directory = modules / build.module
        shutil.copytree(pins.MODULES / build.module, directory)
        with (directory / "go.sum").open("a") as file:
            file.write("example.org/x v1.0.0 h1:x\n")
        monkeypatch.setattr(pins, "MODULES", modules)
        pins.module_digest.cache_clear()
        keys.add(bundle.key)
        (directory / "main.go").write_text("package main\n")
        pins.module_digest.cache_clear()
        keys.add(bundle.key)
        (directory / "replaced").mkdir()
        (directory / "replaced/go.mod").write_text("module replaced\n")
        pins.module_digest.cache_clear()
        keys.add(bundle.key)
        pins.module_digest.cache_clear()
        assert len(keys) == 8

    def test_decides_what_is_in_the_cache(self, go: FakeGo, monkeypatch: pytest.MonkeyPatch) -> None:
        old = toolchain.ensure("kubelet", sites=unreachable())
        newer = dataclasses.replace(toolchain.bundle_of("kubelet"), version="1.36.4")
        monkeypatch.setitem(toolchain._bundle_of(pins.NEWEST), "kubelet", newer)
        new = toolchain.ensure("kubelet", sites=unreachable())
        assert old != new
        assert old.exists()
        assert len(go.built) == 2

    def test_every_binary_is_in_one_bundle(self) -> None:
        files = [file for bundle in BUNDLES for file in bundle.files]
        assert len(files) == len(set(files))
        assert {"pulumi", "etcdutl", "containerd-shim-runc-v2", "portmap", "flanneld", "kubeadm"} < set(files)


class TestRelease:
    @pytest.mark.parametrize("version", pins.RELEASES)
    def test_is_built_of_its_own_modules_with_its_own_version(self, version: str, go: FakeGo) -> None:
        release = pins.RELEASES[version]
        toolchain.ensure("kubelet", release=release, installed=False, sites=unreachable())
        (call,) = go.calls
        major, minor, _ = version.split(".")
        for variable, value in (("gitVersion", f"v{version}"), ("gitMajor", major), ("gitMinor", minor)):
            assert f"-X k8s.io/component-base/version.{variable}={value} " in call
        assert toolchain.bundle_of("kubelet", release).modules == {f"kubernetes/{version}"}
        assert toolchain.bundle_of("coredns", release).modules == {f"coredns/{release.coredns}"}

    def test_is_the_newest_unless_another_is_asked_for(self, go: FakeGo) -> None:
        newest = toolchain.ensure("kubelet", sites=unreachable())
        assert toolchain.ensure("kubelet", release=pins.NEWEST, sites=unreachable()) == newest
        assert toolchain.ensure("kubelet", release=OLDEST, sites=unreachable()) != newest
        assert len(go.calls) == 2

    def test_shares_what_is_the_same(self, go: FakeGo) -> None:
        shared = toolchain.ensure("containerd", sites=unreachable())
        made = len(go.calls)
        assert toolchain.ensure("containerd", release=OLDEST, sites=unreachable()) == shared
        assert len(go.calls) == made

    def test_that_is_unknown_is_an_error_that_names_the_known(self) -> None:
        with pytest.raises(LabError, match=r"the lab has no Kubernetes 1\.1\.1") as it:
            pins.find_release("1.1.1")
        assert f"name one that it has: {', '.join(pins.RELEASES)}" in it.value.mend


class TestInstalled:
    @pytest.mark.parametrize(
        ("answer", "taken"),
        [
            (f"v{pins.PULUMI}", True),
            (f"v{pins.PULUMI}-dev", False),
            (f"v{pins.PULUMI}0", False),
            ("v3.1.0", False),
        ],
    )
    def test_counts_at_exactly_the_pinned_version(
        self, answer: str, taken: bool, machine: Path, go: FakeGo
    ) -> None:
        program(machine / "pulumi", f"echo {answer}")
        for name in ("pulumi-language-python", "pulumi-language-python-exec"):
            program(machine / name, "")
        found = toolchain.ensure("pulumi", sites=unreachable())
        assert (found == machine / "pulumi") is taken

    def test_is_passed_over_without_its_language_host(self, machine: Path, go: FakeGo) -> None:
        program(machine / "pulumi", f"echo v{pins.PULUMI}")
        assert toolchain.ensure("pulumi", sites=unreachable()) != machine / "pulumi"

    def test_is_passed_over_for_another_machine(self, machine: Path, go: FakeGo) -> None:
        program(machine / "kubectl", f"echo Client Version: v{pins.NEWEST.kubernetes}")
        assert toolchain.ensure("kubectl", sites=unreachable()) == machine / "kubectl"
        assert toolchain.ensure("kubectl", installed=False, sites=unreachable()) != machine / "kubectl"

    def test_is_not_what_we_have_cached(self, go: FakeGo, monkeypatch: pytest.MonkeyPatch) -> None:
        cached = toolchain.cached(toolchain.bundle_of("kubectl"))
        cached.mkdir(parents=True)
        program(cached / "kubectl", f"echo Client Version: v{pins.NEWEST.kubernetes}")
        monkeypatch.setenv("PATH", str(cached), prepend=":")
        assert toolchain.source(toolchain.bundle_of("kubectl"), sites=unreachable()) == "cached"


class TestGo:
    VERSION = f"v0.0.1-go{pins.GO}.linux-{pins.architecture()}"

    @pytest.fixture
    def module(self, machine: Path, official: OfficialSites, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
        """Go's own module on the proxy, and no go on this machine. Returns the go that is in the module."""
        monkeypatch.setenv("GOPROXY", "https://modules.example")
        fake = FakeGo(machine)
        files = {"bin/go": fake.program.read_bytes(), "src/_go.mod": b"module std\n"}
        fake.program.unlink()
        buffer = io.BytesIO()
        lines = ""
        with zipfile.ZipFile(buffer, "w") as module:
            for name, content in files.items():
                path = f"golang.org/toolchain@{self.VERSION}/{name}"
                module.writestr(path, content)
                lines += f"{hashlib.sha256(content).hexdigest()}  {path}\n"
        official.files[f"modules.example/golang.org/toolchain/@v/{self.VERSION}.zip"] = buffer.getvalue()
        digest = base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()
        monkeypatch.setitem(pins.GO_MODULE_HASHES, pins.architecture(), f"h1:{digest}")
        return fake

    def test_is_had_as_a_module(self, module: FakeGo, official: OfficialSites) -> None:
        assert toolchain.ensure("kubelet", sites=official.sites()).read_text().startswith("built ")
        assert module.built == ["k8s.io/kubernetes/cmd/kubelet"]
        directory = cache_dir() / "toolchain" / f"go-{pins.GO}"
        assert sorted(
            str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file()
        ) == [
            "bin/go",
            "src/go.mod",
        ]

    def test_that_is_too_old_is_passed_over(
        self,
        module: FakeGo,
        machine: Path,
        tmp_path: Path,
        official: OfficialSites,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        old = FakeGo(tmp_path / "old", version="go1.25.9")
        monkeypatch.setenv("PATH", str(tmp_path / "old"), prepend=":")
        toolchain.ensure("kubelet", sites=official.sites())
        assert old.built == []
        assert len(module.built) == 1

    def test_with_another_hash_is_an_error(
        self, module: FakeGo, official: OfficialSites, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(pins.GO_MODULE_HASHES, pins.architecture(), "h1:other")
        with pytest.raises(LabError, match="checksum database says h1:other"):
            toolchain.ensure("kubelet", sites=official.sites())
        assert module.built == []

    def test_that_is_a_login_page_is_an_error(self, module: FakeGo, official: OfficialSites) -> None:
        (path,) = (path for path in official.files if path.startswith("modules.example/"))
        official.files[path] = b"<html>Log in</html>"
        with pytest.raises(LabError, match=r"https://modules\.example has as Go's module is no zip"):
            toolchain.ensure("kubelet", sites=official.sites())

    def test_that_cannot_be_had_is_an_error_with_a_mend(self) -> None:
        least = ".".join(map(str, pins.GO_LEAST))
        with pytest.raises(LabError, match=rf"no Go {re.escape(least)} or newer on PATH") as it:
            toolchain.ensure("kubelet", sites=unreachable())
        assert "https://go.dev/dl" in it.value.mend

    @pytest.mark.parametrize(
        ("value", "proxy"),
        [
            ("", None),
            ("off", None),
            ("https://a.example/,direct", "https://a.example"),
            ("direct|https://b.example", "https://b.example"),
        ],
    )
    def test_module_proxy_is_the_users(
        self, value: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GOPROXY", value)
        assert gotoolchain.module_proxy() == proxy


class TestProgress:
    def test_says_what_is_done_and_how_long_it_took(
        self, go: FakeGo, capsys: pytest.CaptureFixture[str]
    ) -> None:
        progress = Progress(steps=2)
        with progress.step("tools"):
            toolchain.ensure("kubelet", progress, sites=unreachable())
        with pytest.raises(ZeroDivisionError), progress.step("more [b]"):
            raise ZeroDivisionError
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "… [1/2] tools"
        assert lines[1] == f"  … kubelet {pins.NEWEST.kubernetes}"
        assert lines[-4].startswith(f"  ✓ kubelet {pins.NEWEST.kubernetes} (0.")
        assert lines[-3].startswith("✓ [1/2] tools (0.")
        assert lines[-2] == "… [2/2] more [b]"
        assert lines[-1].startswith("✗ [2/2] more [b] (0.")


class TestPins:
    def test_of_pulumi_is_the_sdks(self) -> None:
        assert pins.sdk_version("pulumi") == pins.PULUMI

    def test_of_go_serves_every_module(self) -> None:
        for file in pins.MODULES.rglob("go.mod"):
            found = re.search(r"^go (\d+)\.(\d+)", file.read_text(), re.MULTILINE)
            assert found is not None
            assert (int(found[1]), int(found[2])) <= pins.GO_LEAST
