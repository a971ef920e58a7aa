"""Which plugin serves: the user's, an official one that is installed once, a build, or a stand-in."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import pins, provider_plugins
from lab.cache import data_dir
from lab.progress import Progress
from lab.toolchain.tools import PLUGINS
from tests.unit.fakepulumi import FakePulumi, new_user
from tests.unit.sites import FakeGo, OfficialSites, unreachable


@pytest.fixture
def go(tmp_path: Path) -> FakeGo:
    return FakeGo(tmp_path / "bin")


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePulumi:
    return new_user(tmp_path, monkeypatch)


class TestPlugin:
    NAME = f"resource-command-v{pins.PLUGINS['command']}"

    @pytest.fixture
    def official(self) -> Iterator[OfficialSites]:
        with OfficialSites() as sites:
            yield sites

    def place(self, plugins: Path) -> Path:
        """Put an official plugin into a directory of plugins."""
        directory = plugins / self.NAME
        directory.mkdir(parents=True)
        (directory / "pulumi-resource-command").write_text("official")
        return directory

    def installs(self, fake: FakePulumi) -> None:
        """Make `pulumi plugin install` work."""
        directory = f"$PULUMI_HOME/plugins/{self.NAME}"
        fake.does(f"mkdir -p {directory}; echo downloaded > {directory}/pulumi-resource-command")

    def program(self) -> Path:
        return provider_plugins.pulumi_home() / "plugins" / self.NAME / "pulumi-resource-command"

    def test_of_the_user_is_used(self, tmp_path: Path, fake: FakePulumi, official: OfficialSites) -> None:
        self.place(tmp_path / "home/.pulumi/plugins")
        provider_plugins.ensure_plugin("command", Progress(), sites=official.sites())
        assert self.program().read_text() == "official"
        assert fake.calls == []

    def test_is_installed_where_its_site_answers(self, fake: FakePulumi, official: OfficialSites) -> None:
        self.installs(fake)
        provider_plugins.ensure_plugin("command", Progress(), sites=official.sites())
        assert self.program().read_text() == "downloaded\n"
        (call,) = fake.calls
        assert call.startswith(f"plugin install resource command {pins.PLUGINS['command']} --exact")
        provider_plugins.ensure_plugin("command", Progress(), sites=official.sites())
        assert len(fake.calls) == 1

    def test_is_installed_once_for_every_data_directory(
        self, tmp_path: Path, fake: FakePulumi, official: OfficialSites, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.installs(fake)
        provider_plugins.ensure_plugin("command", Progress(), sites=official.sites())
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other"))
        assert provider_plugins.plugin_source("command", sites=unreachable()) == "cached"
        provider_plugins.ensure_plugin("command", Progress(), sites=unreachable())
        assert self.program().read_text() == "downloaded\n"
        assert len(fake.calls) == 1

    def test_is_installed_anew_where_the_cache_was_deleted(
        self, tmp_path: Path, fake: FakePulumi, official: OfficialSites
    ) -> None:
        self.installs(fake)
        for _ in range(2):
            provider_plugins.ensure_plugin("command", Progress(), sites=official.sites())
            assert self.program().read_text() == "downloaded\n"
            shutil.rmtree(tmp_path / "home/.cache")
        assert len(fake.calls) == 2

    def test_that_cannot_be_installed_has_a_stand_in(
        self, fake: FakePulumi, official: OfficialSites, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fake.does("echo rate limit >&2; exit 1")
        provider_plugins.ensure_plugin("command", Progress(), sites=official.sites())
        assert "lab.plugins.command" in self.program().read_text()
        assert "rate limit" in capsys.readouterr().err

    def test_stand_in_runs_this_checkouts_code(self, fake: FakePulumi, tmp_path: Path) -> None:
        provider_plugins.ensure_plugin("command", Progress(), sites=unreachable())
        assert fake.calls == []
        code = tmp_path / "checkout/lab/plugins"
        code.mkdir(parents=True)
        (code / "command.py").write_text("import sys; print('stand-in', *sys.argv[1:])\n")
        done = subprocess.run([self.program(), "127.0.0.1:1"], capture_output=True, text=True, timeout=20)
        assert done.stdout == "stand-in 127.0.0.1:1\n"

    def test_stand_in_of_another_checkout_is_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provider_plugins.ensure_plugin("command", Progress(), sites=unreachable())
        monkeypatch.setattr(pins, "CHECKOUT", tmp_path / "other")
        provider_plugins.ensure_plugin("command", Progress(), sites=unreachable())
        assert f"PYTHONPATH={tmp_path / 'other'}\n" in self.program().read_text()

    def test_stand_in_gives_way_to_an_official_one(self, tmp_path: Path) -> None:
        provider_plugins.ensure_plugin("command", Progress(), sites=unreachable())
        self.place(tmp_path / "home/.pulumi/plugins")
        provider_plugins.ensure_plugin("command", Progress(), sites=unreachable())
        assert self.program().read_text() == "official"

    def test_official_one_is_never_replaced(self) -> None:
        self.place(provider_plugins.pulumi_home() / "plugins")
        provider_plugins.ensure_plugin("command", Progress(), sites=unreachable())
        assert self.program().read_text() == "official"

    def test_of_another_version_does_not_count(self, tmp_path: Path) -> None:
        directory = self.place(tmp_path / "home/.pulumi/plugins")
        directory.rename(directory.with_name("resource-command-v1.2.0"))
        assert provider_plugins.plugin_source("command", sites=unreachable()) == "stand-in"

    def test_users_own_home_gets_no_stand_in(self, tmp_path: Path, go: FakeGo) -> None:
        provider_plugins.ensure_plugins(Progress(), sites=unreachable())
        assert not (tmp_path / "home/.pulumi").exists()
        assert data_dir().stat().st_mode & 0o777 == 0o700
        assert sorted(file.name for file in self.program().parent.parent.iterdir() if file.is_dir()) == [
            f"resource-{name}-v{version}" for name, version in sorted(pins.PLUGINS.items())
        ]


class TestPluginThatCanBeBuilt:
    VERSION = pins.PLUGINS["tls"]

    def program(self) -> Path:
        return provider_plugins.pulumi_home() / f"plugins/resource-tls-v{self.VERSION}/pulumi-resource-tls"

    def ensure(self) -> str:
        provider_plugins.ensure_plugin("tls", Progress(), sites=unreachable())
        return self.program().read_text()

    def test_is_built_once_where_its_site_does_not_answer(self, go: FakeGo) -> None:
        assert provider_plugins.plugin_source("tls", sites=unreachable()) == "build"
        assert [self.ensure(), self.ensure()] == ["built ."] * 2
        assert provider_plugins.plugin_source("tls", sites=unreachable()) == "cached"
        (call,) = go.calls
        assert f"-X main.version={self.VERSION} " in call

    def test_is_built_where_it_cannot_be_installed(
        self, fake: FakePulumi, go: FakeGo, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fake.does("echo rate limit >&2; exit 1")
        with OfficialSites() as official:
            provider_plugins.ensure_plugin("tls", Progress(), sites=official.sites())
        assert self.program().read_text() == "built ."
        assert "rate limit" in capsys.readouterr().err

    def test_build_takes_the_place_of_a_stand_in(self, go: FakeGo) -> None:
        """What a version of before had for it."""
        self.program().parent.mkdir(parents=True)
        self.program().write_text("stand-in")
        (self.program().parent / provider_plugins.NOT_OFFICIAL).touch()
        assert self.ensure() == "built ."

    def test_build_of_other_sources_is_taken(self, go: FakeGo, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ensure()
        monkeypatch.setattr(pins, "module_digest", lambda name: "other")
        self.ensure()
        assert len(go.calls) == 2
        key = self.program().readlink().parent.name
        assert key == PLUGINS["tls"].key

    def test_build_is_made_anew_where_the_cache_was_deleted(self, tmp_path: Path, go: FakeGo) -> None:
        self.ensure()
        shutil.rmtree(tmp_path / "home/.cache")
        assert self.ensure() == "built ."
        assert len(go.calls) == 2

    def test_build_serves_a_state_that_another_version_made(self, fake: FakePulumi, go: FakeGo) -> None:
        plugins = self.program().parent.parent
        for version in ("5.2.0", "5.1.0"):
            (plugins / f"resource-tls-v{version}").mkdir(parents=True)
            (plugins / f"resource-tls-v{version}/pulumi-resource-tls").write_text(version)
        (plugins / "resource-tls-v5.2.0" / provider_plugins.NOT_OFFICIAL).touch()
        (plugins / "resource-tls-v5.2.0.lastused").touch()
        for _ in range(2):
            provider_plugins.ensure_plugins(Progress(), sites=unreachable())
            found = [
                (plugins / f"resource-tls-v{version}/pulumi-resource-tls").read_text()
                for version in ("5.2.0", "5.1.0")
            ]
            assert found == ["built .", "5.1.0"], "the second one is official"

    def test_build_gives_way_to_an_official_one(self, tmp_path: Path, go: FakeGo) -> None:
        self.ensure()
        directory = tmp_path / f"home/.pulumi/plugins/resource-tls-v{self.VERSION}"
        directory.mkdir(parents=True)
        (directory / "pulumi-resource-tls").write_text("official")
        assert self.ensure() == "official"
