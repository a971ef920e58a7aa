"""The rollout: nothing goes on before every node and every workload is what it should be."""

from __future__ import annotations

from asyncio import gather, sleep
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from time import monotonic, time
from typing import Any

import httpx
import pulumi

from components.api import Api, reason
from components.assets.rollout import (
    BOOTSTRAP,
    LOG_LINES,
    Expected,
    Lease,
    Observed,
    Trial,
    Verdict,
    counts,
    expected,
    explain,
    late_workloads,
    on_trial,
    progress,
    quoted,
    to_nudge,
    unexplained,
    verdict,
    without_lost,
)
from components.config import ClusterConfig
from components.config.k8s_names import NAME_LABEL
from components.pki import Pki
from components.programs.checkpointer.pods import CHECKPOINT_LABEL

__all__ = ["Rollout", "await_rollout"]

SYSTEM = "/api/v1/namespaces/kube-system"
APPS = "/apis/apps/v1/namespaces/kube-system"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
LOOK_SECONDS = 0.5
NUDGE_SECONDS = 2
# What there is to tell of a pod or a container may take a moment to be there.
CAUSE_SECONDS, LOG_SECONDS = 5, 2

Object = dict[str, Any]


class Rollout:
    """Holds changes back until what they come after is rolled out.

    Whatever is not is told with its reason, after `roll_seconds` at most; the resource that was to be made or
    changed fails, and the next update tries again. A preview, and a run that changes nothing of the resource,
    asks for nothing.
    """

    def __init__(self, cfg: ClusterConfig, pki: Pki, api: Api) -> None:
        self._api = api
        self._expected = pki.read(lambda machines, _: expected(cfg, machines))

    def of_everything(self) -> pulumi.ResourceOptions:
        """Options of a step that is made or changed when all nodes are Ready and all workloads rolled out."""

        async def wait(_: pulumi.ResourceHookArgs) -> None:
            async with self._api.connect() as api:
                await _await(api, await self._wanted())

        hook = pulumi.ResourceHook("rollout", wait)
        return pulumi.ResourceOptions(
            hooks=pulumi.ResourceHookBinding(before_create=[hook], before_update=[hook])
        )

    def of_workloads(self, *names: str) -> pulumi.ResourceOptions:
        """Options of a workload that is changed only when those of these names are rolled out; it is made
        beside them. One that does not serve at all is changed at once: they may be waiting for it. Whether
        they lead is not asked: without leaders nothing that comes after them rolls.
        """

        async def wait(args: pulumi.ResourceHookArgs) -> None:
            async with self._api.connect() as api:
                if await _serves(api, (args.new_inputs or {})["metadata"]["name"]):
                    await _await(api, replace(await self._wanted(), nodes=(), workloads=names, leaders=()))

        hook = pulumi.ResourceHook(f"rollout of {', '.join(names)}", wait)
        return pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(before_update=[hook]))

    async def _wanted(self) -> Expected:
        found = await self._expected.future()
        assert found is not None, "an update knows all of its inputs"
        return found


async def _await(api: httpx.AsyncClient, wanted: Expected) -> None:
    if problems := await await_rollout(api, wanted, _tell):
        raise pulumi.RunError("\n".join(problems))


async def _serves(api: httpx.AsyncClient, name: str) -> bool:
    """Whether a workload has a pod that is Ready. What the API does not tell is left to the wait."""
    try:
        observed = await _observe(api)
    except (httpx.HTTPError, ValueError):
        return True
    return any(counts(each).ready for each in observed.workloads if each["metadata"]["name"] == name)


def _tell(text: str) -> None:
    pulumi.log.info(text, ephemeral=True)


async def await_rollout(api: httpx.AsyncClient, wanted: Expected, tell: Callable[[str], None]) -> list[str]:
    """Waits until everything is rolled out, or will not be. Returns why not: nothing if it is.

    `tell` gets a line whenever what is waited for has changed.
    """
    begin = nudged = monotonic()
    trouble = told = ""
    found: Observed | None = None
    observed: Observed | None = None
    while True:
        try:
            found = await _look(api, wanted, found)
            observed = without_lost(wanted, found)
            trouble = ""
        except (httpx.HTTPError, ValueError) as error:
            trouble = f"the API does not answer: {reason(error)}"
        waited = monotonic() - begin
        decided = verdict(wanted, None if trouble else observed, waited)
        if decided is Verdict.DONE:
            return []
        if decided is Verdict.FAILED:
            break
        doing = trouble or (progress(wanted, observed) if observed else "")
        if doing != told:
            tell(doing)
            told = doing
        if observed and not trouble and monotonic() - nudged >= NUDGE_SECONDS:
            nudged = monotonic()
            await _nudge(api, to_nudge(wanted, observed))
        await sleep(LOOK_SECONDS)
    heading = [f"after {waited:.0f} s not everything is rolled out", *([trouble] if trouble else [])]
    if found is None or observed is None:
        return heading
    seen = observed if trouble else await _look_closer(api, wanted, found)
    return heading + explain(wanted, seen, {} if trouble else await _logs(api, quoted(wanted, seen)))


async def _look(
    api: httpx.AsyncClient, wanted: Expected, before: Observed | None, *, events: bool = False
) -> Observed:
    """What there is now, with the pods of what was late at the look before, also on lost nodes."""
    if before is None:
        return await _observe(api, events=events)
    trial = on_trial(wanted, without_lost(wanted, before))
    return await _observe(api, late_workloads(wanted, before), trial, events=events)


async def _observe(
    api: httpx.AsyncClient,
    late: Iterable[str] = (),
    trial: Mapping[str, Trial | None] | None = None,
    *,
    events: bool = False,
) -> Observed:
    """What there is now, with the pods of the temporary control plane and of what is late."""
    names = {"labelSelector": f"{NAME_LABEL} in ({','.join([*BOOTSTRAP, *late])})"}
    nodes, daemon_sets, deployments, pods, leases, copies, warnings = await gather(
        _list(api, "/api/v1/nodes"),
        _list(api, f"{APPS}/daemonsets", kind="DaemonSet"),
        _list(api, f"{APPS}/deployments", kind="Deployment"),
        _list(api, f"{SYSTEM}/pods", names),
        _list(api, LEASES) if trial else _none(),
        _list(api, f"{SYSTEM}/pods", {"labelSelector": CHECKPOINT_LABEL}) if trial else _none(),
        _list(api, f"{SYSTEM}/events", {"fieldSelector": "type=Warning"}) if events else _none(),
    )
    return Observed(
        nodes=nodes,
        workloads=[*daemon_sets, *deployments],
        pods=pods,
        events=warnings,
        leases={each["metadata"]["name"]: _lease(each["spec"]) for each in leases},
        copies={each["metadata"]["labels"][CHECKPOINT_LABEL] for each in copies},
        on_trial=trial or {},
        at=monotonic(),
    )


def _lease(spec: Object) -> Lease:
    return Lease(spec.get("holderIdentity") or "", spec.get("renewTime") or "")


async def _list(
    api: httpx.AsyncClient, path: str, parameters: Mapping[str, str] | None = None, *, kind: str = ""
) -> list[Object]:
    answer = await api.get(path, params=parameters)
    answer.raise_for_status()
    # Objects of a list come without their kind.
    return [{**each, "kind": kind} for each in answer.json()["items"]]


async def _none() -> list[Object]:
    return []


async def _nudge(api: httpx.AsyncClient, pods: Iterable[str]) -> None:
    body = {"metadata": {"annotations": {"kubepivot.dev/awaited": str(int(time()))}}}
    headers = {"Content-Type": "application/merge-patch+json"}
    try:
        for pod in pods:
            # One that has gone, or that a webhook keeps as it is, is waited for like the others.
            await api.patch(f"{SYSTEM}/pods/{pod}", json=body, headers=headers)
    except httpx.HTTPError as error:
        pulumi.log.debug(f"pods of the roll were not touched: {reason(error)}")


async def _look_closer(api: httpx.AsyncClient, wanted: Expected, found: Observed) -> Observed:
    """Looks again, now with events, until everything late has a cause or for CAUSE_SECONDS."""

    async def look() -> bool:
        nonlocal found
        found = await _look(api, wanted, found, events=True)
        return not unexplained(wanted, without_lost(wanted, found))

    await _try(look, CAUSE_SECONDS)
    return without_lost(wanted, found)


async def _logs(api: httpx.AsyncClient, containers: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    wanted = list(containers)
    return dict(zip(wanted, await gather(*(_log(api, *each) for each in wanted)), strict=True))


async def _log(api: httpx.AsyncClient, pod: str, container: str) -> str:
    """The last lines of the container's previous run, which is complete; without one, of the current run.

    Empty if there is none: an image may not be had, and a log may be going with its container.
    """
    text = ""

    async def read() -> bool:
        nonlocal text
        for previous in ("true", "false"):
            query = {"container": container, "tailLines": str(LOG_LINES), "previous": previous}
            answer = await api.get(f"{SYSTEM}/pods/{pod}/log", params=query)
            # So the kubelet answers, as if it were the log, while it replaces the container.
            if answer.is_success and not answer.text.startswith("unable to retrieve container logs"):
                text = answer.text
            if text:
                return True
        return False

    await _try(read, LOG_SECONDS)
    return text


async def _try(attempt: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Until it succeeds; an explanation goes without what cannot be had."""
    deadline = monotonic() + seconds
    while True:
        try:
            if await attempt():
                return
        except (httpx.HTTPError, ValueError) as error:
            pulumi.log.debug(f"nothing more is known of the roll: {reason(error)}")
        if monotonic() >= deadline:
            return
        await sleep(LOOK_SECONDS)
