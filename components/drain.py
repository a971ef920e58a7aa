"""The drain: a node gets no new pods, then those that it has go elsewhere, as their budgets allow."""

from __future__ import annotations

from asyncio import Semaphore, gather, sleep
from collections.abc import Callable, Collection
from time import monotonic

import httpx

from components.api import Refused, reason, request, status, try_to_change
from components.assets.drain import (
    Answer,
    Outcome,
    Plan,
    answered,
    cordon_patch,
    eviction,
    names,
    not_serving,
    plan,
    still_there,
    tolerates_cordon,
    uncordon_patch,
)
from components.assets.manifests import Object
from components.config.upgrade import DrainConfig

__all__ = ["cordon", "drain", "uncordon"]

LOOK_SECONDS = 1
RETRY_SECONDS = 5
CORDON_SECONDS = 60
UNCORDON_SECONDS = 30
MOST_AT_ONCE = 10
MOST_LINES = 10

NOT_ASKED = Answer(outcome=Outcome.RETRY, reason="not asked to end yet")


async def cordon(api: httpx.AsyncClient, node: str) -> list[str]:
    """Lets no new pods on the node, unless that is so already. Returns why not: nothing if it is done."""
    why = await try_to_change(api, _path(node), cordon_patch, CORDON_SECONDS)
    # A change without an answer may have been made.
    return [f"node {node} can't be cordoned, for {why}", *await uncordon(api, node)] if why else []


async def drain(
    api: httpx.AsyncClient, node: str, rules: DrainConfig, tell: Callable[[str], None]
) -> list[str]:
    """Evicts the pods of a node that is cordoned. Returns why it is not drained: nothing if it is.

    If it is not, the node gets pods again. `tell` gets a line whenever what is waited for has changed. A run
    that was killed is taken up again by the next one: whatever is done already is not done anew.
    """
    begin, told = monotonic(), ""
    work = _Drain(api, node, rules, begin + rules.seconds)
    while True:
        trouble, problems = "", []
        try:
            problems = await work.go_on()
        except Refused as refused:
            problems = [f"the API refuses it: {refused}"]
        except (httpx.HTTPError, ValueError) as error:
            trouble = reason(error)
        if problems:
            problems = [f"node {node} can't be drained", *problems]
            break
        if not trouble and not work.plan.left:
            return []
        if monotonic() >= begin + rules.seconds:
            problems = [f"node {node} is not drained after {rules.seconds} s"]
            problems += [f"the API does not answer: {trouble}"] if trouble else []
            problems += await work.explain()
            break
        waiting = f"asking the API again: {trouble}" if trouble else f"waiting for {names(work.plan.left)}"
        doing = f"draining {node}: {waiting}"
        if doing != told:
            tell(doing)
            told = doing
        await sleep(LOOK_SECONDS)
    return problems + await uncordon(api, node)


async def uncordon(api: httpx.AsyncClient, node: str) -> list[str]:
    """Takes back the program's own cordon, if there is one. Returns why it stays: nothing if it does not."""
    why = await try_to_change(api, _path(node), uncordon_patch, UNCORDON_SECONDS)
    if not why:
        return []
    return [f"node {node} may stay cordoned, for {why}; 'kubectl uncordon {node}' lets pods on it again"]


def _path(node: str) -> str:
    return f"/api/v1/nodes/{node}"


class _Drain:
    """What is known of the drain of one node."""

    def __init__(self, api: httpx.AsyncClient, node: str, rules: DrainConfig, deadline: float) -> None:
        self._api, self._node, self._rules, self._deadline = api, node, rules, deadline
        self._first: set[str] | None = None
        self._asked: dict[str, float] = {}
        self._answers: dict[str, Answer] = {}
        self._turns = Semaphore(MOST_AT_ONCE)
        self.plan = Plan()

    async def go_on(self) -> list[str]:
        """Looks at the node's pods and evicts those that may be asked. Returns why there is no use in going
        on.
        """
        self.plan = plan(await self._pods(), self._rules)
        if self.plan.refused:
            return list(self.plan.refused)
        await self._evict()
        return self._lines([Outcome.FAILED])

    async def explain(self) -> list[str]:
        """Why pods are still there."""
        ending = [still_there(pod) for pod in self.plan.ending[:MOST_LINES]]
        lines = [*self._lines([Outcome.BLOCKED, Outcome.RETRY, Outcome.DONE]), *ending]
        try:
            nodes = (await request(self._api, "GET", "/api/v1/nodes"))["items"]
        except (Refused, httpx.HTTPError, ValueError) as error:
            return [*lines, f"of the other nodes nothing is known: {reason(error)}"]
        return [*lines, *not_serving(self._node, nodes)]

    def _lines(self, outcomes: Collection[Outcome]) -> list[str]:
        """The pods with such an answer, those with the same reason in one line."""
        pods: dict[str, list[Object]] = {}
        for pod in self.plan.evict:
            answer = self._answers.get(pod["metadata"]["uid"], NOT_ASKED)
            if answer.outcome in outcomes:
                pods.setdefault(answer.reason, []).append(pod)
        return [f"{names(found)}: {why}" for why, found in pods.items()][:MOST_LINES]

    async def _pods(self) -> list[Object]:
        """The node's pods, but for those that have come since and tolerate a cordon.

        Evicted, such a pod may come straight back, again and again.
        """
        query = {"fieldSelector": f"spec.nodeName={self._node}"}
        found = (await request(self._api, "GET", "/api/v1/pods", params=query))["items"]
        if self._first is None:
            self._first = {pod["metadata"]["uid"] for pod in found}
        return [pod for pod in found if pod["metadata"]["uid"] in self._first or not tolerates_cordon(pod)]

    async def _evict(self) -> None:
        """Asks for all that were not asked for a while: what a budget blocks does not hold up the others."""
        since = monotonic() - RETRY_SECONDS
        due = [each for each in self.plan.evict if self._asked.get(each["metadata"]["uid"], since) <= since]
        await gather(*map(self._evict_one, due))

    async def _evict_one(self, pod: Object) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction"
        async with self._turns:
            if monotonic() >= self._deadline:
                return
            self._asked[meta["uid"]] = monotonic()
            try:
                response = await self._api.post(path, json=eviction(pod))
            except httpx.HTTPError as error:
                why = f"the API does not answer: {reason(error)}"
                self._answers[meta["uid"]] = Answer(outcome=Outcome.RETRY, reason=why)
            else:
                self._answers[meta["uid"]] = answered(
                    meta["namespace"], response.status_code, status(response)
                )
