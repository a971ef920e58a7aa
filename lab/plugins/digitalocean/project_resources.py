"""Membership of things in a project."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from lab.plugins.digitalocean.api import ApiError
from lab.plugins.digitalocean.resource import Data, Operation, Resource
from lab.plugins.digitalocean.schema import Field, Fields, not_empty, sequence
from lab.plugins.digitalocean.waits import Failed


class ProjectResources(Resource):
    """What is in a project, of the things that it lists; others in the project are left alone."""

    token = "digitalocean:index/projectResources:ProjectResources"
    fields: ClassVar[Fields] = {
        "project": Field(type="string", required=True, replaces=True, check=not_empty),
        "resources": sequence("set", "string")(required=True),
    }

    async def create(self, operation: Operation, data: Data) -> None:
        """Bring them into the project."""
        await self.update(operation, data)

    async def update(self, operation: Operation, data: Data) -> None:
        """Bring in what is new, and send what is not listed any more to the default project."""
        project = data["project"]
        failure = f"Error while retrieving project {project}"
        if await operation.find(failure, "projects.get", project) is None:
            data.id = ""
            return
        old, new = {*(data.old("resources") or [])}, {*data["resources"]}
        await _to_default(operation, old - new)
        failure = f"Error assigning resources to project {project}: Error assigning resources"
        await _assign(operation, failure, project, new - old)
        data.id = project
        await self.read(operation, data)

    async def read(self, operation: Operation, data: Data) -> None:
        """Find which of them are in it still."""
        if await operation.find("Error while retrieving project", "projects.get", data.id) is None:
            data.id = ""
            return
        try:
            found = await operation.api.pages("projects.list_resources", data.id, key="resources")
        except ApiError as error:
            raise Failed(f"Error while retrieving project resources: {error}") from error
        members = {resource["urn"] for resource in found}
        data.values |= {
            "project": data.id,
            "resources": sorted({*(data["resources"] or [])} & members),
        }

    async def delete(self, operation: Operation, data: Data) -> None:
        """Send them to the default project."""
        failure = "Error while retrieving project"
        if await operation.find(failure, "projects.get", data["project"]) is not None:
            await _to_default(operation, data["resources"] or [])


async def _to_default(operation: Operation, urns: Collection[str]) -> None:
    if urns:
        failure = "Error assigning resources to default project"
        default = await operation.call(f"{failure}: Error locating default project", "projects.get_default")
        await _assign(operation, failure, default["project"]["id"], urns)


async def _assign(operation: Operation, failure: str, project: str, urns: Collection[str]) -> None:
    wanted = sorted(urn for urn in urns if urn)
    if urns:
        await operation.call(failure, "projects.assign_resources", project, body={"resources": wanted})
