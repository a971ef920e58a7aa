"""How the digitalocean stand-in asks the API: again, at most so often, as configured, until cancelled."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from google.protobuf import empty_pb2

from lab.plugins.common import EngineLog
from lab.plugins.digitalocean.api import Api, Settings
from lab.plugins.digitalocean.provider import VERSION, DigitalOceanProvider
from lab.plugins.digitalocean.waits import Clock
from tests.plugins.command_host import run
from tests.plugins.digitalocean_script import (
    DROPLET,
    LOST,
    NOT_FOUND,
    TOKEN,
    UNAVAILABLE,
    Plugin,
    SkippingClock,
    droplet,
    plugin,
    script,
    urn,
)
from tests.plugins.replay import Json, ask, serving


def test_requests_are_repeated() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/tags", LOST, UNAVAILABLE, (500, {}), (201, {"tag": {"name": "t"}}))
            api.on("GET /v2/tags/t", tag_counts())
            async with plugin(api.url) as it:
                answer = await it.create("Tag", name="t")
        assert "errors" not in answer
        assert api.asked == [*["POST /v2/tags"] * 4, "GET /v2/tags/t"]
        assert it.clock.slept == [1, 2, 4]

    run(scenario)


def tag_counts(**more: Any) -> Json:
    kinds = ("droplets", "images", "volumes", "volume_snapshots", "databases")
    return {"tag": {"name": "t", "resources": {"count": 0, **{kind: {"count": 0} for kind in kinds}, **more}}}


@pytest.mark.parametrize(
    ("answer", "headers", "times", "slept", "error"),
    [
        (
            (429, {"message": "slow"}),
            {"retry-after": "7"},
            5,
            [7] * 4,
            ": 429 slow; giving up after 5 attempt",
        ),
        ((429, {"message": "slow"}), {}, 5, [1, 2, 4, 8], ": 429 slow"),
        ((502, {"message": "bad"}), {"retry-after": "7"}, 5, [1, 2, 4, 8], ": 502 bad; giving up"),
        ((501, {"message": "no"}), {}, 1, [], ": 501 no"),
        ((422, {"message": "no", "request_id": "r"}), {}, 1, [], ': 422 (request "r") no'),
        ((401, {"id": "unauthorized", "message": "Unable"}), {}, 1, [], ": 401 Unable"),
        (NOT_FOUND, {"x-request-id": "x"}, 1, [], ': 404 (request "x") The resource was not found.'),
    ],
)
def test_requests_that_fail(answer: Any, headers: Json, times: int, slept: list[float], error: str) -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/tags", answer)
            api.headers = headers
            async with plugin(api.url) as it:
                failure = await it.create("Tag", name="t")
        assert (
            f"1 error occurred:\n\t* Error creating tag: POST {api.url}/v2/tags{error}"
            in failure["errors"][0]
        )
        assert len(api.asked) == times
        assert it.clock.slept == slept

    run(scenario)


def test_retries_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITALOCEAN_HTTP_RETRY_WAIT_MAX", "3")
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", TOKEN)

    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/tags", UNAVAILABLE)
            config: Json = {"token": None, "httpRetryMax": "2", "httpRetryWaitMin": "2"}
            async with plugin(api.url, **config) as it:
                await it.create("Tag", name="t")
            assert it.clock.slept == [2, 3]

    run(scenario)


def test_requests_a_second() -> None:
    clock = SkippingClock()

    async def scenario() -> None:
        with script() as api:
            api.on("GET /v2/tags/t", tag_counts())
            config: Json = {"token": TOKEN, "apiEndpoint": api.url, "requestsPerSecond": "4"}
            spaced = Api(Settings.from_config(config), clock)
            await asyncio.gather(*(spaced.call("tags.get", "t") for _ in range(4)))
        assert sorted(clock.slept) == [0.25, 0.5, 0.75]

    run(scenario)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"tokens": "x"}, "unknown key 'tokens'"),
        ({"httpRetryMax": "many"}, "httpRetryMax is not a number"),
        ({"apiEndpoint": "http://127.0.0.1:1/api"}, "has a path"),
    ],
)
def test_configuration_that_is_refused(config: Json, reason: str) -> None:
    async def scenario() -> None:
        async with serving(DigitalOceanProvider(EngineLog(None)), VERSION) as stub:
            provider = "urn:pulumi:dev::rec::pulumi:providers:digitalocean::default"
            request: Json = {"urn": provider, "olds": {}, "news": {"version": VERSION, **config}}
            answer = await ask(stub, "CheckConfig", request)
        [failure] = answer["response"]["failures"]
        assert reason in failure["reason"]

    run(scenario)


def test_cancel_ends_a_wait_and_keeps_what_is_made() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/droplets", (202, droplet("new")))
            provider = DigitalOceanProvider(EngineLog(None), Clock())
            async with serving(provider, VERSION) as stub:
                await ask(stub, "Configure", {"args": {"apiEndpoint": api.url, "token": TOKEN}})
                it = Plugin(stub, SkippingClock())
                request = it.half_made("Create", urn=urn("Droplet"), properties=DROPLET)
                waiting = asyncio.create_task(request)
                begin = time.monotonic()
                while not api.asked:
                    assert time.monotonic() < begin + 5
                    await asyncio.sleep(0.01)
                await stub.Cancel(empty_pb2.Empty())
                id, _, reason = await waiting
        assert time.monotonic() < begin + 5
        assert id == "7"
        assert reason.endswith("to become ready: canceled\n\n")

    run(scenario)


def test_answer_that_would_crash_the_official_plugin() -> None:
    async def scenario() -> None:
        with script() as api:
            api.on("POST /v2/tags", (201, {"tag": {"name": "t"}}))
            api.on("GET /v2/tags/t", tag_counts(images=None))
            async with plugin(api.url) as it:
                id, _, reason = await it.half_made("Create", urn=urn("Tag"), properties={"name": "t"})
        assert id == "t"
        assert "crashes here" in reason

    run(scenario)
