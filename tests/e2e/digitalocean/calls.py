"""What is asked and what is answered, apart from HTTP: a call, its body as a model, an answer, a refusal."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Strict, ValidationError

Json = dict[str, Any]
T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

DEFAULT_PER_PAGE = 20
MOST_PER_PAGE = 200
NOT_FOUND = "The resource you requested could not be found."
ERROR_IDS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    412: "precondition_failed",
    422: "unprocessable_entity",
    429: "too_many_requests",
    500: "server_error",
    503: "service_unavailable",
}


class Body(BaseModel):
    """What a request may hold. Another key, or a number as text, is a mistake of ours and not let pass."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# godo sends null for a list that nobody filled.
Many = Annotated[tuple[T, ...], BeforeValidator(lambda value: () if value is None else value), Strict(False)]


class Refused(Exception):
    """An answer that is an error: status, message, and the seconds after which to ask again (429)."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message
        self.retry_after = retry_after


def missing() -> Refused:
    """Of an object that is not there."""
    return Refused(404, NOT_FOUND)


def invalid(field: str, message: str) -> Refused:
    """Of a value that is wrong; the message begins with its field."""
    return Refused(422, f"{field}: {message}")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A status, and a body unless it is 204."""

    status: int = 200
    body: Json | None = None


NOTHING = Answer(status=204)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that has been let in. `scopes` are its token's; None: all."""

    origin: str
    path: str
    arguments: dict[str, str]
    query: dict[str, str]
    content: bytes
    scopes: Collection[str] | None

    def may(self, scope: str) -> bool:
        return self.scopes is None or scope in self.scopes

    def number(self, name: str) -> int:
        """An argument of the path that is a number. Any other text is no object's id, so it is a 404."""
        text = self.arguments[name]
        if not (text.isascii() and text.isdecimal()):
            raise missing()
        return int(text)

    def read(self, model: type[Model]) -> Model:
        """The body, or a refusal that names the first wrong field."""
        try:
            return model.model_validate_json(self.content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "json_invalid":
                raise Refused(400, f"unable to parse the request's body: {first['msg']}") from error
            where = ".".join(map(str, first["loc"]))
            what = first["msg"].removeprefix("Value error, ")
            raise Refused(422, f"{where}: {what}" if where else what) from error

    def listed(self, noun: str, items: Sequence[T], show: Callable[[T], Any]) -> Answer:
        """A page of a list, with links to the others."""
        per_page = self._positive("per_page", DEFAULT_PER_PAGE, MOST_PER_PAGE)
        page = self._positive("page", 1, None)
        last = max(1, math.ceil(len(items) / per_page))
        links: Json = {}
        if last > 1:
            backward = {"first": 1, "prev": min(page - 1, last)} if page > 1 else {}
            forward = {"next": page + 1, "last": last} if page < last else {}
            links = {"pages": {name: self._page(number) for name, number in (backward | forward).items()}}
        start = (page - 1) * per_page
        shown = [show(item) for item in items[start : start + per_page]]
        return Answer(body={noun: shown, "links": links, "meta": {"total": len(items)}})

    def _page(self, number: int) -> str:
        return f"{self.origin}{self.path}?{urlencode({**self.query, 'page': number})}"

    def _positive(self, name: str, default: int, most: int | None) -> int:
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= (most or int(text)):
            raise invalid(name, f"must be a number from 1{f' to {most}' if most else ''}")
        return int(text)


@dataclass(frozen=True)
class Route:
    """Who answers which method and path (`/v2/droplets/{id}`), and the scope that a token needs."""

    method: str
    path: str
    answer: Callable[[Any, Call], Answer]
    scope: str
    slow: bool = field(default=False, kw_only=True)
    """Calls the machinery itself, so it takes the account's lock only where it must."""
