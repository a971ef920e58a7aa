"""A public key that droplets are made with."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

from lab.plugins.digitalocean.api import ApiError
from lab.plugins.digitalocean.resource import Data, Operation, Resource
from lab.plugins.digitalocean.schema import Field, Fields, name_field, not_empty, output
from lab.plugins.digitalocean.waits import Failed


class SshKey(Resource):
    """A key of the account, by which new droplets let someone in."""

    token = "digitalocean:index/sshKey:SshKey"
    timeouts: ClassVar[Mapping[str, float]] = {"create": 120.0}
    fields: ClassVar[Fields] = {
        "name": name_field(),
        "publicKey": Field(
            type="string",
            required=True,
            replaces=True,
            check=not_empty,
            same=lambda old, new, values: (old or "").strip() == (new or "").strip(),
        ),
        "fingerprint": output("string"),
    }

    async def create(self, operation: Operation, data: Data) -> None:
        """Make it, and wait until the API finds it."""
        body = {"name": data["name"], "public_key": data["publicKey"]}
        answer = await operation.call("Error creating SSH Key", "ssh_keys.create", body=body)
        number = answer["ssh_key"]["id"]
        data.id = str(number)

        async def attempt() -> ApiError | None:
            try:
                await operation.api.call("ssh_keys.get", number)
            except ApiError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return error
                raise Failed(str(error)) from error
            return None

        try:
            await operation.deadline.retry(attempt, operation.seconds)
        except Failed as error:
            raise Failed(f"Error retrieving SSH Key: {error}") from error
        await self.read(operation, data)

    async def read(self, operation: Operation, data: Data) -> None:
        """Take all of it from the API."""
        answer = await operation.find("Error retrieving SSH key", "ssh_keys.get", int(data.id))
        if answer is None:
            data.id = ""
            return
        key = answer["ssh_key"]
        data.values |= {
            "name": key["name"],
            "fingerprint": key["fingerprint"],
            "publicKey": key["public_key"],
        }

    async def update(self, operation: Operation, data: Data) -> None:
        """Rename it."""
        body = {"name": data["name"]}
        await operation.call("Failed to update SSH key", "ssh_keys.update", int(data.id), body=body)
        await self.read(operation, data)

    async def delete(self, operation: Operation, data: Data) -> None:
        """Delete it; one that is gone already is an error."""
        await operation.call("Error deleting SSH key", "ssh_keys.delete", int(data.id))
