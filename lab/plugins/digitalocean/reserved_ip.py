"""A public address that stays when its droplet goes, and which droplet has it."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import ClassVar

from lab.plugins.digitalocean.api import ApiError, Json
from lab.plugins.digitalocean.resource import Data, Operation, Resource, crash
from lab.plugins.digitalocean.schema import Field, Fields, ipv4, not_empty, output
from lab.plugins.digitalocean.waits import ACTION, Failed, Wait

NO_EVENTS = Wait(seconds=120, delay=3, least_step=2)
"""For a droplet to have no pending event, while which it takes no address."""


class ReservedIp(Resource):
    """An address in a region, given to a droplet or to none."""

    token = "digitalocean:index/reservedIp:ReservedIp"
    fields: ClassVar[Fields] = {
        "region": Field(type="string", required=True, replaces=True, stored=str.lower),
        "ipAddress": Field(type="string", computed=True, check=ipv4),
        "dropletId": Field(type="integer"),
        "reservedIpUrn": output("string"),
    }

    async def create(self, operation: Operation, data: Data) -> None:
        """Reserve it, then give it to the droplet."""
        answer = await operation.call(
            "Error creating reserved IP", "reserved_ips.create", body={"region": data.given("region")}
        )
        data.id = answer["reserved_ip"]["ip"]
        if data["dropletId"]:
            await _assign(operation, data.id, data["dropletId"])
        await self.read(operation, data)

    async def read(self, operation: Operation, data: Data) -> None:
        """Take it from the API; one that the program gives to no droplet may have one."""
        answer = await operation.find("Error retrieving reserved IP", "reserved_ips.get", data.id)
        if answer is None:
            data.id = ""
            return
        reserved = answer["reserved_ip"]
        droplet = reserved.get("droplet")
        if data["dropletId"] and droplet is not None:
            data.values |= {"region": droplet["region"]["slug"], "dropletId": droplet["id"]}
        elif reserved.get("region") is None:
            raise crash("the API's answer has a reserved IP without a region")
        else:
            data.values["region"] = reserved["region"]["slug"]
        data.values |= {
            "ipAddress": reserved["ip"],
            "reservedIpUrn": f"do:reservedip:{reserved['ip']}",
        }

    async def update(self, operation: Operation, data: Data) -> None:
        """Give it to another droplet, or take it from the one that has it."""
        if data.changed("dropletId"):
            if data["dropletId"]:
                await _assign(operation, data.id, data["dropletId"])
            else:
                await _unassign(operation, data.id)
        await self.read(operation, data)

    async def delete(self, operation: Operation, data: Data) -> None:
        """Take it from its droplet and give it back; one that is gone already is an error."""
        if data["dropletId"]:
            failure = f"Error unassigning reserved IP ({data.id}) from the droplet"
            try:
                action = await _act(operation, data.id, {"type": "unassign"})
            except ApiError as error:
                if error.status is None:
                    raise crash(f"{failure}: {error}") from error
                if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                    raise Failed(f"{failure}: {error}") from error
            else:
                await _done(operation, data.id, action, None)
        await operation.call("Error deleting reserved IP", "reserved_ips.delete", data.id)


class ReservedIpAssignment(Resource):
    """That a droplet has a reserved address."""

    token = "digitalocean:index/reservedIpAssignment:ReservedIpAssignment"
    fields: ClassVar[Fields] = {
        "ipAddress": Field(type="string", required=True, replaces=True, check=ipv4),
        "dropletId": Field(type="integer", required=True, replaces=True, check=not_empty),
    }

    async def create(self, operation: Operation, data: Data) -> None:
        """Give the address to the droplet."""
        await _assign(operation, data["ipAddress"], data["dropletId"])
        data.id = f"{data['dropletId']}-{data['ipAddress']}-{secrets.token_hex(13)}"
        await self.read(operation, data)

    async def read(self, operation: Operation, data: Data) -> None:
        """Find whether the droplet has it still; an address that is gone is an error."""
        if await _holder(operation, data["ipAddress"]) != data["dropletId"]:
            data.id = ""

    async def delete(self, operation: Operation, data: Data) -> None:
        """Take the address from the droplet, if that has it still."""
        address = data["ipAddress"]
        holder = await _holder(operation, address)
        if holder is None:
            raise crash(f"Error unassigning reserved IP ({address}): no droplet has it")
        if holder == data["dropletId"]:
            await _unassign(operation, address)


async def _holder(operation: Operation, address: str) -> int | None:
    found = await operation.call("Error retrieving reserved IP", "reserved_ips.get", address)
    droplet = found["reserved_ip"].get("droplet")
    return None if droplet is None else int(droplet["id"])


async def _assign(operation: Operation, address: str, droplet: int) -> None:
    async def ask() -> str:
        failure = f"Error retrieving droplet ({droplet}) actions"
        found = await operation.call(failure, "droplet_actions.list", droplet, per_page=50)
        busy = any(action["status"] not in ("completed", "errored") for action in found["actions"])
        return "waiting" if busy else "ready"

    failure = f"Error waiting for droplet ({droplet}) to be ready for reserved IP assign"
    await operation.wait_for(failure, ask, NO_EVENTS, target="ready", pending={"waiting"})
    try:
        action = await _act(operation, address, {"type": "assign", "droplet_id": droplet})
    except ApiError as error:
        raise Failed(f"Error Assigning reserved IP ({address}) to the Droplet: {error}") from error
    await _done(operation, address, action, droplet)


async def _unassign(operation: Operation, address: str) -> None:
    try:
        action = await _act(operation, address, {"type": "unassign"})
    except ApiError as error:
        raise Failed(f"Error unassigning reserved IP ({address}): {error}") from error
    await _done(operation, address, action, None)


async def _act(operation: Operation, address: str, body: Json) -> Json:
    action: Json = (await operation.api.call("reserved_ips_actions.post", address, body=body))["action"]
    return action


async def _done(operation: Operation, address: str, action: Json, droplet: int | None) -> None:
    """Wait until the action has completed or, where nobody knows it, `droplet` has the address."""

    async def ask() -> str | None:
        failure = f"Error retrieving reserved IP ({address}) ActionId ({action['id']})"
        found = await operation.find(failure, "reserved_ips_actions.get", address, action["id"])
        if found is not None:
            return str(found["action"]["status"])
        reserved = await operation.find(failure, "reserved_ips.get", address)
        holder = (reserved or {}).get("reserved_ip", {}).get("droplet")
        there = reserved is not None and (holder["id"] if holder else None) == droplet
        return "completed" if there else None

    done = "unassigned" if droplet is None else "assigned"
    failure = f"Error waiting for reserved IP ({address}) to be {done}"
    await operation.wait_for(failure, ask, ACTION, target="completed", pending={"new", "in-progress"})
