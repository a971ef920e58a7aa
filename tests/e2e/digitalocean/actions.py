"""Actions: work on a droplet or a reserved IP that takes time."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Literal

from tests.e2e.digitalocean import catalogue
from tests.e2e.digitalocean.account import Account, Action, now
from tests.e2e.digitalocean.calls import Answer, Call, Json, Route, missing


def start(
    account: Account,
    kind: str,
    resource_type: Literal["droplet", "reserved_ip"],
    resource_id: int,
    region: str,
    *,
    work: Callable[[], None] = lambda: None,
    finish: Callable[[], None] = lambda: None,
    seconds: float,
) -> Action:
    """Starts an action. `work` is done without the account's lock, then `finish` with it.

    It takes those seconds at least. If its work fails it is `errored`, and whoever runs the API is told.
    """
    action = Action(
        id=account.new_id("action"),
        type=kind,
        resource_id=resource_id,
        resource_type=resource_type,
        region=region,
        started_at=now(),
    )
    account.actions[action.id] = action
    end = monotonic() + seconds

    def run() -> None:
        try:
            work()
        except Exception:
            with account.lock:
                action.end("errored")
            raise
        account.workers.pause(end - monotonic())
        account.workers.wait(lambda: not any(holds(action) for holds in account.held))
        with account.lock:
            finish()
            action.end("completed")
            account.change()

    account.workers.start(run)
    return action


def show(action: Action) -> Json:
    return {
        "id": action.id,
        "status": action.status,
        "type": action.type,
        "started_at": action.started_at,
        "completed_at": action.completed_at,
        "resource_id": action.resource_id,
        "resource_type": action.resource_type,
        "region": catalogue.show_region(action.region),
        "region_slug": action.region,
    }


def link(action: Action, call: Call, rel: str) -> Json:
    return {"id": action.id, "rel": rel, "href": f"{call.origin}/v2/actions/{action.id}"}


def listed(account: Account, call: Call, resource_id: int) -> Answer:
    """Those of a droplet or a reserved IP, newest first."""
    found = [action for action in account.actions.values() if action.resource_id == resource_id]
    return call.listed("actions", found[::-1], show)


def one(account: Account, call: Call, resource_id: int) -> Answer:
    """The one of them that the path names."""
    action = account.actions.get(call.number("action_id"))
    if action is None or action.resource_id != resource_id:
        raise missing()
    return Answer(body={"action": show(action)})


def _list(account: Account, call: Call) -> Answer:
    return call.listed("actions", [*account.actions.values()][::-1], show)


def _get(account: Account, call: Call) -> Answer:
    action = account.actions.get(call.number("action_id"))
    if action is None:
        raise missing()
    return Answer(body={"action": show(action)})


ROUTES = (
    Route("GET", "/v2/actions", _list, "actions:read"),
    Route("GET", "/v2/actions/{action_id}", _get, "actions:read"),
)
