"""A private network."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import ClassVar

from lab.plugins.digitalocean.api import ApiError
from lab.plugins.digitalocean.resource import Data, Operation, Resource, crash, given
from lab.plugins.digitalocean.schema import Field, Fields, cidr, lengths, name_field, not_empty, output
from lab.plugins.digitalocean.waits import Failed

BUSY = (HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT)
"""How the API refuses to delete one that has members still, or that is its region's default."""


class Vpc(Resource):
    """A network of a region. Its deletion waits, two minutes by default, for the last member to leave."""

    token = "digitalocean:index/vpc:Vpc"
    timeouts: ClassVar[Mapping[str, float]] = {"delete": 120.0}
    fields: ClassVar[Fields] = {
        "name": name_field(),
        "region": Field(type="string", required=True, replaces=True, check=not_empty),
        "description": Field(type="string", check=lengths(0, 255)),
        "ipRange": Field(type="string", computed=True, replaces=True, check=cidr),
        "vpcUrn": output("string"),
        "default": output("boolean"),
        "createdAt": output("string"),
    }

    def __init__(self) -> None:
        self._creating: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def create(self, operation: Operation, data: Data) -> None:
        """Make it; one at a time in a region, so that the API hands out no range twice."""
        body = given(
            name=data["name"],
            region=data["region"],
            description=data["description"],
            ip_range=data["ipRange"],
        )
        async with self._creating[data["region"]]:
            answer = await operation.call("Error creating VPC", "vpcs.create", body=body)
        data.id = answer["vpc"]["id"]
        await self.read(operation, data)

    async def read(self, operation: Operation, data: Data) -> None:
        """Take all of it from the API."""
        answer = await operation.find("Error reading VPC", "vpcs.get", data.id)
        if answer is None:
            data.id = ""
            return
        vpc = answer["vpc"]
        data.values |= {
            "name": vpc["name"],
            "region": vpc["region"],
            "description": vpc.get("description") or "",
            "ipRange": vpc["ip_range"],
            "vpcUrn": vpc.get("urn") or "",
            "default": bool(vpc.get("default")),
            "createdAt": _go_time(vpc["created_at"]),
        }

    async def update(self, operation: Operation, data: Data) -> None:
        """Rename it or describe it anew."""
        if data.changed("name", "description"):
            body = given(name=data["name"], description=data["description"])
            body["default"] = bool(data["default"])
            await operation.call("Error updating VPC ", "vpcs.update", data.id, body=body)
        await self.read(operation, data)

    async def delete(self, operation: Operation, data: Data) -> None:
        """Delete it as soon as the API lets it go."""

        async def attempt() -> ApiError | None:
            try:
                await operation.api.call("vpcs.delete", data.id)
            except ApiError as error:
                if error.status in BUSY:
                    return error
                if error.status is None:
                    raise crash(f"Error deleting VPC: {error}") from error
                raise Failed(f"Error deleting VPC: {error}") from error
            return None

        await operation.deadline.retry(attempt, operation.seconds)


def _go_time(text: str) -> str:
    """An RFC 3339 time as Go prints one: 2026-11-28 08:00:00 +0000 UTC."""
    time = datetime.fromisoformat(text).astimezone(UTC)
    fraction = f".{time.microsecond:06d}".rstrip("0") if time.microsecond else ""
    return f"{time:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"
