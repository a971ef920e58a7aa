"""What goes wrong at DigitalOcean while a cluster is made: told, with nothing left, or waited out."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.e2e.digitalocean.cloud import ADMIN, TOKEN, Cloud, droplets_config
from tests.e2e.stacks import Stack, eventually

pytestmark = pytest.mark.e2e

CLOUD = ("cutfault", 213)
CONTROLLER, WORKER = "cutfaulty-controller-1", "cutfaulty-worker-1"
ORDER = ("POST", "/v2/droplets")
DROPLET = r"/v2/droplets/\d+"
ASSIGNMENT = r"/v2/reserved_ips/[^/]+/actions/\d+"
OFFICE = "203.0.113.0/24"
CONFIG = droplets_config(143)
UP_SECONDS = 600


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack], cloud: Cloud) -> Stack:
    return new_stack("cutfaulty", CONFIG)


def test_a_token_without_rights_is_told_before_anything_is_made(stack: Stack, cloud: Cloud) -> None:
    cloud.api.tokens[TOKEN] = {"droplet:read"}
    try:
        said = stack.up(fails=True)
    finally:
        cloud.api.tokens[TOKEN] = None
    assert "digitalocean:token" in said and TOKEN not in said
    assert cloud.api.everything() == {}


def test_a_size_that_the_region_lacks_is_told_before_anything_is_made(stack: Stack, cloud: Cloud) -> None:
    worker = {"role": "worker", "size": "so1_5-2vcpu-16gb"}
    elsewhere = droplets_config(143, region="syd1")
    stack.configure({**elsewhere, "hosts": {**elsewhere["hosts"], "worker-1": worker}})
    try:
        said = stack.up(fails=True)
    finally:
        stack.configure(CONFIG)
    assert "kubepivot:hosts.worker-1.size" in said and "region syd1 does not have it" in said
    assert cloud.api.everything() == {}


def test_an_order_that_is_refused_is_told(stack: Stack, cloud: Cloud) -> None:
    refusal = "Server creation is disabled for this account. Please open a support ticket."
    cloud.api.faults.refuse("POST", "/v2/droplets", 422, times=None, message=refusal)
    try:
        said = stack.up(fails=True)
    finally:
        cloud.api.faults.clear()
    assert refusal in said and f"{CONTROLLER}-droplet" in said
    assert "droplets" not in cloud.api.everything()


def test_the_next_up_heals_it_and_waits_for_what_the_api_does_late(stack: Stack, cloud: Cloud) -> None:
    faults, before = cloud.api.faults, len(cloud.api.requests)
    faults.lose_answer("POST", "/v2/droplets")
    faults.limit("POST", "/v2/droplets", 2)
    faults.limit("GET", DROPLET, 3, times=2)
    faults.refuse("GET", DROPLET, 503, times=3)
    faults.refuse("GET", "/v2/droplets", 503)
    faults.refuse("POST", "/v2/reserved_ips", 503)
    faults.refuse("POST", "/v2/reserved_ips/.*/actions", 503)
    run = stack.start("up", "--yes", "--skip-preview")
    try:
        with faults.hold_action("assign_ip"):
            with faults.hold_action("create"):
                eventually("a question for a droplet", 300, lambda: asked(cloud, before, DROPLET))
            eventually("a question for an assignment", 300, lambda: asked(cloud, before, ASSIGNMENT))
        said, _ = run.communicate(timeout=UP_SECONDS)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 0, said
    orders = [each for each in cloud.api.requests[before:] if (each.method, each.path) == ORDER]
    assert sorted(each.status for each in orders) == [202, 202, 202, 429], "of one droplet two were made"
    state = stack.state()
    for name in (CONTROLLER, WORKER):
        assert [str(each) for each in cloud.ids(name)] == [state[f"{name}-droplet"]["id"]]
    cloud.has_one_of_everything(stack)
    stack.up()  # writes the kubeconfig
    stack.kubectl("wait", "--for=condition=Ready", "node/controller-1", "node/worker-1", "--timeout=0")
    stack.second_up_changes_nothing()


def test_a_firewall_that_takes_no_change_now_takes_it_with_the_next_up(stack: Stack, cloud: Cloud) -> None:
    stack.configure({**CONFIG, "digitalOcean": {**CONFIG["digitalOcean"], "adminCidrs": [ADMIN, OFFICE]}})
    busy = "Firewall can't be updated while it has pending changes"
    cloud.api.faults.refuse("PUT", "/v2/firewalls/.*", 422, times=None, message=busy)
    try:
        said = stack.up(fails=True)
    finally:
        cloud.api.faults.clear()
    assert busy in said and "cutfaulty-firewall" in said
    stack.up()
    with cloud.api.account.lock:
        firewalls = [each.asked for each in cloud.api.account.firewalls.values()]
    assert [OFFICE in str(each.inbound_rules) for each in firewalls] == [True, True]
    stack.second_up_changes_nothing()


def test_the_end_waits_too_and_leaves_nothing(stack: Stack, cloud: Cloud) -> None:
    faults = cloud.api.faults
    faults.limit("POST", "/v2/reserved_ips/.*/actions", 2)
    faults.refuse("DELETE", "/v2/reserved_ips/.*", 503)
    faults.lose_answer("DELETE", DROPLET)
    faults.limit("DELETE", DROPLET, 2)
    faults.refuse("DELETE", "/v2/firewalls/.*", 503, times=2)
    faults.lose_answer("DELETE", "/v2/vpcs/.*")
    stack.destroy()
    assert cloud.api.everything() == {}


def asked(cloud: Cloud, before: int, path: str) -> bool:
    """Whether the API has answered that since."""
    return any(
        each.method == "GET" and each.status == 200 and re.fullmatch(path, each.path)
        for each in cloud.api.requests[before:]
    )
