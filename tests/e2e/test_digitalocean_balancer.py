"""A cluster on droplets whose API is behind a load balancer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.e2e.digitalocean.cloud import Cloud, droplets_config
from tests.e2e.stacks import Stack, eventually

pytestmark = pytest.mark.e2e

CLOUD = ("cutbalance", 212)
PORT = 6443
CONTROLLER, WORKER = "cutbalanced-controller-1", "cutbalanced-worker-1"
# Two checks of 3 s each, whose answers take as long at most.
CHECK_SECONDS = 30
BACK_SECONDS = 60


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack], cloud: Cloud) -> Stack:
    stack = new_stack("cutbalanced", droplets_config(142, loadBalancer=True))
    stack.up()
    return stack


@pytest.fixture(scope="module")
def balancer(stack: Stack, cloud: Cloud) -> str:
    """Its public address."""
    with cloud.api.account.lock:
        (balancer,) = cloud.api.account.balancers.values()
    return balancer.public


def test_it_comes_up_behind_the_balancer(stack: Stack, cloud: Cloud, balancer: str) -> None:
    cloud.has_one_of_everything(stack)
    assert "reserved_ips" not in cloud.api.everything()
    server = stack.kubectl("config", "view", "--minify", "--output=jsonpath={.clusters[0].cluster.server}")
    assert server == f"https://{balancer}:{PORT}"
    assert cloud.healthy() == {CONTROLLER}
    stack.second_up_changes_nothing()


def test_the_workers_reach_the_api_through_it(stack: Stack, cloud: Cloud, balancer: str) -> None:
    stack.kubectl("wait", "--for=condition=Ready", "node/controller-1", "node/worker-1", "--timeout=0")
    established = cloud.on(WORKER, f"ss -Htnp state established dst {balancer}:{PORT}")
    assert "kubelet" in established, established


def test_it_lets_in_nobody_but_administrators_and_hosts(cloud: Cloud, balancer: str) -> None:
    outsider = cloud.outsider("172.30.212.9")
    assert cloud.connects("172.30.0.2", 80, outsider), "the mirror is open to all"
    assert answers(balancer, cloud.container(WORKER))
    assert not answers(balancer, outsider)
    assert cloud.connects(cloud.public(CONTROLLER), PORT)
    assert not cloud.connects(cloud.public(CONTROLLER), PORT, outsider)


def test_it_takes_a_controller_out_that_is_not_ready_and_takes_it_back(stack: Stack, cloud: Cloud) -> None:
    # What the kube-apiserver needs to be ready. It goes on listening, and says that it is not.
    cloud.on(CONTROLLER, "kill -STOP $(pidof etcd)")
    try:
        eventually("out of the balancer", CHECK_SECONDS, lambda: not cloud.healthy())
        stack.kubectl("get", "--raw=/livez/ping", fails=True)
    finally:
        cloud.on(CONTROLLER, "kill -CONT $(pidof etcd)")
    eventually("back in the balancer", BACK_SECONDS, lambda: cloud.healthy() == {CONTROLLER})
    eventually("the API's answer", BACK_SECONDS, lambda: stack.run_kubectl("get", "nodes").returncode == 0)


def test_the_end_leaves_nothing(stack: Stack, cloud: Cloud) -> None:
    stack.destroy()
    assert cloud.api.everything() == {}


def answers(address: str, container: str) -> bool:
    """Whether the API answers. A connection alone says nothing: the balancer closes those of strangers."""
    ask = f"import ssl; ssl.get_server_certificate(({address!r}, {PORT}), timeout=5)"
    command = ["docker", "exec", container, "python3", "-c", ask]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    known = ("ConnectionResetError", "SSLEOFError", "SSLError", "TimeoutError", "timed out")
    assert done.returncode == 0 or any(each in done.stderr for each in known), done.stderr
    return done.returncode == 0
