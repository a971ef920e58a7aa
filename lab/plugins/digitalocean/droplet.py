"""A machine."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from pulumi.provider.experimental.provider import CheckFailure

from lab.plugins.common import UNKNOWN
from lab.plugins.digitalocean.api import ApiError, Json
from lab.plugins.digitalocean.resource import Data, Operation, Resource, crash, given
from lab.plugins.digitalocean.schema import (
    Field,
    Fields,
    Plan,
    between,
    name_field,
    not_empty,
    one_of,
    output,
    sequence,
    tags_field,
)
from lab.plugins.digitalocean.tag import retag
from lab.plugins.digitalocean.waits import Failed, Wait

GONE = "Not Found"
GONE_WAIT = Wait(seconds=60, delay=10, least_step=3)
"""After DELETE, whatever a custom timeout says."""

POLICY_ALONE = "backup_policy can only be set when backups are enabled"


@dataclass(frozen=True)
class Awaited:
    """What a droplet's attribute shall become, and what it may be until then."""

    attribute: str
    target: str
    pending: Collection[str]


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Droplet(Resource):
    """A machine of an image and a size. It is waited for until the API has it active and unlocked.

    What the API never tells again stays as it was given: image, SSH keys, user data, the agent.
    """

    token = "digitalocean:index/droplet:Droplet"
    schema_version = 1
    timeouts: ClassVar[Mapping[str, float]] = {"create": 3600.0, "update": 3600.0, "delete": 60.0}
    fields: ClassVar[Fields] = {
        "image": Field(type="string", required=True, replaces=True, check=not_empty),
        "name": name_field(),
        "region": Field(type="string", computed=True, replaces=True, check=not_empty, stored=str.lower),
        "size": Field(type="string", required=True, check=not_empty, stored=str.lower),
        "gracefulShutdown": Field(type="boolean", default=False),
        "resizeDisk": Field(type="boolean", default=True),
        "backups": Field(type="boolean", default=False),
        "backupPolicy": Field(
            type="object",
            fields={
                "plan": Field(type="string", check=one_of("daily", "weekly")),
                "weekday": Field(
                    type="string", check=one_of("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
                ),
                "hour": Field(type="integer", check=between(0, 20)),
            },
        ),
        "ipv6": Field(type="boolean", default=False),
        "ipv6Address": Field(type="string", computed=True),
        "privateNetworking": Field(type="boolean", computed=True),
        "publicNetworking": Field(type="boolean", computed=True, replaces=True),
        "sshKeys": sequence("set", "string", not_empty)(replaces=True),
        "userData": Field(type="string", replaces=True, check=not_empty, stored=_digest),
        "volumeIds": sequence("set", "string")(computed=True),
        "monitoring": Field(type="boolean", replaces=True, default=False),
        "dropletAgent": Field(type="boolean", replaces=True),
        "tags": tags_field(),
        "vpcUuid": Field(type="string", computed=True, replaces=True, check=not_empty),
        "createdAt": output("string"),
        "disk": output("integer"),
        "dropletUrn": output("string"),
        "ipv4Address": output("string"),
        "ipv4AddressPrivate": output("string"),
        "locked": output("boolean"),
        "memory": output("integer"),
        "priceHourly": output("number"),
        "priceMonthly": output("number"),
        "status": output("string"),
        "vcpus": output("integer"),
    }

    def check(self, inputs: Mapping[str, Any]) -> Iterator[CheckFailure]:
        """Refuse a policy for backups that nobody spoke of."""
        if inputs.get("backupPolicy") is not None and inputs.get("backups") is None:
            yield CheckFailure(
                "backupPolicy", "'backupPolicy': all of `backup_policy,backups` must be specified"
            )

    def review(self, plan: Plan) -> None:
        """IPv6 can be had later, and not be given back."""
        if plan.changed("ipv6"):
            if plan.old.get("ipv6"):
                plan.replace("ipv6")
            elif plan.values["ipv6"]:
                plan.values["ipv6Address"] = UNKNOWN

    async def create(self, operation: Operation, data: Data) -> None:
        """Order it and wait until it is active. One that the API does not find yet is waited for too."""
        answer = await operation.call("Error creating droplet", "droplets.create", body=_order(data))
        data.id = str(answer["droplet"]["id"])
        failure = f"Error waiting for droplet ({data.id}) to become ready"
        await _wait_for(operation, data, failure, Awaited("status", "active", {"new"}), missing=None)

    async def read(self, operation: Operation, data: Data) -> None:
        """Take from the API what it tells."""
        answer = await operation.find("Error retrieving droplet", "droplets.get", int(data.id))
        if answer is None:
            data.id = ""
            return
        _take(data, answer["droplet"])

    async def update(self, operation: Operation, data: Data) -> None:
        """Change it in place, one thing after another. Another size powers it off, hard, and on again."""
        if data.changed("size"):
            await _resize(operation, data)
        if data.changed("name"):
            await _rename(operation, data)
        if data.changed("backups"):
            await _set_backups(operation, data)
        if data.changed("backupPolicy") and data["backupPolicy"]:
            await _set_policy(operation, data)
        for name, action in (("privateNetworking", "private_networking"), ("ipv6", "ipv6")):
            if data.changed(name) and data[name]:
                failure = f"Error turning on {action} for droplet ({data.id})"
                await _act(operation, data, failure, f"enable_{action}")
                await _updated(operation, data, failure, Awaited(name, "true", {"", "false"}))
        if data.changed("tags"):
            await retag(operation, data.id, data.old("tags") or [], data.new("tags") or [])
        if data.changed("volumeIds"):
            old, new = {*(data.old("volumeIds") or [])}, {*(data.new("volumeIds") or [])}
            for volume in sorted(new - old):
                await _move_volume(operation, data, volume, "attach")
            for volume in sorted(old - new):
                await _move_volume(operation, data, volume, "detach")
        await self.read(operation, data)

    async def delete(self, operation: Operation, data: Data) -> None:
        """Delete it once it is unlocked, and wait until it is gone.

        One that is gone before fails. What the API has against it only shows in the wait for its end.
        """
        number = int(data.id)
        failure = f"Error waiting for droplet to be unlocked for destroy ({data.id})"
        await _wait_for(operation, data, failure, Awaited("locked", "false", {"", "true"}), GONE)
        if data["gracefulShutdown"]:
            await _act(operation, data, f"Error shutting down the the droplet ({data.id})", "shutdown")
            failure = f"Error waiting for droplet ({data.id}) to become off"
            await _wait_for(operation, data, failure, Awaited("status", "off", {"active"}), GONE)
        for volume in data["volumeIds"] or []:
            await _move_volume(operation, data, volume, "detach")
        try:
            await operation.api.call("droplets.destroy", number)
        except ApiError as error:
            if error.status is None:
                raise crash(f"Error deleting droplet: {error}") from error
            if error.status == HTTPStatus.NOT_FOUND:
                return
        ask = _asker(operation, data, "status", GONE)
        await operation.wait_for(
            "Error deleting droplet", ask, GONE_WAIT, target=GONE, pending={"active", "off"}
        )


async def _resize(operation: Operation, data: Data) -> None:
    size, disk = data.given("size"), bool(data["resizeDisk"])
    number = int(data.id)
    try:
        await operation.api.call("droplet_actions.post", number, body={"type": "power_off"})
    except ApiError as error:
        if "Droplet is already powered off" not in str(error):
            raise Failed(f"Error powering off droplet ({data.id}): {error}") from error
    failure = f"Error waiting for droplet ({data.id}) to become powered off"
    await _updated(operation, data, failure, Awaited("status", "off", {"active"}))
    try:
        failure = f"Error resizing droplet ({data.id})"
        action = await _act(operation, data, failure, "resize", size=size, disk=disk)
        failure = f"Error waiting for resize droplet ({data.id}) to finish"
        await operation.wait_for_action(failure, action)
    except Failed as error:
        try:
            await _power_on(operation, data)
        except Failed as other:
            raise Failed(f"Error powering on droplet ({data.id}) after failed resize: {error}") from other
        raise
    await _power_on(operation, data)


async def _power_on(operation: Operation, data: Data) -> None:
    failure = f"Error powering on droplet ({data.id}) after resize"
    await _act(operation, data, failure, "power_on")
    await _updated(operation, data, failure, Awaited("status", "active", {"off"}))


async def _rename(operation: Operation, data: Data) -> None:
    name = data.new("name")
    await _act(operation, data, f"Error renaming droplet ({data.id})", "rename", name=name)
    failure = f"Error waiting for rename droplet ({data.id}) to finish"
    await _updated(operation, data, failure, Awaited("name", name, {"", data.old("name")}))


async def _updated(operation: Operation, data: Data, failure: str, awaited: Awaited) -> None:
    missing = Failed(f"droplet ({data.id}) not found during update")
    await _wait_for(operation, data, failure, awaited, missing)


async def _wait_for(
    operation: Operation, data: Data, failure: str, awaited: Awaited, missing: str | Failed | None
) -> None:
    """Wait as long as the operation may take; `missing` as for `_asker`."""
    wait = Wait(seconds=operation.seconds, delay=10, least_step=3, absences=120)
    ask = _asker(operation, data, awaited.attribute, missing)
    await operation.wait_for(failure, ask, wait, target=awaited.target, pending=awaited.pending)


def _asker(
    operation: Operation, data: Data, attribute: str, missing: str | Failed | None
) -> Callable[[], Awaitable[str | None]]:
    """A question for an attribute, which a locked droplet does not answer.

    `missing` is the answer, or the error, where there is no such droplet.
    """

    async def ask() -> str | None:
        answer = await operation.find("Error retrieving droplet", "droplets.get", int(data.id))
        if answer is None:
            if isinstance(missing, Failed):
                raise missing
            return missing
        _take(data, answer["droplet"])
        if data["locked"]:
            return None
        value = data[attribute]
        return str(value).lower() if isinstance(value, bool) else value

    return ask


def _order(data: Data) -> Json:
    """The request for a new droplet, where null is what the official plugin's client sends for no keys."""
    backups, policy = bool(data["backups"]), data["backupPolicy"]
    if policy and not backups:
        raise Failed(POLICY_ALONE)
    image = data["image"]
    body: Json = {
        "name": data["name"],
        "region": data.given("region") or "",
        "size": data.given("size"),
        "image": int(image) if image.isdecimal() else image,
        "ssh_keys": [int(key) if key.isdecimal() else key for key in sorted(data["sshKeys"] or [])] or None,
        "backups": backups,
        "ipv6": bool(data["ipv6"]),
        "private_networking": bool(data["privateNetworking"]),
        "monitoring": bool(data["monitoring"]),
        "tags": sorted(data["tags"] or []),
    }
    volumes = [{"id": volume} for volume in data["volumeIds"] or [] if volume]
    body |= given(user_data=data.given("userData"), volumes=volumes, vpc_uuid=data["vpcUuid"])
    if policy:
        body["backup_policy"] = _policy(policy)
    if data["dropletAgent"] is not None:
        body["with_droplet_agent"] = data["dropletAgent"]
    if data["publicNetworking"] is False:
        body["public_networking"] = False
    return body


def _policy(policy: Json) -> Json:
    return given(plan=policy.get("plan"), weekday=policy.get("weekday")) | {"hour": policy.get("hour") or 0}


def _take(data: Data, droplet: Json) -> None:
    """Take what the API tells of a droplet. It is not the image: a slug means another one every month."""
    for part in ("region", "size", "networks"):
        if droplet.get(part) is None:
            raise crash(f"the API's answer has a droplet without {part}")
    public = _address(droplet, "v4", "public")
    data.values |= {
        "name": droplet["name"],
        "dropletUrn": f"do:droplet:{droplet['id']}",
        "region": droplet["region"]["slug"],
        "size": droplet["size"]["slug"],
        "priceHourly": droplet["size"].get("price_hourly") or 0.0,
        "priceMonthly": droplet["size"].get("price_monthly") or 0.0,
        "disk": droplet["disk"],
        "vcpus": droplet["vcpus"],
        "memory": droplet["memory"],
        "status": droplet["status"],
        "locked": bool(droplet.get("locked")),
        "createdAt": droplet["created_at"],
        "vpcUuid": droplet.get("vpc_uuid") or "",
        "ipv4Address": public,
        "ipv4AddressPrivate": _address(droplet, "v4", "private"),
        "ipv6Address": _address(droplet, "v6", "public").lower(),
        "publicNetworking": bool(public),
        "volumeIds": sorted(droplet.get("volume_ids") or []),
        "tags": sorted(droplet.get("tags") or []),
    }
    features = droplet.get("features")
    if features is not None:
        data.values |= {
            "backups": "backups" in features,
            "ipv6": "ipv6" in features,
            "privateNetworking": "private_networking" in features,
            "monitoring": "monitoring" in features,
        }


def _address(droplet: Json, version: str, kind: str) -> str:
    for network in droplet["networks"].get(version) or []:
        if network["type"] == kind:
            try:
                ipaddress.ip_address(network["ip_address"])
            except ValueError:
                continue
            return str(network["ip_address"])
    return ""


async def _act(operation: Operation, data: Data, failure: str, kind: str, **settings: Any) -> Json:
    body = {"type": kind} | settings
    action: Json = (await operation.call(failure, "droplet_actions.post", int(data.id), body=body))["action"]
    return action


async def _set_backups(operation: Operation, data: Data) -> None:
    policy = data["backupPolicy"]
    if data["backups"]:
        word, kind, settings = "enabl", "enable_backups", {"backup_policy": _policy(policy)} if policy else {}
    elif policy:
        raise Failed(POLICY_ALONE)
    else:
        word, kind, settings = "disabl", "disable_backups", {}
    action = await _act(operation, data, f"Error {word}ing backups on droplet ({data.id})", kind, **settings)
    failure = f"Error waiting for backups to be {word}ed for droplet ({data.id})"
    await operation.wait_for_action(failure, action)


async def _set_policy(operation: Operation, data: Data) -> None:
    if not data["backups"]:
        raise Failed(POLICY_ALONE)
    failure = f"error changing backup policy on droplet ({data.id})"
    policy = _policy(data.new("backupPolicy"))
    action = await _act(operation, data, failure, "change_backup_policy", backup_policy=policy)
    await operation.wait_for_action(failure, action)


async def _move_volume(operation: Operation, data: Data, volume: str, way: str) -> None:
    failure = f'Error {way}ing volume "{volume}" to droplet ({data.id})'
    body = {"type": way, "droplet_id": int(data.id)}
    answer = await operation.call(failure, "volume_actions.post_by_id", volume, body=body)
    await operation.wait_for_action(failure, answer["action"])
