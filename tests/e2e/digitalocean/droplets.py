"""Droplets, from their order to their end."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tests.e2e.digitalocean import actions, asked, catalogue, keys, machinery, projects, tags, vpcs
from tests.e2e.digitalocean.account import Account, Action, Droplet, Member, Vpc, now
from tests.e2e.digitalocean.calls import (
    NOTHING,
    Answer,
    Body,
    Call,
    Json,
    Many,
    Refused,
    Route,
    invalid,
    missing,
)
from tests.e2e.digitalocean.tags import TagName

NAME = re.compile(r"[a-zA-Z0-9]?[a-zA-Z0-9.-]*[a-zA-Z0-9]")
MOST_NAMES = 10
MOST_USER_DATA = 64 * 1024
IPV6 = ipaddress.IPv6Network("2001:db8:1::/64")  # of documentation: nothing is there
PENDING = "Droplet already has a pending event."
OPTIONS = ("backups", "ipv6", "monitoring")
BACKUP_HOURS = timedelta(hours=23)


def _host_name(name: str) -> str:
    if len(name) > 255 or not NAME.fullmatch(name):
        raise ValueError("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
    return name


def _plain_text(text: str) -> str:
    if len(text.encode()) > MOST_USER_DATA:
        raise ValueError("must not exceed 64 KiB")
    return text


HostName = Annotated[str, AfterValidator(_host_name)]


class BackupPolicy(Body):
    plan: Literal["daily", "weekly"]
    weekday: Literal["", "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] = ""
    hour: Literal[0, 4, 8, 12, 16, 20] | None = None


class _Create(Body):
    name: HostName | None = None
    names: list[HostName] | None = Field(default=None, min_length=1, max_length=MOST_NAMES)
    region: str = ""
    size: str
    image: str | int
    ssh_keys: Many[str | int] = ()
    backups: bool = False
    backup_policy: BackupPolicy | None = None
    ipv6: bool = False
    private_networking: bool = False
    monitoring: bool = False
    tags: Many[TagName] = ()
    user_data: Annotated[str, AfterValidator(_plain_text)] = ""
    volumes: Annotated[Many[str], Field(max_length=0)] = ()  # there is none
    vpc_uuid: str = ""
    with_droplet_agent: bool | None = None
    public_networking: bool = True


@dataclass(frozen=True, kw_only=True)
class _Specification:
    size: catalogue.Size
    image: int
    authorized_keys: tuple[str, ...]


def vanish(account: Account, droplet_id: int) -> None:
    """Destroys a droplet at once. What is being made is removed as soon as it is there."""
    with account.lock:
        droplet = account.droplets[droplet_id]
        _forget(account, droplet)
        change = account.change()
    account.follow(change)
    if droplet.made:
        account.machinery.remove(droplet.id)


def show(account: Account, call: Call, droplet: Droplet) -> Json:
    """A droplet, but for what the token's scopes hide."""
    vpc = account.vpcs[droplet.vpc]
    private = {
        "ip_address": droplet.private,
        "netmask": vpc.pool.netmask,
        "gateway": "nil",  # so the OpenAPI description
        "type": "private",
    }
    public = {
        "ip_address": droplet.public,
        "netmask": account.public.netmask,
        "gateway": account.public.gateway,
        "type": "public",
    }
    ipv6 = {
        "ip_address": droplet.ipv6,
        "netmask": IPV6.prefixlen,
        "gateway": str(IPV6[1]),
        "type": "public",
    }
    known = droplet.status != "new"
    window = None
    if "backups" in droplet.features:
        start = datetime.fromisoformat(droplet.created_at).replace(hour=0, minute=0, second=0)
        window = {
            name: time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            for name, time in (("start", start), ("end", start + BACKUP_HOURS))
        }
    size = catalogue.SIZES[droplet.size]
    shown: Json = {
        "id": droplet.id,
        "name": droplet.name,
        "memory": size.memory,
        "vcpus": size.vcpus,
        "disk": droplet.disk,
        "disk_info": catalogue.show_disks(droplet.disk),
        "locked": droplet.going or account.running(droplet.id),
        "status": status_of(account, droplet),
        "kernel": None,
        "created_at": droplet.created_at,
        "features": sorted(droplet.features),
        "backup_ids": [],
        "next_backup_window": window,
        "snapshot_ids": [],
        "image": catalogue.show_image(droplet.image),
        "volume_ids": [],
        "size": catalogue.show_size(droplet.size),
        "size_slug": droplet.size,
        "networks": {
            "v4": [*([public] if droplet.public else []), private] if known else [],
            "v6": [ipv6] if known and droplet.ipv6 else [],
        },
        "region": catalogue.show_region(droplet.region),
        "tags": [*droplet.tags],
        "vpc_uuid": droplet.vpc,
    }
    hidden = {"image": "image:read", "tags": "tag:read", "vpc_uuid": "vpc:read"}
    return {name: value for name, value in shown.items() if name not in hidden or call.may(hidden[name])}


def status_of(account: Account, droplet: Droplet) -> str:
    if droplet.status == "new" or droplet.going or account.running(droplet.id):
        return droplet.status
    return "active" if account.machinery.is_running(droplet.id) else "off"  # it may have halted by itself


def _create(account: Account, call: Call) -> Answer:
    body = call.read(_Create)
    names = [body.name] if body.name is not None else body.names
    if names is None or (body.name is not None and body.names is not None):
        raise invalid("name", "one of name and names is needed")
    region = _region(body.region)
    with account.lock:
        specification = _specification(account, body, region)
    vpc_id = body.vpc_uuid or vpcs.make_default(account, region).id
    with account.lock:
        vpc = account.vpc(vpc_id)
        if vpc is None or vpc.region != region:
            raise invalid("vpc_uuid", f"there is no VPC {vpc_id} in {region}")
        if len(account.droplets) + len(names) > account.droplet_limit:
            raise Refused(422, "creating this/these droplet(s) will exceed your droplet limit")
        ordered = [_order(account, body, name, vpc, specification) for name in names]
        links = {"actions": [actions.link(_boot(account, droplet), call, "create") for droplet in ordered]}
        shown = [show(account, call, droplet) for droplet in ordered]
    noun: Json = {"droplets": shown} if body.name is None else {"droplet": shown[0]}
    return Answer(status=202, body={**noun, "links": links})


def _region(wanted: str) -> str:
    """The first open one that begins so."""
    for slug in catalogue.REGIONS:
        if slug.startswith(wanted.lower()) and slug not in catalogue.CLOSED_REGIONS:
            return slug
    raise invalid("region", "You specified an invalid region for Droplet creation.")


def find_size(wanted: str, region: str) -> catalogue.Size:
    size = catalogue.SIZES.get(wanted.lower())
    if size is None:
        raise invalid("size", "You specified an invalid size for Droplet creation.")
    if region not in size.regions:
        raise invalid("size", "Size is not available in this region.")
    return size


def find_image(wanted: str | int) -> int:
    if image := catalogue.find_image(wanted):
        return image.id
    raise invalid("image", "You specified an invalid image for Droplet creation.")


def _specification(account: Account, body: _Create, region: str) -> _Specification:
    if body.ipv6 and not body.public_networking:
        raise invalid("ipv6", "must be false where public_networking is")
    if body.backup_policy and not body.backups:
        raise invalid("backup_policy", "backups are off")
    found = {which: keys.find(account, which) for which in body.ssh_keys}
    if unknown := [str(which) for which, key in found.items() if key is None]:
        raise invalid("ssh_keys", f"{', '.join(unknown)} are invalid key identifiers for Droplet creation.")
    return _Specification(
        size=find_size(body.size, region),
        image=find_image(body.image),
        authorized_keys=tuple(key.public_key for key in found.values() if key),
    )


def _order(account: Account, body: _Create, name: str, vpc: Vpc, specification: _Specification) -> Droplet:
    droplet_id = account.new_id("droplet")
    droplet = Droplet(
        id=droplet_id,
        name=name,
        region=vpc.region,
        size=specification.size.slug,
        disk=specification.size.disk,
        image=specification.image,
        vpc=vpc.id,
        public=account.public.take() if body.public_networking else "",
        private=vpc.pool.take(),
        ipv6=str(IPV6[droplet_id]) if body.ipv6 else "",
        authorized_keys=specification.authorized_keys,
        user_data=body.user_data,
        tags=[*dict.fromkeys(tags.make(account, tag) for tag in body.tags)],
        features={"private_networking", *(each for each in OPTIONS if getattr(body, each))},
        created_at=now(),
    )
    account.droplets[droplet.id] = droplet
    projects.assign_default(account, droplet.urn)
    return droplet


def _boot(account: Account, droplet: Droplet) -> Action:
    return start(
        account,
        droplet,
        "create",
        work=partial(make, account, droplet),
        finish=partial(setattr, droplet, "status", "active"),
        seconds=account.delays.create,
    )


def make(account: Account, droplet: Droplet) -> None:
    account.machinery.make(
        machinery.Droplet(
            id=droplet.id,
            name=droplet.name,
            region=droplet.region,
            public=droplet.public,
            private=droplet.private,
            vpc=droplet.vpc,
            authorized_keys=droplet.authorized_keys,
            user_data=droplet.user_data,
            tags=tuple(droplet.tags),
        )
    )
    with account.lock:
        vanished = droplet.id not in account.droplets
        droplet.made = not vanished
        change = account.change()
    if vanished:
        account.machinery.remove(droplet.id)
    # Nobody is told of its addresses before its firewalls protect it.
    account.follow(change)


def start(
    account: Account,
    droplet: Droplet,
    kind: str,
    *,
    work: Callable[[], None] = lambda: None,
    finish: Callable[[], None] = lambda: None,
    seconds: float,
) -> Action:
    return actions.start(
        account, kind, "droplet", droplet.id, droplet.region, work=work, finish=finish, seconds=seconds
    )


def _list(account: Account, call: Call) -> Answer:
    found = [*account.droplets.values()]
    tag, name = call.query.get("tag_name"), call.query.get("name")
    if tag is not None and (name is not None or "type" in call.query):
        raise invalid("tag_name", "can not be combined with name or type")
    if tag is not None:
        found = [droplet for droplet in found if tag in droplet.tags]
    if name is not None:
        found = [droplet for droplet in found if droplet.name.lower() == name.lower()]
    if call.query.get("type") == "gpus":
        found = []
    return call.listed("droplets", found, lambda droplet: show(account, call, droplet))


def _get(account: Account, call: Call) -> Answer:
    return Answer(body={"droplet": show(account, call, find(account, call))})


def _delete(account: Account, call: Call) -> Answer:
    _destroy(account, [find(account, call)])
    return NOTHING


def _delete_tagged(account: Account, call: Call) -> Answer:
    if not (tag := call.query.get("tag_name")):
        raise invalid("tag_name", "is needed")
    _destroy(account, [*account.tagged([tag])])
    return NOTHING


def _destroy(account: Account, droplets: list[Droplet]) -> None:
    for droplet in droplets:
        check_idle(account, droplet)
    for droplet in droplets:
        droplet.going = True
        account.workers.start(partial(_remove, account, droplet))


def _remove(account: Account, droplet: Droplet) -> None:
    end = monotonic() + account.delays.destroy
    account.follow(account.change())  # a firewall is set on no machine that is being removed
    account.machinery.remove(droplet.id)
    account.workers.pause(end - monotonic())
    with account.lock:
        if droplet.id in account.droplets:
            _forget(account, droplet)
            account.change()


def _forget(account: Account, droplet: Droplet) -> None:
    del account.droplets[droplet.id]
    for firewall in account.firewalls.values():
        ids = tuple(each for each in firewall.asked.droplet_ids if each != droplet.id)
        rest = asked.without(firewall.asked, "droplet_ids", droplet.id)
        firewall.asked = rest.model_copy(update={"droplet_ids": ids})
    for balancer in account.balancers.values():
        ids = tuple(each for each in balancer.asked.droplet_ids if each != droplet.id)
        balancer.asked = balancer.asked.model_copy(update={"droplet_ids": ids})
    for reserved in account.reserved_ips.values():
        if reserved.droplet == droplet.id:
            reserved.droplet = None
    account.assigned.pop(droplet.urn, None)
    if droplet.public:
        account.public.give_back(droplet.public)
    member = Member(urn=droplet.urn, vpc=droplet.vpc, name=droplet.name, created_at=droplet.created_at)
    account.leave(member, droplet.private)


def check_idle(account: Account, droplet: Droplet) -> None:
    if droplet.going or account.running(droplet.id):
        raise Refused(422, PENDING)


def find(account: Account, call: Call) -> Droplet:
    if droplet := account.droplets.get(call.number("droplet_id")):
        return droplet
    raise missing()


ROUTES = (
    Route("POST", "/v2/droplets", _create, "droplet:create", slow=True),
    Route("GET", "/v2/droplets", _list, "droplet:read"),
    Route("DELETE", "/v2/droplets", _delete_tagged, "droplet:delete"),
    Route("GET", "/v2/droplets/{droplet_id}", _get, "droplet:read"),
    Route("DELETE", "/v2/droplets/{droplet_id}", _delete, "droplet:delete"),
)
