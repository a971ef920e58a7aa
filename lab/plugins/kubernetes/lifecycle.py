"""Making, changing and removing one object, and waiting until that has taken effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import Any

from lab.plugins.kubernetes import managers
from lab.plugins.kubernetes.cluster import ApiError, Cluster, NoMatchError, UnreachableError
from lab.plugins.kubernetes.diff import parse_path
from lab.plugins.kubernetes.objects import (
    DELETION_PROPAGATION,
    PATCH_FORCE,
    SKIP_AWAIT,
    Object,
    annotation,
    metadata,
    name_of,
    namespace_of,
)
from lab.plugins.kubernetes.readiness import RULES, Readiness, Related, Rule

_MISSING_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)
_CHANGED_MEANWHILE = 5
_FIRST_POLL, _LONGEST_POLL = 0.1, 1.0
_USUAL_DELETION = 5.0
_PROPAGATION = {"orphan": "Orphan", "background": "Background"}
_DELETES_UNAWAITED = (
    "Namespace",
    "Pod",
    "ReplicationController",
    "DaemonSet",
    "Deployment",
    "StatefulSet",
    "Job",
)
_CONFLICT_HELP = (
    "server-side apply field conflict detected, see https://www.pulumi.com/registry/packages/kubernetes/"
    "how-to-guides/managing-resources-with-server-side-apply/#handle-field-conflicts-on-existing-resources "
    "for troubleshooting help\n"
)


class ConflictError(Exception):
    """An apply names fields that somebody else owns."""

    def __init__(self, manager: str, error: ApiError) -> None:
        super().__init__(
            f'{_CONFLICT_HELP}The resource managed by field manager "{manager}" had an apply conflict: '
            f"{error}"
        )


class NotReadyError(Exception):
    """An object exists but did not get where it should in time."""

    def __init__(self, message: str, live: Object, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.live = live
        self.problems = problems


class Lifecycle:
    """Operations on one object of `cluster`; `report` shows the user a line of progress."""

    def __init__(
        self, cluster: Cluster, report: Callable[[str], Awaitable[None]], cancelled: asyncio.Event
    ) -> None:
        self._cluster = cluster
        self._report = report
        self._cancelled = cancelled

    async def create(
        self, inputs: Object, *, manager: str, apply: bool, patch: bool, preview: bool
    ) -> Object:
        """Create the object; with `apply` update one that exists. A Patch resource's object has to exist.

        A missing namespace or kind is waited for, about 15 seconds: another resource may be about to make it.
        """
        for attempt, delay in enumerate((*_MISSING_DELAYS, None)):
            try:
                if patch:
                    await self._cluster.get(inputs)
                if patch or apply:
                    force = preview or annotation(inputs, PATCH_FORCE) == "true"
                    return await self._apply(inputs, manager=manager, force=force, preview=preview)
                return await self._cluster.create(inputs, dry_run=preview)
            except (ApiError, NoMatchError) as error:
                missing = _is_gone(error)
                if not (preview and missing):
                    await self._report(f"Retry #{attempt}; creation failed: {error}")
                if preview or delay is None or not missing:
                    raise
            await self._pause(delay, inputs)
        raise AssertionError("the last attempt neither returned nor raised")

    async def update(
        self,
        inputs: Object,
        last: Object,
        *,
        manager: str,
        patch: bool,
        preview: bool,
        ignored: Iterable[str],
    ) -> Object:
        """Bring the live object to `inputs`. A CRD is put in place as a whole, as `kubectl replace` does."""
        for attempt in range(_CHANGED_MEANWHILE):
            live = await self._cluster.get(last)
            try:
                if inputs["kind"] == "CustomResourceDefinition":
                    version = metadata(live)["resourceVersion"]
                    inputs = {**inputs, "metadata": {**inputs["metadata"], "resourceVersion": version}}
                    return await self._cluster.replace(inputs, manager=manager, dry_run=preview)
                operations = [] if patch or preview else managers.adoption(live, manager)
                if operations:
                    live = await self._cluster.patch(live, operations)
                break
            except ApiError as error:
                # Somebody else, a controller say, wrote between our reading and our writing.
                if error.code != 409 or preview or attempt + 1 == _CHANGED_MEANWHILE:
                    raise
        force = managers.forced(inputs, live, preview=preview)
        return await self._apply(
            _with_live(inputs, live, ignored), manager=manager, force=force, preview=preview
        )

    async def relinquish(self, live: Object, *, manager: str) -> None:
        """Give up the fields that `manager` owns; what nobody else owns goes back to its default."""
        try:
            await self._cluster.get(live)
        except (ApiError, NoMatchError) as error:
            if _is_gone(error):
                return  # An apply would make the object anew.
            raise
        identity = {key: metadata(live)[key] for key in ("name", "namespace") if key in metadata(live)}
        bare = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": identity}
        await self._cluster.apply(bare, manager=manager)

    async def ready(self, live: Object, inputs: Object, timeout: float) -> Object:
        """The live object once its kind's rule calls it ready, which may take `timeout` seconds."""
        rule = RULES.get((live["apiVersion"], live["kind"]))
        if rule is None:
            return live
        if annotation(inputs, SKIP_AWAIT) == "true":
            await self._report("Skipping await logic")
            return live
        judged, shown = Readiness(done=False, message=""), ""
        try:
            async with asyncio.timeout(timeout):
                async for _ in self._polls(live):
                    try:
                        live = await self._cluster.get(live)
                        judged = rule.judge(live, await self._related(rule, live))
                        message = judged.message
                    except (ApiError, UnreachableError) as error:
                        if _is_gone(error):
                            raise NotReadyError(f"'{name_of(live)}' was deleted meanwhile", live) from error
                        # The server itself may be what is being replaced.
                        message = f"Waiting for the API server: {error}"
                    if message != shown:
                        await self._report(message)
                        shown = message
                    if judged.done or judged.failed:
                        break
        except TimeoutError:
            problems = judged.problems or [shown]
            raise NotReadyError(f"'{name_of(live)}' timed out waiting to be Ready", live, problems) from None
        if judged.failed:
            raise _unready(live, judged)
        return live

    async def judge(self, live: Object, inputs: Object) -> None:
        """Raise if the object is not ready now."""
        rule = RULES.get((live["apiVersion"], live["kind"]))
        if rule is None or annotation(inputs, SKIP_AWAIT) == "true":
            return
        judged = rule.judge(live, await self._related(rule, live))
        await self._report(judged.message)
        if not judged.done:
            raise _unready(live, judged)

    async def delete(self, live: Object, inputs: Object, timeout: float) -> None:
        """Delete the object and wait until it is gone; what is not there is deleted."""
        propagation = _PROPAGATION.get(annotation(inputs, DELETION_PROPAGATION).lower(), "Foreground")
        try:
            await self._cluster.delete(live, propagation=propagation)
        except (ApiError, NoMatchError) as error:
            if _is_gone(error):
                return
            raise
        if annotation(inputs, SKIP_AWAIT) == "true" and live["kind"] in _DELETES_UNAWAITED:
            return
        uid, shown, start = metadata(live).get("uid"), "", monotonic()
        try:
            async with asyncio.timeout(timeout):
                async for _ in self._polls(live):
                    try:
                        live = await self._cluster.get(live)
                        message = _remaining(live)
                    except (ApiError, NoMatchError, UnreachableError) as error:
                        if _is_gone(error):
                            return
                        message = f"Waiting for the API server: {error}"
                    if uid and metadata(live)["uid"] != uid:
                        return
                    if message != shown and monotonic() - start > _USUAL_DELETION:
                        await self._report(message)
                        shown = message
        except TimeoutError:
            problem = _remaining(live)
            raise NotReadyError(
                f"'{name_of(live)}' timed out waiting to be deleted: {problem}", live
            ) from None

    async def done(self) -> None:
        """Take the last line of progress away."""
        await self._report("")

    async def _apply(self, inputs: Object, *, manager: str, force: bool, preview: bool) -> Object:
        try:
            return await self._cluster.apply(inputs, manager=manager, force=force, dry_run=preview)
        except ApiError as error:
            if error.reason == "Conflict":
                raise ConflictError(manager, error) from error
            raise

    async def _related(self, rule: Rule, live: Object) -> Related:
        selector = rule.selector(live)
        return {
            kind: []
            if selector is None
            else await self._cluster.select(api_version, kind, namespace_of(live), selector)
            for api_version, kind in rule.related
        }

    async def _polls(self, obj: Object) -> AsyncIterator[None]:
        """Ticks without end, soon at first, then once a second."""
        pause = _FIRST_POLL
        while True:
            yield
            await self._pause(pause, obj)
            pause = min(pause * 1.3, _LONGEST_POLL)

    async def _pause(self, seconds: float, obj: Object) -> None:
        try:
            await asyncio.wait_for(self._cancelled.wait(), seconds)
        except TimeoutError:
            return
        raise NotReadyError(f"Resource operation was cancelled for '{name_of(obj)}'", obj)


def _is_gone(error: Exception) -> bool:
    return isinstance(error, NoMatchError) or (isinstance(error, ApiError) and error.code == 404)


def _unready(live: Object, judged: Readiness) -> NotReadyError:
    text = f"Resource '{name_of(live)}' was created but failed to initialize"
    return NotReadyError(text, live, judged.problems)


def _with_live(inputs: Object, live: Object, ignored: Iterable[str]) -> Object:
    """`inputs` with the live values at the ignored paths, so that applying them changes nothing there."""
    for text in ignored:
        inputs = _replaced(inputs, live, parse_path(text))
    return inputs


def _replaced(inputs: Any, live: Any, path: Sequence[str | int]) -> Any:
    if not path:
        return live
    key = path[0]
    if not isinstance(inputs, dict) or not isinstance(live, dict) or key not in live:
        return inputs
    return {**inputs, key: _replaced(inputs.get(key, {}), live[key], path[1:])}


def _remaining(obj: Object) -> str:
    """What keeps an object from going."""
    conditions = obj.get("status", {}).get("conditions") or []
    reasons = [
        item["message"]
        for item in conditions
        if item["type"].startswith("Namespace") and item["status"] == "True"
    ]
    finalizers = [*(metadata(obj).get("finalizers") or []), *(obj.get("spec", {}).get("finalizers") or [])]
    if not reasons and finalizers:
        reasons = [f"finalizers might be preventing deletion ({', '.join(map(str, finalizers))})"]
    return "; ".join(reasons) or "Waiting for deletion"
