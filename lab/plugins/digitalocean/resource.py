"""What every resource type of the stand-in is made of."""

from __future__ import annotations

from abc import ABC
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar

from pulumi.provider.experimental.provider import CheckFailure

from lab.plugins.digitalocean.api import Api, ApiError, Json
from lab.plugins.digitalocean.schema import Fields, Plan, Values
from lab.plugins.digitalocean.waits import ACTION, Deadline, Failed, Wait

TIMEOUT_SECONDS = 20 * 60.0
"""Of an operation for which a resource type has no other, and which no custom timeout changes then."""


@dataclass(kw_only=True)
class Data:
    """A resource during an operation. What it holds when that fails is what the state keeps.

    Of an update these are the new values even where it failed: the official plugin has it so.
    """

    values: Values
    """By property; None where nothing is known."""
    id: str = ""
    """Empty until it is made, and again when it is found to be gone."""
    plan: Plan | None = None

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name)

    def changed(self, *names: str) -> bool:
        """Whether the update changes one of these properties."""
        return self.plan is not None and self.plan.changed(*names)

    def given(self, name: str) -> Any:
        """What the program gave: the state may have it in another form, such as a digest."""
        given = None if self.plan is None else self.plan.inputs.get(name)
        return self[name] if given is None else given

    def new(self, name: str) -> Any:
        """What the update makes of it, whatever the API has said meanwhile."""
        return None if self.plan is None else self.plan.values[name]

    def old(self, name: str) -> Any:
        """What the state had before the update."""
        return None if self.plan is None else self.plan.old.get(name)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One create, read, update or delete: the API and the time that is left."""

    api: Api
    deadline: Deadline
    seconds: float
    """How long the whole may take."""
    warnings: list[str] = field(default_factory=list)

    async def call(self, failure: str, operation: str, *arguments: Any, **options: Any) -> Json:
        """Call the API; `failure` begins the error's text."""
        try:
            return await self.api.call(operation, *arguments, **options)
        except ApiError as error:
            raise Failed(f"{failure}: {error}") from error

    async def find(self, failure: str, operation: str, *arguments: Any) -> Json | None:
        """Get something, or None where the API says that it is not there."""
        try:
            return await self.api.call(operation, *arguments)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise Failed(f"{failure}: {error}") from error

    async def wait_for(
        self,
        failure: str,
        ask: Callable[[], Awaitable[str | None]],
        wait: Wait,
        *,
        target: str,
        pending: Collection[str],
    ) -> None:
        """Ask until the answer is `target`; `failure` begins the error's text."""
        try:
            await self.deadline.wait_for(ask, wait, target=target, pending=pending)
        except Failed as error:
            raise type(error)(f"{failure}: {error}") from error

    async def wait_for_action(self, failure: str, action: Json) -> None:
        """Wait until an action of the API has completed, which its time says and not its status."""

        async def ask() -> str:
            found = (await self.call("Error retrieving action", "actions.get", action["id"]))["action"]
            if found["status"] == "errored":
                return "errored"
            return "completed" if found.get("completed_at") is not None else "in-progress"

        await self.wait_for(failure, ask, ACTION, target="completed", pending={"in-progress"})


class Resource(ABC):
    """A resource type. What an operation learns goes into its Data; what goes wrong is raised as Failed."""

    token: ClassVar[str]
    fields: ClassVar[Fields]
    timeouts: ClassVar[Mapping[str, float]] = {}
    """Seconds by operation, where a custom timeout counts."""
    schema_version: ClassVar[int] = 0
    """Of the state. The official plugin, should it come later, takes one without for the oldest."""

    def check(self, inputs: Mapping[str, Any]) -> Iterator[CheckFailure]:
        """What is wrong with inputs that are right one by one."""
        return iter(())

    def review(self, plan: Plan) -> None:  # noqa: B027 - most types have nothing to add
        """Refuse a plan, or change what follows from it."""

    async def create(self, operation: Operation, data: Data) -> None:
        """Make it."""
        raise NotImplementedError

    async def read(self, operation: Operation, data: Data) -> None:
        """Take from the API what it says today."""
        raise NotImplementedError

    async def update(self, operation: Operation, data: Data) -> None:
        """Make it what the data say."""
        raise NotImplementedError

    async def delete(self, operation: Operation, data: Data) -> None:
        """End it."""
        raise NotImplementedError


def given(**values: Any) -> Json:
    """A request's body without what is empty: the official plugin's client leaves that out."""
    return {key: value for key, value in values.items() if value}


def crash(cause: str) -> Failed:
    """Where the official plugin ends with a panic, and every other operation of the run with it."""
    return Failed(f"{cause} (the official plugin 4.76.0 crashes here)")
