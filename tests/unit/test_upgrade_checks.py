"""What keeps an upgrade from beginning: what an API says, and an API that says nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pulumi
import pytest

import components.api
from components.api import LoginUnknown
from components.assets.upgrade_checks import (
    etcd_problems,
    has_begun,
    node_problems,
    removed_apis,
)
from components.config import parse
from components.upgrade_checks import NoAnswer, check, is_to_go_back, look
from tests.cases import read

# -- APIs that are removed -----------------------------------------------------------------------------------


def sample(labels: str, value: str = "1") -> str:
    return f"apiserver_requested_deprecated_apis{{{labels}}} {value}"


def named(removed: str, group: str = "g", subresource: str = "") -> str:
    """Labels in the order in which kube-apiserver writes them."""
    return (
        f'group="{group}",removed_release="{removed}",resource="rs",subresource="{subresource}",version="v1"'
    )


METRICS = f"""# HELP apiserver_requested_deprecated_apis [STABLE] Gauge of deprecated APIs
# TYPE apiserver_requested_deprecated_apis gauge
{sample(named("", group=""))}
{sample(named("1.37", group="a.io", subresource="status"))}
{sample(named("1.38", group="b.io"))}
apiserver_request_total{{group="c.io",removed_release="1.36",resource="rs",version="v1"}} 4
"""


def apis(metrics: str, version: str) -> list[str]:
    """The APIs alone."""
    return [problem.partition(" is still asked for, and ")[0] for problem in removed_apis(metrics, version)]


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("1.36.3", []),
        ("1.37.2", ["a.io/v1/rs/status"]),
        ("1.38.0", ["a.io/v1/rs/status", "b.io/v1/rs"]),
    ],
)
def test_what_the_version_does_not_have_and_somebody_asks_for_is_found(
    version: str, found: list[str]
) -> None:
    assert apis(METRICS, version) == found


def test_a_problem_is_one_line_with_api_release_and_mend() -> None:
    (problem,) = removed_apis(METRICS, "1.37.2")
    assert problem.startswith(
        "a.io/v1/rs/status is still asked for, and 1.37 does not have it any more: have what asks use"
    )
    assert problem.endswith("kubectl -n kube-system rollout restart daemonset/kube-apiserver")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (sample('resource="rs",removed_release="1.37",version="v1",group="g",subresource=""'), ["g/v1/rs"]),
        (sample('group="",version="v1",resource="rs",removed_release="1.37"'), ["v1/rs"]),
        (sample(f"{named('1.37')},"), ["g/v1/rs"]),
        (sample(f" {named('1.37').replace(',', ' , ').replace('=', ' = ')} "), ["g/v1/rs"]),
        (sample(named("1.37")).replace("{", " {").replace("} ", "}"), ["g/v1/rs"]),
        (sample(named("1.37"), "1 1764288000000"), ["g/v1/rs"]),
        (sample(named("1.37"), "1e+00"), ["g/v1/rs"]),
        (sample(named("1.37")) + "\r", ["g/v1/rs"]),
        (sample(named("1.9")), ["g/v1/rs"]),
        (sample(named("1.37").replace('"g"', r'"a\"},{b\\"')), ['a"},{b\\/v1/rs']),
        (sample(named("1.37")) + "\n" + sample(f'a="x",{named("1.37")}'), ["g/v1/rs"]),
        (sample(named("1.37"), "0"), []),
        (sample(named("1.37"), "NaN"), []),
        (sample(named("1.100")), []),
        (sample(named("")), []),
        (sample(named("soon")), []),
        (sample(named("1.37")).replace("} 1", " 1"), []),
        ("# " + sample(named("1.37")), []),
        ("x" + sample(named("1.37")), []),
        ("apiserver_requested_deprecated_apis 1", []),
        ("", []),
    ],
)
def test_the_text_is_read_however_it_is_written(line: str, found: list[str]) -> None:
    assert apis(line, "1.37.2") == found


# -- nodes ---------------------------------------------------------------------------------------------------


def node(name: str, kubelet: str = "v1.36.3", pressure: str = "False") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {
            "nodeInfo": {"kubeletVersion": kubelet},
            "conditions": [
                {"type": "DiskPressure", "status": pressure},
                {"type": "Ready", "status": "False"},
            ],
        },
    }


@pytest.mark.parametrize(
    ("kubelet", "from_version", "to_version", "problem"),
    [
        ("v1.36.3", "1.36.3", "1.37.2", ""),
        ("v1.36.1", "1.36.3", "1.37.2", ""),
        ("v1.37.2", "1.36.3", "1.37.2", ""),
        ("v1.36.3", "1.36.1", "1.36.1", ""),
        ("v1.36.3-eks-1+2", "1.36.3", "1.37.2", ""),
        # In the middle of an upgrade of a minor to another patch of it.
        ("v1.35.4", "1.36.1", "1.36.3", ""),
        ("v1.33.0", "1.36.1", "1.36.3", ""),
        (
            "v1.35.4",
            "1.36.3",
            "1.37.2",
            "so the upgrade to 1.36.3 has not ended: set kubepivot:kubernetesVersion to 1.36.3, and run "
            "pulumi up until it succeeds",
        ),
        (
            "v1.38.0",
            "1.36.3",
            "1.37.2",
            "and none may be newer than kube-apiserver: bring it to 1.37.2, or take the node out",
        ),
        (
            "v1.32.9",
            "1.36.1",
            "1.36.3",
            "more than 3 minors older than 1.36.3: bring it nearer, or take the node out",
        ),
    ],
)
def test_kubelets_are_near_enough(kubelet: str, from_version: str, to_version: str, problem: str) -> None:
    expected = [f"node a has a kubelet {kubelet}, {problem}"] if problem else []
    assert node_problems([node("a", kubelet)], from_version, to_version) == expected


def test_every_node_is_looked_at_and_one_without_a_kubelet_passed_over() -> None:
    nodes = [node("a"), node("b", "v1.39.0", "True"), {"metadata": {"name": "c"}}, node("d", pressure="True")]
    assert [problem.partition(" has ")[::2] for problem in node_problems(nodes, "1.36.3", "1.37.2")] == [
        (
            "node b",
            "a kubelet v1.39.0, and none may be newer than kube-apiserver: bring it to 1.37.2, or take "
            "the node out",
        ),
        ("node b", "hardly any disk space left (DiskPressure), and new images need some: free it"),
        ("node d", "hardly any disk space left (DiskPressure), and new images need some: free it"),
    ]


# -- etcd ----------------------------------------------------------------------------------------------------

READY = """[+]ping ok
[+]etcd ok
[+]etcd-readiness ok
[+]informer-sync ok
readyz check passed
"""


@pytest.mark.parametrize(
    ("readyz", "failing"),
    [
        (READY, []),
        (READY.replace("[+]ping ok", "[-]ping failed: reason withheld"), []),
        (READY.replace("[+]etcd ok", "[-]etcd failed: reason withheld"), ["etcd"]),
        (
            READY.replace("[+]etcd-readiness ok", "[-]etcd-readiness failed: reason withheld"),
            ["etcd-readiness"],
        ),
        (READY.replace("[+]etcd ok", "[+]etcd excluded: ok"), ["etcd"]),
        ("ok", ["etcd", "etcd-readiness"]),
    ],
)
def test_etcd_passes_both_of_its_checks(readyz: str, failing: list[str]) -> None:
    assert [
        problem.removeprefix("kube-apiserver's check ").partition(" ")[0] for problem in etcd_problems(readyz)
    ] == failing


# -- asking --------------------------------------------------------------------------------------------------


# -- the way back --------------------------------------------------------------------------------------------


def daemonset(image: str) -> dict[str, Any]:
    containers = [{"name": "other", "image": "x:v9.9.9"}, {"name": "kube-apiserver", "image": image}]
    return {"spec": {"template": {"spec": {"containers": containers}}}}


@pytest.mark.parametrize(
    ("image", "begun"),
    [
        ("registry.k8s.io/kube-apiserver:v1.36.3", False),
        ("registry.k8s.io/kube-apiserver:v1.35.9", False),
        ("example.com:5000/kube-apiserver:v1.36.3-fix1", False),
        ("registry.k8s.io/kube-apiserver:v1.37.0", True),
        ("example.com:5000/kube-apiserver:ours", True),
        (f"registry.k8s.io/kube-apiserver:v1.36.3@sha256:{'0' * 64}", False),
        (f"registry.k8s.io/kube-apiserver:v1.37.0@sha256:{'0' * 64}", True),
        ("example.com/kube-apiserver@sha256:0123", True),
    ],
)
def test_one_that_may_be_newer_has_begun(image: str, begun: bool) -> None:
    assert has_begun(daemonset(image), 36) == begun


class Api:
    """A made-up API. A test changes what it says, or what happens at a request."""

    def __init__(self) -> None:
        self.nodes = [node("a")]
        self.readyz = (200, READY)
        self.asked: list[str] = []
        self.before: Callable[[], httpx.Response | None] = lambda: None

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url).removeprefix("https://api"))
        if (answer := self.before()) is not None:
            return answer
        match self.asked[-1]:
            case "/api/v1/nodes":
                return httpx.Response(200, json={"items": self.nodes})
            case "/metrics":
                return httpx.Response(200, text=METRICS)
            case path if path.endswith("/daemonsets/kube-apiserver"):
                return httpx.Response(200, json=daemonset("registry.k8s.io/kube-apiserver:v1.36.3"))
            case "/readyz?verbose":
                status, text = self.readyz
                return httpx.Response(status, text=text)
        raise AssertionError(f"not imitated: {request.url}")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr("components.upgrade_checks.LOOK_SECONDS", 0.2)
    monkeypatch.setattr("components.upgrade_checks.PAUSE_SECONDS", 0.01)
    return Api()


def goes_back(api: Api, to_version: str) -> bool:
    async def run() -> bool:
        transport = httpx.MockTransport(api.answer)
        async with httpx.AsyncClient(base_url="https://api", transport=transport) as http:
            return await is_to_go_back(http, to_version)

    return asyncio.run(run())


def test_a_minor_is_taken_back_before_kube_apiserver_has_begun_only(api: Api) -> None:
    assert goes_back(api, "1.36.1")
    assert not goes_back(api, "1.35.4")
    api.before = lambda: httpx.Response(500)
    with pytest.raises(NoAnswer, match=r"^the API does not answer: HTTPStatusError"):
        goes_back(api, "1.36.1")


def found(api: Api, from_version: str, to_version: str, hosts: tuple[str, ...] = ()) -> list[str]:
    async def run() -> list[str]:
        transport = httpx.MockTransport(api.answer)
        async with httpx.AsyncClient(base_url="https://api", transport=transport) as http:
            return await look(http, hosts, from_version, to_version)

    return asyncio.run(run())


def test_a_host_that_is_new_is_no_part_of_another_minor(api: Api) -> None:
    """Its kubelet would be newer than the kube-apiserver of before."""
    assert found(api, "1.36.1", "1.36.3", ("new",)) == []
    problem = "host new is no node yet: add it in a run of its own, before another minor or after it"
    assert problem in found(api, "1.36.3", "1.37.2", ("new",))


def test_a_node_that_is_not_ready_gets_no_other_minor(api: Api) -> None:
    """Its kubelet would be changed at once."""
    api.nodes = [{**node("a"), "status": {**node("a")["status"], "conditions": []}}]
    assert found(api, "1.36.1", "1.36.3", ("a",)) == []
    problem = "node a is not Ready, and has to be for another minor: mend it or take it out first"
    assert problem in found(api, "1.36.3", "1.37.2", ("a",))


def test_an_etcd_that_is_only_busy_is_looked_at_again(api: Api) -> None:
    well, api.readyz = api.readyz, (500, READY.replace("[+]etcd ok", "[-]etcd failed: reason withheld"))

    def recover() -> None:
        if api.asked.count("/readyz?verbose") == 2:
            api.readyz = well

    api.before = recover
    assert found(api, "1.36.1", "1.36.3") == []
    assert api.asked.count("/readyz?verbose") == 2


def test_of_removed_apis_it_asks_when_the_minor_changes(api: Api) -> None:
    assert found(api, "1.36.1", "1.36.3") == []
    assert api.asked == ["/readyz?verbose", "/api/v1/nodes"]
    (problem,) = found(api, "1.36.3", "1.37.2")
    assert problem.startswith("a.io/v1/rs/status ")


def test_all_problems_are_told_at_once(api: Api) -> None:
    api.readyz = (500, READY.replace("[+]etcd ok", "[-]etcd failed: reason withheld"))
    api.nodes = [node("a", "v1.35.4", "True")]
    assert [problem.partition(" ")[0] for problem in found(api, "1.36.3", "1.37.2")] == [
        "kube-apiserver's",
        "node",
        "node",
        "a.io/v1/rs/status",
    ]


def test_back_to_an_earlier_patch_nothing_is_asked(api: Api) -> None:
    """1.36.10 is later than 1.36.9."""
    assert found(api, "1.36.10", "1.36.9") == []
    assert api.asked == []
    assert found(api, "1.36.9", "1.36.10") == []
    assert api.asked


@pytest.mark.parametrize("status", [401, 429, 503])
def test_an_api_that_comes_back_is_waited_for(api: Api, status: int) -> None:
    api.before = lambda: httpx.Response(status) if len(api.asked) < 4 else None
    assert found(api, "1.36.1", "1.36.3") == []


def _refuse() -> httpx.Response:
    raise httpx.ConnectError("connection refused")


@pytest.mark.parametrize(
    ("before", "trouble"),
    [
        (_refuse, "ConnectError connection refused"),
        (lambda: httpx.Response(403), "HTTPStatusError Client error '403 Forbidden'"),
        (lambda: httpx.Response(500), "HTTPStatusError Server error '500 Internal Server Error'"),
        (lambda: httpx.Response(200, text="<html>"), "JSONDecodeError "),
    ],
)
def test_an_api_that_stays_away_is_told(api: Api, before: Callable[[], httpx.Response], trouble: str) -> None:
    api.before = before
    with pytest.raises(NoAnswer, match=f"^the API does not answer: {re.escape(trouble)}"):
        found(api, "1.36.3", "1.37.2")
    assert len(api.asked) > 2


def test_a_request_that_hangs_is_given_up_at_the_deadline(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError("it was waited for")

    monkeypatch.setattr(api, "answer", hang)
    with pytest.raises(NoAnswer, match=r"^the API does not answer: no answer$"):
        found(api, "1.36.3", "1.37.2")


# -- what a run makes of it ----------------------------------------------------------------------------------

CONFIG = parse(read("lab"), stack="lab")


class Login:
    """Logs in to an API, if that is known."""

    def __init__(self, api: Api | None) -> None:
        self.api = api

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[httpx.AsyncClient]:
        if self.api is None:
            raise LoginUnknown("what logs in is about to change")
        async with httpx.AsyncClient(
            base_url="https://api", transport=httpx.MockTransport(self.api.answer)
        ) as http:
            yield http


def checked(monkeypatch: pytest.MonkeyPatch, api: Api | None, *, preview: bool) -> list[str]:
    """The warnings of a run that goes on."""
    warnings: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", lambda text: warnings.append(text))
    monkeypatch.setattr("pulumi.runtime.is_dry_run", lambda: preview)
    asyncio.run(check(cast(components.api.Api, Login(api)), CONFIG, "1.36.3"))
    return warnings


@pytest.mark.parametrize("preview", [True, False])
def test_what_keeps_an_upgrade_from_beginning_ends_previews_too(
    api: Api, monkeypatch: pytest.MonkeyPatch, preview: bool
) -> None:
    api.nodes = [node("a", pressure="True")]
    with pytest.raises(pulumi.RunError) as raised:
        checked(monkeypatch, api, preview=preview)
    told, *problems = str(raised.value).splitlines()
    assert told == "nothing has been upgraded:"
    assert "host controller-1 is no node yet: add it in a run of its own" in " ".join(problems)
    assert "node a has hardly any disk space left" in " ".join(problems)


def test_a_preview_goes_on_where_no_cluster_can_be_reached(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.before = _refuse
    (warning,) = checked(monkeypatch, api, preview=True)
    assert warning == (
        "whether the upgrade may begin is asked again by pulumi up: the API does not answer: ConnectError "
        "connection refused"
    )
    (warning,) = checked(monkeypatch, None, preview=True)
    assert warning.endswith("what logs in is about to change")


def test_a_run_does_not_begin_without_an_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.before = _refuse
    with pytest.raises(pulumi.RunError) as raised:
        checked(monkeypatch, api, preview=False)
    assert str(raised.value) == (
        "nothing has been upgraded:\nthe API does not answer: ConnectError connection refused: bring it back "
        "first, then run pulumi up again. If the cluster never came up, put 1.36.3 back, or destroy it first"
    )
