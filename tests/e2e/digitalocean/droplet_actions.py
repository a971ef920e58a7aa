"""What can be done to a droplet: power, size, name, image and features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from pydantic import Field, RootModel

from tests.e2e.digitalocean import actions, droplets
from tests.e2e.digitalocean.account import Account, Action, Droplet
from tests.e2e.digitalocean.calls import (
    Answer,
    Body,
    Call,
    Refused,
    Route,
    invalid,
)
from tests.e2e.digitalocean.droplets import BackupPolicy, HostName

POWER: dict[str, tuple[Literal["on", "off", "cycle", "reboot"], Literal["active", "off"]]] = {
    "power_on": ("on", "active"),
    "power_off": ("off", "off"),
    "shutdown": ("off", "off"),
    "power_cycle": ("cycle", "active"),
    "reboot": ("reboot", "active"),
}


class _Power(Body):
    type: Literal["reboot", "power_cycle", "shutdown", "power_off", "power_on"]


class _Resize(Body):
    type: Literal["resize"]
    size: str
    disk: bool = False


class _Rename(Body):
    type: Literal["rename"]
    name: HostName


class _Rebuild(Body):
    type: Literal["rebuild"]
    image: str | int


class _Switch(Body):
    type: Literal["enable_ipv6", "disable_backups"]


class _Backups(Body):
    type: Literal["enable_backups", "change_backup_policy"]
    backup_policy: BackupPolicy | None = None


class _Action(
    RootModel[
        Annotated[_Power | _Resize | _Rename | _Rebuild | _Switch | _Backups, Field(discriminator="type")]
    ]
):
    """Any of them. Not offered here: snapshot, restore, password_reset, change_kernel."""


def _act(account: Account, call: Call) -> Answer:
    droplet, body = droplets.find(account, call), call.read(_Action).root
    droplets.check_idle(account, droplet)
    match body:
        case _Power():
            action = _power(account, droplet, body.type)
        case _Resize():
            action = _resize(account, droplet, body)
        case _Rename():
            action = _change(account, droplet, body.type, partial(setattr, droplet, "name", body.name))
        case _Rebuild():
            action = _rebuild(account, droplet, droplets.find_image(body.image))
        case _Switch(type="enable_ipv6"):
            action = _change(account, droplet, body.type, partial(_enable_ipv6, droplet))
        case _Switch():
            action = _change(account, droplet, body.type, partial(droplet.features.discard, "backups"))
        case _Backups():
            action = _change(account, droplet, body.type, partial(droplet.features.add, "backups"))
    return Answer(status=201, body={"action": actions.show(action)})


def _change(account: Account, droplet: Droplet, kind: str, finish: Callable[[], None]) -> Action:
    return droplets.start(account, droplet, kind, finish=finish, seconds=account.delays.action)


def _power(account: Account, droplet: Droplet, kind: str) -> Action:
    button, becomes = POWER[kind]
    status = droplets.status_of(account, droplet)
    if (kind == "power_on" and status == "active") or (becomes == "off" and status == "off"):
        raise Refused(422, f"Droplet is already powered {button}.")
    if kind == "reboot" and status == "off":
        raise Refused(422, "Droplet is powered off.")
    return droplets.start(
        account,
        droplet,
        kind,
        work=partial(account.machinery.power, droplet.id, button),
        finish=partial(setattr, droplet, "status", becomes),
        seconds=account.delays.action,
    )


def _resize(account: Account, droplet: Droplet, body: _Resize) -> Action:
    size = droplets.find_size(body.size, droplet.region)
    if droplets.status_of(account, droplet) != "off":
        raise Refused(422, "Droplet must be powered off to be resized.")
    if size.slug == droplet.size:
        raise invalid("size", "This Droplet is already this size.")
    if size.disk < droplet.disk:
        raise invalid("size", "This size is not available because it has a smaller disk.")

    def finish() -> None:
        droplet.size = size.slug
        if body.disk:
            droplet.disk = size.disk

    return _change(account, droplet, body.type, finish)


def _rebuild(account: Account, droplet: Droplet, image: int) -> Action:
    droplet.made = False

    def work() -> None:
        account.follow(account.change())
        account.machinery.remove(droplet.id)
        droplets.make(account, droplet)

    def finish() -> None:
        droplet.image, droplet.status = image, "active"

    return droplets.start(
        account, droplet, "rebuild", work=work, finish=finish, seconds=account.delays.action
    )


def _enable_ipv6(droplet: Droplet) -> None:
    droplet.ipv6 = str(droplets.IPV6[droplet.id])
    droplet.features.add("ipv6")


def _list(account: Account, call: Call) -> Answer:
    return actions.listed(account, call, droplets.find(account, call).id)


def _get(account: Account, call: Call) -> Answer:
    return actions.one(account, call, droplets.find(account, call).id)


ROUTES = (
    Route("POST", "/v2/droplets/{droplet_id}/actions", _act, "droplet:update"),
    Route("GET", "/v2/droplets/{droplet_id}/actions", _list, "droplet:read"),
    Route("GET", "/v2/droplets/{droplet_id}/actions/{action_id}", _get, "droplet:read"),
)
