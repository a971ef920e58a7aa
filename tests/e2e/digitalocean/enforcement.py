"""Has the machinery do what firewalls, balancers and reserved IPs say of the account's droplets just now."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import partial

from tests.e2e.digitalocean import balancers, machinery
from tests.e2e.digitalocean.account import Account, Balancer, Droplet
from tests.e2e.digitalocean.asked import InboundRule, OutboundRule, Target

Rules = tuple[machinery.Rule, ...]
Protection = tuple[Rules | None, Rules | None]


class Enforcement:
    """Follows each change of the account. What the machinery does already is not asked for again."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._machinery = account.machinery
        self._balancers: dict[str, machinery.Balancer] = {}
        self._protections: dict[int, Protection] = {}
        self._reserved: dict[int, frozenset[str]] = {}

    def run(self) -> None:
        """Until the API ends."""
        account = self._account
        while True:
            account.workers.wait(lambda: account.enforced < account.changes, None)
            with account.lock:
                change = account.changes
                wanted = {each.id: _wanted(account, each) for each in account.balancers.values()}
            # Balancers first: the machinery says what address they have, which firewalls may let in.
            failed: set[int | str] = set(self._follow_balancers(wanted))
            with account.lock:
                made = [each for each in account.droplets.values() if each.made and not each.going]
                protections = {each.id: _protection(account, each) for each in made}
                reserved = {each.id: _reserved(account, each) for each in made}
            failed |= self._follow_droplets(protections, reserved)
            with account.lock:
                account.enforced, account.unenforced = change, failed
                account.lock.notify_all()

    def _follow_balancers(self, wanted: dict[str, machinery.Balancer]) -> set[str]:
        failed = set()
        for gone in self._balancers.keys() - wanted.keys():
            if self._succeeds(partial(self._machinery.remove_balancer, gone)):
                del self._balancers[gone]
        for id, balancer in wanted.items():
            if self._balancers.get(id) == balancer:
                continue
            if self._succeeds(partial(self._set_balancer, balancer)):
                self._balancers[id] = balancer
            else:
                failed.add(id)
        return failed

    def _set_balancer(self, balancer: machinery.Balancer) -> None:
        self._machinery.set_balancer(balancer)
        private = self._machinery.private_address(balancer.id)
        with self._account.lock:
            if found := self._account.balancers.get(balancer.id):
                found.private = private

    def _follow_droplets(
        self, protections: dict[int, Protection], reserved: dict[int, frozenset[str]]
    ) -> set[int]:
        failed = set()
        for gone in self._protections.keys() - protections.keys():
            del self._protections[gone]
            self._reserved.pop(gone, None)
        for id, protection in protections.items():
            if self._protections.get(id) != protection:
                if self._succeeds(partial(self._machinery.set_firewall, id, *protection)):
                    self._protections[id] = protection
                else:
                    failed.add(id)
            if self._reserved.get(id, frozenset()) != reserved[id]:
                if self._succeeds(partial(self._machinery.set_reserved, id, reserved[id])):
                    self._reserved[id] = reserved[id]
                else:
                    failed.add(id)
        return failed

    def _succeeds(self, work: Callable[[], None]) -> bool:
        """A failure is told at the API's end, and tried again with the next change."""
        try:
            work()
        except Exception as error:
            self._account.workers.failures.append(error)
            return False
        return True


def _wanted(account: Account, balancer: Balancer) -> machinery.Balancer:
    check = balancer.asked.health_check
    return machinery.Balancer(
        id=balancer.id,
        public=balancer.public,
        vpc=balancer.vpc,
        forwarding=tuple(
            machinery.Forwarding(port=rule.entry_port, target=rule.target_port)
            for rule in balancer.asked.forwarding_rules
        ),
        check=machinery.Check(
            protocol=check.protocol,
            port=check.port,
            path=check.shown()["path"],
            interval=check.check_interval_seconds,
            timeout=check.response_timeout_seconds,
            healthy=check.healthy_threshold,
            unhealthy=check.unhealthy_threshold,
        ),
        backends={each.id: each.private for each in balancers.backends(account, balancer) if each.made},
        allowed=tuple(
            str(ipaddress.ip_network(each.partition(":")[2])) for each in balancer.asked.firewall.allow
        ),
    )


def _protection(account: Account, droplet: Droplet) -> Protection:
    """What all firewalls of a droplet let through together."""
    found = [
        each.asked
        for each in account.firewalls.values()
        if droplet.id in each.asked.droplet_ids or not set(droplet.tags).isdisjoint(each.asked.tags)
    ]
    if not found:
        return None, None
    return (
        _rules(account, [(rule, rule.sources) for each in found for rule in each.inbound_rules]),
        _rules(account, [(rule, rule.destinations) for each in found for rule in each.outbound_rules]),
    )


def _rules(account: Account, asked: list[tuple[InboundRule | OutboundRule, Target]]) -> Rules:
    rules = [
        machinery.Rule(protocol=rule.protocol, ports=rule.range(), addresses=_addresses(account, target))
        for rule, target in asked
    ]
    return tuple(rule for rule in rules if rule.addresses)  # nobody has such a tag yet: lets nobody through


def _addresses(account: Account, target: Target) -> tuple[str, ...]:
    droplets = [
        *account.tagged(target.tags),
        *(each for each in account.droplets.values() if each.id in target.droplet_ids),
    ]
    found = [account.balancers[each] for each in target.load_balancer_uids]
    addresses = [
        *target.addresses,
        *(address for each in droplets for address in each.addresses),
        *(address for each in found for address in (each.public, each.private) if address),
    ]
    return tuple(dict.fromkeys(addresses))


def _reserved(account: Account, droplet: Droplet) -> frozenset[str]:
    return frozenset(each.ip for each in account.reserved_ips.values() if each.droplet == droplet.id)
