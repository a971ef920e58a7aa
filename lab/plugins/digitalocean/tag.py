"""A tag, and what carries it."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from lab.plugins.digitalocean.resource import Data, Operation, Resource, crash
from lab.plugins.digitalocean.schema import Field, Fields, output, tag_name

COUNTED = {
    "droplets": "dropletsCount",
    "images": "imagesCount",
    "volumes": "volumesCount",
    "volume_snapshots": "volumeSnapshotsCount",
    "databases": "databasesCount",
}


class Tag(Resource):
    """A tag of the account. Its deletion takes it from everything that carries it."""

    token = "digitalocean:index/tag:Tag"
    fields: ClassVar[Fields] = {
        "name": Field(type="string", named=True, replaces=True, check=tag_name),
        "totalResourceCount": output("integer"),
        **{name: output("integer") for name in COUNTED.values()},
    }

    async def create(self, operation: Operation, data: Data) -> None:
        """Make it; the API gives one that is there as well."""
        answer = await operation.call("Error creating tag", "tags.create", body={"name": data["name"]})
        data.id = answer["tag"]["name"]
        await self.read(operation, data)

    async def read(self, operation: Operation, data: Data) -> None:
        """Take its name and its counts from the API."""
        answer = await operation.find("Error retrieving tag", "tags.get", data.id)
        if answer is None:
            data.id = ""
            return
        tag = answer["tag"]
        resources = tag.get("resources")
        if not resources or not all(resources.get(kind) for kind in COUNTED):
            raise crash("the API's answer counts no resources of the tag")
        data.values |= {
            "name": tag["name"],
            "totalResourceCount": resources.get("count", 0),
            **{name: resources[kind].get("count", 0) for kind, name in COUNTED.items()},
        }

    async def delete(self, operation: Operation, data: Data) -> None:
        """Delete it; one that is gone already is an error."""
        await operation.call("Error deleting tag", "tags.delete", data.id)


async def retag(operation: Operation, droplet: str, old: Collection[str], new: Collection[str]) -> None:
    """Take tags from a droplet and give it others, which are made where they are not there yet."""
    failure = "Error updating tags"
    body = {"resources": [{"resource_id": droplet, "resource_type": "droplet"}]}
    for tag in sorted({*old} - {*new}):
        await operation.call(failure, "tags.unassign_resources", tag, body=body)
    for tag in sorted({*new} - {*old}):
        made = await operation.call(failure, "tags.create", body={"name": tag})
        await operation.call(failure, "tags.assign_resources", made["tag"]["name"], body=body)
