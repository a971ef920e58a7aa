"""From which version to which a cluster goes, and that the record of it is made before anything changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pulumi
import pytest

from components.api import Api
from components.config import ClusterConfig
from components.config.releases import LATEST, RELEASES, minor_of
from components.upgrade_checks import NoAnswer
from components.upgrade_path import refusal
from tests.unit.raw_configs import EARLIER
from tests.unit.recorder import REMOTE, Run, ran

VERSIONS = ("1.35.2", "1.35.4", "1.36.1", "1.36.3", "1.37.2", "1.38.0")


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four minors are supported."""
    rows = {version: replace(RELEASES[LATEST], kubernetes=version) for version in VERSIONS}
    monkeypatch.setattr("components.upgrade_path.RELEASES", rows)


@pytest.mark.parametrize(
    ("begun", "wanted"),
    [
        ("1.36.1", "1.36.3"),
        ("1.36.3", "1.36.1"),
        ("1.35.4", "1.36.1"),
        ("1.35.2", "1.36.3"),
        ("1.36.3", "1.37.2"),
        ("1.36.1", "1.36.1"),
        # A version that is not supported any more may be left.
        ("1.34.9", "1.35.2"),
    ],
)
@pytest.mark.usefixtures("releases")
def test_patches_go_up_and_down_and_minors_up_by_one(begun: str, wanted: str) -> None:
    assert refusal(begun, wanted) is None


SKIPPED = "the cluster runs {}, and no minor can be skipped: go to {} first, and when that has ended well, to"
DOWN = "the cluster has begun to run {}, and 1.{} may not read what that has stored: use a version of 1.{}"


@pytest.mark.parametrize(
    ("begun", "wanted", "mend"),
    [
        ("1.35.4", "1.37.2", SKIPPED.format("1.35.4", "1.36.3")),
        ("1.35.4", "1.38.0", SKIPPED.format("1.35.4", "1.36.3")),
        ("1.36.1", "1.38.0", SKIPPED.format("1.36.1", "1.37.2")),
        ("1.33.1", "1.35.4", SKIPPED.format("1.33.1", "1.34")),
        ("1.36.1", "1.35.4", DOWN.format("1.36.1", 35, 36)),
        ("1.38.0", "1.36.3", DOWN.format("1.38.0", 36, 38)),
    ],
)
@pytest.mark.usefixtures("releases")
def test_a_minor_is_neither_skipped_nor_taken_back(begun: str, wanted: str, mend: str) -> None:
    problem = refusal(begun, wanted)
    assert problem is not None
    assert str(problem).startswith(f'kubepivot:kubernetesVersion = "{wanted}": {mend}')
    assert "\n" not in str(problem)


def test_the_record_is_made_after_all_downloads_and_before_anything_that_runs_is_changed(run: Run) -> None:
    record = run.only("kubernetes-version")
    downloads = {step.urn for step in run.of(REMOTE) if step.name.endswith("-download")}
    assert downloads and downloads <= run.before(record)
    preparing = ("-preflight", "-download", "-snapshot")
    changing = [step for step in run.of(REMOTE) if not step.name.endswith(preparing)]
    changing += run.of("kubernetes:")
    assert changing and all(record.urn in run.before(each) for each in changing)


def test_the_record_meets_another_name_and_holds_previews_too(monkeypatch: pytest.MonkeyPatch) -> None:
    lab, metal = ran("lab"), ran("baremetal", preview=True)
    record = lab.only("kubernetes-version")
    assert record.urn == metal.only("kubernetes-version").urn
    assert record.inputs["input"] == LATEST
    assert record.before_update == ("upgrade-checks",)
    assert not record.before_create
    hook: Any = lab.hooks["upgrade-checks"]
    assert hook.opts is not None
    assert hook.opts.on_dry_run

    async def update(recorded: str) -> None:
        await hook(pulumi.ResourceHookArgs(urn="", id="", name="", type="", old_inputs={"input": recorded}))

    checked: list[str] = []

    async def check(_: Api, __: ClusterConfig, begun: str) -> None:
        checked.append(begun)

    monkeypatch.setattr("components.upgrade_path.check", check)
    asyncio.run(update(EARLIER))
    assert checked == [EARLIER]
    begun: list[bool] = []

    async def is_to_go_back(_: httpx.AsyncClient, version: str) -> bool:
        assert version == LATEST
        if not begun:
            raise NoAnswer("no answer")
        return begun.pop()

    monkeypatch.setattr("components.upgrade_path.is_to_go_back", is_to_go_back)
    monkeypatch.setattr("components.api.client", lambda *_: httpx.AsyncClient())
    begun = [True]
    next_minor = f"1.{minor_of(LATEST) + 1}.1"
    asyncio.run(update(next_minor))
    begun = []
    unknown = (
        rf'^kubepivot:kubernetesVersion = ".*": whether kube-apiserver has .*no answer; put {next_minor}'
    )
    with pytest.raises(pulumi.RunError, match=unknown):
        asyncio.run(update(next_minor))
    begun = [False]
    with pytest.raises(pulumi.RunError, match=r'^kubepivot:kubernetesVersion = ".*": the cluster has begun'):
        asyncio.run(update(next_minor))
    with pytest.raises(pulumi.RunError, match=r'^kubepivot:kubernetesVersion = ".*": the cluster has begun'):
        asyncio.run(update("1.99.1"))
    assert checked == [EARLIER, next_minor], "a version that no path leads to is refused before that"
