"""Versions that stand in two places agree: what the program asks for, what the lab builds, what is pinned."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import metadata
from itertools import pairwise

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
        "etcd": ours.etcd,
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
        # 3.6.8 is that of the clusters of before, which tests carry over.
        (
            "etcd",
            "go.etcd.io/etcd/server/v3",
            {release.etcd for release in pins.RELEASES.values()} | {"3.6.8"},
        ),
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
        assert re.fullmatch(
            r"(docker\.io|registry\.k8s\.io|ghcr\.io|quay\.io)/[a-z0-9/-]+:v?\d[\w.-]+", image
        ), image


def test_etcd_of_a_minor_is_reached_from_that_of_the_minor_before() -> None:
    """3.7 wants members at 3.6.11 or newer. Between patches one goes both ways: they share etcd's minor."""
    rows = list(RELEASES.values())
    for older, newer in pairwise(rows):
        before, after = (tuple(map(int, row.etcd.split("."))) for row in (older, newer))
        assert after[1] in (before[1], before[1] + 1)
        assert after[:2] == before[:2] or before >= (3, 6, 11)
        assert older.minor != newer.minor or after[:2] == before[:2]
