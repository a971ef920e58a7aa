"""`make up` and `make down` of a cluster on droplets, killed at moments that only the API knows of."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

from tests.e2e.digitalocean.account import Delays
from tests.e2e.digitalocean.cloud import Cloud, droplets_config
from tests.e2e.killing import end, has_begun, kill, state_file
from tests.e2e.stacks import Checkout, Stack, eventually

pytestmark = pytest.mark.e2e

Moment = Callable[[Stack, Cloud], AbstractContextManager[Callable[[], bool]]]
"""Sees to it that a run gets no further than to some moment, and says whether it is there."""


def answered(method: str, path: str, *, beside: str = "") -> Moment:
    """The API has done what it was asked, and its answer is under way; and so are those to requests beside
    it, which are the business of later moments.
    """

    @contextmanager
    def moment(_: Stack, cloud: Cloud) -> Iterator[Callable[[], bool]]:
        faults = cloud.api.faults
        with faults.hold_answer(method, path) as done, faults.hold_answer(method, beside, times=None):
            yield done.is_set

    return moment


@contextmanager
def booting(_: Stack, cloud: Cloud) -> Iterator[Callable[[], bool]]:
    """A droplet boots, and the provider asks whether it is active."""
    account, before = cloud.api.account, len(cloud.api.requests)

    def is_idle() -> bool:
        with account.lock:
            return all(each.status != "in-progress" for each in account.actions.values())

    def is_asked() -> bool:
        return any(
            each.method == "GET" and re.fullmatch(r"/v2/droplets/\d+", each.path)
            for each in cloud.api.requests[before:]
        )

    # Those of the run before would be held too, and the run waits until they can be removed.
    eventually("the droplets before have booted", 120, is_idle)
    with cloud.api.faults.hold_action("create"):
        yield is_asked


@contextmanager
def active(_: Stack, cloud: Cloud) -> Iterator[Callable[[], bool]]:
    """Another droplet than there were is active; the provider first asks ten seconds after its order."""
    account = cloud.api.account
    with account.lock:
        before = set(account.droplets)

    def is_active() -> bool:
        with account.lock:
            return any(each.status == "active" for each in account.droplets.values() if each.id not in before)

    yield is_active


def on_controller(step: str, condition: str) -> Moment:
    """The step is under way, and that holds on the controller."""

    @contextmanager
    def moment(stack: Stack, cloud: Cloud) -> Iterator[Callable[[], bool]]:
        watches: list[subprocess.Popen[bytes]] = []

        def holds() -> bool:
            if not watches:
                if not has_begun(stack, "up", step):
                    return False
                # One that waits there: it is over some milliseconds later, where asking anew takes longer.
                watch = f"until {condition}; do sleep 0.02; done"
                container = cloud.container(f"{stack.name}-controller-1")
                command = ["docker", "exec", container, "timeout", "300", "sh", "-c", watch]
                watches.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
            return watches[0].poll() == 0

        try:
            yield holds
        finally:
            for watch in watches:
                watch.kill()
                watch.wait()

    return moment


def deleting(resource: str) -> Moment:
    """It is being deleted, or is gone."""

    @contextmanager
    def moment(stack: Stack, _: Cloud) -> Iterator[Callable[[], bool]]:
        yield lambda: has_begun(stack, "down", resource)

    return moment


@dataclass(frozen=True)
class Point:
    """A moment at which the state does not have the resource yet, or still has it, if one is told."""

    moment: Moment
    resource: str | None = None


MANIFEST = "/etc/kubernetes/manifests/bootstrap-apiserver.yaml"
# Each in the order of the run: what one has made is there for the next.
UP = {
    "tag": Point(answered("POST", "/v2/tags"), "tag"),
    "vpc": Point(answered("POST", "/v2/vpcs", beside="/v2/(account/keys|firewalls)"), "vpc"),
    "key": Point(answered("POST", "/v2/account/keys", beside="/v2/firewalls"), "ssh-key"),
    "firewall": Point(answered("POST", "/v2/firewalls"), "controller-1-droplet"),
    "ordered": Point(answered("POST", "/v2/droplets"), "controller-1-droplet"),
    "booting": Point(booting, "controller-1-droplet"),
    "active": Point(active, "controller-1-first-contact"),
    "first-contact": Point(
        on_controller("controller-1-first-contact", "test -e /etc/ssh/ssh_host_ed25519_key.pub"),
        "controller-1-first-contact",
    ),
    "reserved": Point(answered("POST", "/v2/reserved_ips/.*/actions"), "reserved-ip-assignment"),
    "identity": Point(
        on_controller("controller-1-identity", "! test -e /etc/ssh/ssh_host_ecdsa_key"),
        "controller-1-identity",
    ),
    "bootstrap": Point(on_controller("bootstrap", f"test -e {MANIFEST}"), "bootstrap"),
}
DOWN = {
    "objects": Point(deleting("controller-1-role"), "cleanup"),
    "bootstrap": Point(deleting("bootstrap"), "cleanup"),
    "address": Point(answered("DELETE", "/v2/reserved_ips/.*"), "cleanup"),
    "droplet": Point(answered("DELETE", r"/v2/droplets/\d+"), "cleanup"),
    "droplets-gone": Point(answered("DELETE", "/v2/firewalls/.*"), "cleanup"),
    "key": Point(answered("DELETE", "/v2/account/keys/.*"), "cleanup"),
    "vpc-has-members": Point(answered("DELETE", "/v2/vpcs/.*"), "cleanup"),
    "vpc-gone": Point(answered("DELETE", "/v2/tags/.*"), "cleanup"),
    "all-gone": Point(answered("DELETE", "/v2/tags/.*-balancer"), "cleanup"),
    "keys": Point(deleting("ssh-login")),
}


@pytest.fixture(scope="module")
def cloud(checkout: Checkout) -> Iterator[Cloud]:
    # Droplets stay in their VPC for so long that its deletion is refused first.
    with Cloud.of(checkout, "cut", 210, delays=Delays(leave=4)) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack], cloud: Cloud) -> Stack:
    return new_stack("cutoff", droplets_config(140))


def killed(stack: Stack, cloud: Cloud, verb: str, at: str, point: Point) -> None:
    with point.moment(stack, cloud) as reached:
        known = kill(stack, verb, at, reached)
    if point.resource is not None:
        assert (f"{stack.name}-{point.resource}" in known) == (verb == "down"), f"killed too late: {at}"


@pytest.mark.parametrize("at", ["tag", "vpc", "ordered", "booting", "reserved"])
def test_after_an_up_that_was_killed_a_down_leaves_nothing(stack: Stack, cloud: Cloud, at: str) -> None:
    killed(stack, cloud, "up", at, UP[at])
    assert cloud.api.everything() != {}
    end(stack, "down")
    assert cloud.api.everything() == {}


def test_an_up_that_is_killed_again_and_again_ends_well(stack: Stack, cloud: Cloud) -> None:
    for at, point in UP.items():
        killed(stack, cloud, "up", at, point)
    end(stack, "up")
    cloud.has_one_of_everything(stack)
    stack.kubectl("wait", "--for=condition=Ready", "node/controller-1", "node/worker-1", "--timeout=0")
    stack.second_up_changes_nothing()


def test_a_down_that_is_killed_again_and_again_ends_well(stack: Stack, cloud: Cloud) -> None:
    for at, point in DOWN.items():
        killed(stack, cloud, "down", at, point)
    end(stack, "down")
    assert cloud.api.everything() == {}
    assert not state_file(stack).exists()
