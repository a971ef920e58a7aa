"""An account: all its objects, and what they stand on. Whoever reads or changes it holds its lock."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from tests.e2e.digitalocean.addresses import Pool
from tests.e2e.digitalocean.asked import BalancerRequest, FirewallRequest
from tests.e2e.digitalocean.calls import Refused
from tests.e2e.digitalocean.machinery import Machinery
from tests.e2e.digitalocean.workers import Workers


@dataclass(frozen=True, kw_only=True)
class Delays:
    """Seconds that things take at least; what the machinery does may take longer."""

    create: float = 1
    """From a droplet's order until it is active."""
    action: float = 1
    """Any other action."""
    destroy: float = 1
    """From DELETE until a droplet answers 404."""
    leave: float = 1
    """From then until it, or a balancer that was deleted, has left its VPC."""
    firewall: float = 0.5
    """A firewall is `waiting`."""
    balancer: float = 1
    """A balancer is `new`, or busy with a change."""


@dataclass(kw_only=True)
class Key:
    """A public SSH key of somebody."""

    id: int
    name: str
    public_key: str
    fingerprint: str


@dataclass(kw_only=True)
class Vpc:
    """A private network. `ready`: the machinery has made it, and was not told to remove it."""

    id: str
    name: str
    description: str
    region: str
    pool: Pool
    default: bool
    created_at: str
    ready: bool = False


@dataclass(kw_only=True)
class Droplet:
    """A machine. `made`: it runs or once did. `going`: it is being destroyed."""

    id: int
    name: str
    region: str
    size: str
    disk: int
    image: int
    vpc: str
    public: str
    private: str
    ipv6: str
    authorized_keys: tuple[str, ...]
    user_data: str
    tags: list[str]
    features: set[str]
    created_at: str
    status: Literal["new", "active", "off"] = "new"
    made: bool = False
    going: bool = False

    @property
    def urn(self) -> str:
        return f"do:droplet:{self.id}"

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(address for address in (self.public, self.private) if address)


@dataclass(kw_only=True)
class Action:
    """Work on a droplet or a reserved IP."""

    id: int
    type: str
    resource_id: int
    resource_type: Literal["droplet", "reserved_ip"]
    region: str
    started_at: str
    status: Literal["in-progress", "completed", "errored"] = "in-progress"
    completed_at: str | None = None

    def end(self, status: Literal["completed", "errored"]) -> None:
        self.status = status
        self.completed_at = now()


@dataclass(kw_only=True)
class Firewall:
    """A firewall as it was last asked for. `change` is the number of its last change."""

    id: str
    asked: FirewallRequest
    created_at: str
    status: Literal["waiting", "succeeded", "failed"] = "waiting"
    pending: dict[int, bool] = field(default_factory=dict)
    """Droplets that it is being put on, or taken off (True)."""
    change: int = 0


@dataclass(kw_only=True)
class Balancer:
    """A load balancer as it was last asked for."""

    id: str
    asked: BalancerRequest
    region: str
    vpc: str
    project: str
    public: str
    created_at: str
    private: str = ""
    """Known when the machinery runs it."""
    status: Literal["new", "active", "errored"] = "new"
    busy: bool = True

    @property
    def urn(self) -> str:
        return f"do:loadbalancer:{self.id}"


@dataclass(kw_only=True)
class Record:
    """A DNS record; `data` is without a final dot."""

    id: int
    type: str
    name: str
    data: str
    ttl: int
    priority: int | None
    port: int | None
    weight: int | None
    flags: int | None
    tag: str | None


@dataclass(kw_only=True)
class Domain:
    """A DNS zone."""

    name: str
    records: dict[int, Record]

    @property
    def urn(self) -> str:
        return f"do:domain:{self.name}"


@dataclass(kw_only=True)
class ReservedIp:
    """A public address that can lead to one droplet or another."""

    ip: str
    region: str
    droplet: int | None = None

    @property
    def urn(self) -> str:
        return f"do:reservedip:{self.ip}"


@dataclass(kw_only=True)
class Project:
    """A name for objects that belong together."""

    id: str
    name: str
    description: str
    purpose: str
    environment: str
    created_at: str
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class Member:
    """What is in a VPC; it may have been deleted and not have left yet."""

    urn: str
    vpc: str
    name: str
    created_at: str


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Account:
    """Everything that the API knows."""

    def __init__(
        self,
        machinery: Machinery,
        *,
        delays: Delays,
        public_network: str,
        reserved_addresses: Sequence[str],
        generated_vpcs: str,
        droplet_limit: int,
        reserved_ip_limit: int,
    ) -> None:
        self.machinery = machinery
        self.delays = delays
        self.droplet_limit = droplet_limit
        self.reserved_ip_limit = reserved_ip_limit
        self.uuid = str(uuid.uuid4())
        self.public = Pool(public_network)
        self.reserved = Pool(public_network, only=reserved_addresses) if reserved_addresses else self.public
        self.generated_vpcs = generated_vpcs
        self.workers = Workers()
        self.lock = self.workers.changed

        self.keys: dict[int, Key] = {}
        self.vpcs: dict[str, Vpc] = {}
        self.droplets: dict[int, Droplet] = {}
        self.actions: dict[int, Action] = {}
        self.tags: list[str] = []
        self.firewalls: dict[str, Firewall] = {}
        self.balancers: dict[str, Balancer] = {}
        self.domains: dict[str, Domain] = {}
        self.reserved_ips: dict[str, ReservedIp] = {}
        self.projects: dict[str, Project] = {}
        self.default_project = ""
        self.assigned: dict[str, tuple[str, str]] = {}
        """By URN: the project, and since when."""
        self.leaving: list[Member] = []
        self.held: list[Callable[[Action], bool]] = []
        """Which actions a test wants to stay in progress."""

        self.changes = 0
        """How often something changed that the machinery may have to follow."""
        self.enforced = 0
        """The last of these changes that it has followed."""
        self.unenforced: set[int | str] = set()
        """Droplets and balancers with which it could not."""
        self._ids = {
            kind: itertools.count(first)
            for kind, first in (("droplet", 412_345_001), ("key", 43_210_001), ("action", 2_112_345_001))
        }
        self._ids["record"] = itertools.count(1_712_345_001)

    def new_id(self, kind: Literal["droplet", "key", "action", "record"]) -> int:
        return next(self._ids[kind])

    def change(self) -> int:
        """Notes that the machinery may have to follow; its number."""
        with self.lock:
            self.changes += 1
            self.lock.notify_all()
            return self.changes

    def follow(self, change: int) -> None:
        """Waits until the machinery has followed a change."""
        self.workers.wait(lambda: self.enforced >= change)

    def vpc(self, vpc_id: str) -> Vpc | None:
        found = self.vpcs.get(vpc_id)
        return found if found and found.ready else None

    def tag(self, name: str) -> str | None:
        """A tag's name as it was first written."""
        return next((tag for tag in self.tags if tag.lower() == name.lower()), None)

    def known_tag(self, field: str, name: str) -> str:
        """That; refused if there is none."""
        if (found := self.tag(name)) is None:
            raise Refused(422, f"{field}: tag {name} does not exist")
        return found

    def tagged(self, tags: Iterable[str]) -> Iterator[Droplet]:
        wanted = set(tags)
        return (droplet for droplet in self.droplets.values() if wanted.intersection(droplet.tags))

    def running(self, resource_id: int) -> bool:
        """Whether an action on a droplet or a reserved IP is in progress."""
        return any(
            action.resource_id == resource_id and action.status == "in-progress"
            for action in self.actions.values()
        )

    def members(self, vpc_id: str) -> list[Member]:
        there = [
            *(
                Member(urn=each.urn, vpc=each.vpc, name=each.name, created_at=each.created_at)
                for each in self.droplets.values()
            ),
            *(
                Member(urn=each.urn, vpc=each.vpc, name=each.asked.name, created_at=each.created_at)
                for each in self.balancers.values()
            ),
            *self.leaving,
        ]
        return [member for member in there if member.vpc == vpc_id]

    def leave(self, member: Member, private: str | None = None) -> None:
        """Lets what was deleted stay in its VPC for a while, and its address be taken."""
        self.leaving.append(member)

        def leave() -> None:
            self.workers.pause(self.delays.leave)
            with self.lock:
                self.leaving.remove(member)
                if private:
                    self.vpcs[member.vpc].pool.give_back(private)

        self.workers.start(leave)
