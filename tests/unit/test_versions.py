"""Versions that stand in two places agree: what the program asks for, what the lab builds, what is pinned."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import metadata

import pytest

from components.config.images import release_images
from components.config.releases import LATEST, RELEASES
from lab import pins
from tests.cases import CHECKOUT

RELEASE = RELEASES[LATEST]


def requirements() -> dict[str, str]:
    """Pins of requirements.txt by package; fails on a line that is no pin."""
    lines = (CHECKOUT / "requirements.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name: version for name, version in pinned}


def test_the_lab_builds_the_releases_that_are_supported() -> None:
    assert list(pins.RELEASES) == list(RELEASES)
    assert pins.NEWEST.kubernetes == LATEST


@pytest.mark.parametrize("version", RELEASES)
def test_the_lab_builds_what_a_release_runs(version: str) -> None:
    release, ours = RELEASES[version], pins.RELEASES[version]
    built = {
        "kubernetes": ours.kubernetes,
        "etcd": pins.ETCD,
        "etcd_image_tag": pins.ETCD_IMAGE,
        "containerd": pins.CONTAINERD,
        "cni": pins.CNI_PLUGINS,
        "flannel": pins.FLANNEL,
        "flannel_cni": pins.FLANNEL_CNI_IMAGE.removeprefix("v"),
        "coredns": ours.coredns,
        "pause": ours.pause,
        "python": pins.PYTHON_IMAGE,
        "rclone": pins.RCLONE,
    }
    # runc is the distribution's: the lab takes Debian's.
    wanted = {field.name: getattr(release, field.name) for field in fields(release) if field.name != "runc"}
    assert built == wanted


@pytest.mark.parametrize(
    ("name", "module", "versions"),
    [
        ("kubernetes", "k8s.io/kubernetes", {release.kubernetes for release in pins.RELEASES.values()}),
        ("coredns", "github.com/coredns/coredns", {release.coredns for release in pins.RELEASES.values()}),
    ],
)
def test_a_directory_of_modules_pins_the_version_that_it_is_named_after(
    name: str, module: str, versions: set[str]
) -> None:
    found = {directory.name for directory in (pins.MODULES / name).iterdir()}
    assert {version: pins.module_version(f"{name}/{version}", module) for version in found} == {
        version: version for version in versions
    }


def test_the_engine_is_of_the_version_of_its_sdk() -> None:
    assert requirements()["pulumi"] == pins.PULUMI


@pytest.mark.parametrize("plugin", sorted(pins.PLUGINS))
def test_a_plugin_is_of_the_version_of_its_sdk(plugin: str) -> None:
    assert requirements()[f"pulumi-{plugin}"] == pins.PLUGINS[plugin]


def test_go_is_new_enough_for_every_module() -> None:
    asked = [
        re.search(r"^go (\S+)$", file.read_text(), re.MULTILINE) for file in pins.MODULES.rglob("go.mod")
    ]
    assert len(asked) > 10
    assert max(tuple(map(int, found[1].split("."))) for found in asked if found) == pins.GO_LEAST
    assert tuple(map(int, pins.GO.split("."))) >= pins.GO_LEAST


def test_what_is_installed_is_what_is_pinned() -> None:
    assert {name: metadata.version(name) for name in requirements()} == requirements()


def test_releases_are_listed_oldest_first() -> None:
    versions = [tuple(map(int, version.split("."))) for version in RELEASES]
    assert versions == sorted(versions)
    assert list(RELEASES)[-1] == LATEST


@pytest.mark.parametrize("version", RELEASES)
def test_versions_are_versions_and_images_have_them(version: str) -> None:
    release = RELEASES[version]
    assert release.kubernetes == version
    for field in fields(release):
        assert re.fullmatch(r"\d+\.\d+(\.\d+)?(-[\w-]+)?", getattr(release, field.name)), field.name
    images = [release.etcd_image, release.pause_image, release.rclone_image]
    images += release_images(release).values()
    for image in images:
        assert re.fullmatch(r"(docker\.io|registry\.k8s\.io|ghcr\.io)/[a-z0-9/-]+:v?\d[\w.-]+", image), image


def test_etcd_is_of_the_same_release_as_its_image() -> None:
    assert RELEASE.etcd_image_tag.split("-")[0] == RELEASE.etcd
