"""The drain: a node gets no new pods, and those that it has go elsewhere, as their budgets allow."""

from __future__ import annotations

from asyncio import Semaphore, gather, sleep
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any

import httpx

from components.api import reason
from components.assets.drain import (
    Answer,
    Outcome,
    Plan,
    Rules,
    answered,
    cordon_patch,
    eviction,
    names,
    plan,
    still_there,
    tolerates_cordon,
    uncordon_patch,
)
from components.assets.manifests import Object

__all__ = ["drain", "uncordon"]

LOOK_SECONDS = 1
RETRY_SECONDS = 5
UNCORDON_SECONDS = 30
MOST_AT_ONCE = 10
MOST_LINES = 10

NOT_ASKED = Answer(outcome=Outcome.RETRY, reason="not asked to end yet")


class _Refused(Exception):
    """The API's answer, which no other try changes."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def drain(api: httpx.AsyncClient, node: str, rules: Rules, tell: Callable[[str], None]) -> list[str]:
    """Cordons a node and evicts its pods. Returns why it is not drained: nothing if it is.

    If it is not, the node gets pods again. `tell` gets a line whenever what is waited for has changed. A run
    that was killed is taken up again by the next one: whatever is done already is not done anew.
    """
    begin, told = monotonic(), ""
    work = _Drain(api, node, rules, begin + rules.seconds)
    while True:
        trouble, problems = "", []
        try:
            problems = await work.go_on()
        except _Refused as refused:
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
            problems += work.explain()
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
    deadline = monotonic() + UNCORDON_SECONDS
    while True:
        try:
            await _change(api, node, uncordon_patch)
            return []
        except _Refused as refused:
            if refused.status == 404:
                return []  # with its node it is gone
            return [_stays_cordoned(node, f"the API refuses to uncordon it: {refused}")]
        except (httpx.HTTPError, ValueError) as error:
            trouble = f"the API does not answer: {reason(error)}"
        if monotonic() >= deadline:
            return [_stays_cordoned(node, trouble)]
        await sleep(LOOK_SECONDS)


def _stays_cordoned(node: str, why: str) -> str:
    return f"node {node} may stay cordoned, for {why}; 'kubectl uncordon {node}' lets pods on it again"


class _Drain:
    """What is known of the drain of one node."""

    def __init__(self, api: httpx.AsyncClient, node: str, rules: Rules, deadline: float) -> None:
        self._api, self._node, self._rules, self._deadline = api, node, rules, deadline
        self._cordoned = False
        self._first: set[str] | None = None
        self._asked: dict[str, float] = {}
        self._answers: dict[str, Answer] = {}
        self._turns = Semaphore(MOST_AT_ONCE)
        self.plan = Plan()

    async def go_on(self) -> list[str]:
        """Cordons the node if that is to be done, looks at its pods and evicts those that may be asked.

        Returns why there is no use in going on.
        """
        if not self._cordoned:
            await _change(self._api, self._node, cordon_patch)
            self._cordoned = True
        self.plan = plan(await self._pods(), self._rules)
        if self.plan.refused:
            return list(self.plan.refused)
        await self._evict()
        return self._lines([Outcome.FAILED])

    def explain(self) -> list[str]:
        """Why pods are still there."""
        ending = [still_there(pod) for pod in self.plan.ending[:MOST_LINES]]
        return [*self._lines([Outcome.BLOCKED, Outcome.RETRY, Outcome.DONE]), *ending]

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
        found = (await _ask(self._api, "GET", "/api/v1/pods", params=query))["items"]
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
                    meta["namespace"], response.status_code, _status(response)
                )


async def _change(api: httpx.AsyncClient, node: str, patch: Callable[[Object], Object | None]) -> None:
    path = f"/api/v1/nodes/{node}"
    body = patch(await _ask(api, "GET", path))
    if body is not None:
        headers = {"Content-Type": "application/merge-patch+json"}
        await _ask(api, "PATCH", path, json=body, headers=headers)


async def _ask(api: httpx.AsyncClient, method: str, path: str, **rest: Any) -> Object:
    """The object that the API answers with. _Refused if asking again is of no use, another error if it is."""
    response = await api.request(method, path, **rest)
    # A conflict: the node has changed since it was looked at. Too many requests: of others.
    if response.is_client_error and response.status_code not in (409, 429):
        raise _Refused(response.status_code, _status(response).get("message") or response.reason_phrase)
    response.raise_for_status()
    found: Object = response.json()
    return found


def _status(response: httpx.Response) -> Object:
    """The Status that the API answers with; empty if the answer is a proxy's, or cut off."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
