"""A cluster on droplets, from an empty account to an empty account."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Callable
from functools import partial

import asyncssh
import pytest
import yaml

from tests.e2e.digitalocean.cloud import Cloud, droplets_config
from tests.e2e.network import PODS, fetch
from tests.e2e.stacks import Stack, eventually

pytestmark = pytest.mark.e2e

CLOUD = ("cloud", 204)
BACK_SECONDS = 120
CONTROLLER, WORKER = "cloud-controller-1", "cloud-worker-1"
METADATA = "http://169.254.169.254/metadata/v1"
NODE_PORT = 30080
PERSON = asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack], cloud: Cloud) -> Stack:
    stack = new_stack("cloud", droplets_config(121))
    stack.up()
    stack.kubectl("apply", "--filename=-", stdin=PODS)
    stack.kubectl("wait", "--for=condition=Ready", "pod/web", "pod/client", "--timeout=60s")
    return stack


@pytest.fixture(scope="module")
def outsider(cloud: Cloud) -> str:
    return cloud.outsider("172.30.205.9")


def is_ready(stack: Stack, node: str) -> bool:
    done = stack.run_kubectl("get", f"node/{node}", "--output=json")
    if done.returncode:
        return False
    conditions = json.loads(done.stdout)["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def boots(cloud: Cloud) -> dict[str, int]:
    """The id of every droplet by name; there is one of each."""
    return {name: droplet for name in (CONTROLLER, WORKER) for (droplet,) in [cloud.ids(name)]}


def test_it_comes_up_and_a_second_time_nothing_changes(stack: Stack, cloud: Cloud) -> None:
    nodes = {each["metadata"]["name"]: each for each in stack.get("nodes")["items"]}
    assert nodes.keys() == {"controller-1", "worker-1"}
    for node in nodes.values():
        (address,) = [each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"]
        assert address.startswith("10.121."), address
    cloud.has_one_of_everything(stack)
    stack.second_up_changes_nothing()


def test_pods_reach_each_other_over_the_private_network(stack: Stack, cloud: Cloud) -> None:
    page = eventually("the other node's page", 30, lambda: fetch(stack, "http://web"))
    assert page.strip() == "served by web"
    assert "local 10.121." in cloud.on(WORKER, "ip -d link show flannel.1")


def test_only_administrators_reach_ssh_and_the_api_and_nobody_anything_else(
    stack: Stack, cloud: Cloud, outsider: str
) -> None:
    stack.kubectl("expose", "pod/web", "--name=ported", "--type=NodePort", "--port=80")
    patch = {"spec": {"ports": [{"port": 80, "nodePort": NODE_PORT}]}}
    stack.kubectl("patch", "service/ported", f"--patch={json.dumps(patch)}")
    addresses = {name: cloud.public(name) for name in (CONTROLLER, WORKER)}
    (reserved,) = cloud.api.everything()["reserved_ips"]
    # It answers at all: one droplet asks the other.
    command = f"curl --silent --max-time 5 http://{cloud.private(WORKER)}:{NODE_PORT} || true"
    eventually("the node port", 30, lambda: "served by web" in cloud.on(CONTROLLER, command))
    for address, port in ((addresses[CONTROLLER], 22), (addresses[WORKER], 22), (reserved, 6443)):
        assert cloud.connects(address, port), (address, port)
        assert not cloud.connects(address, port, outsider), (address, port)
    for address in (*addresses.values(), reserved):
        for port in (2379, 2380, 10250, 10256, NODE_PORT):
            assert not cloud.connects(address, port), (address, port)
            assert not cloud.connects(address, port, outsider), (address, port)


def test_the_metadata_have_nothing_of_value_and_pods_do_not_reach_them(stack: Stack, cloud: Cloud) -> None:
    assert fetch(stack, f"{METADATA}/hostname") == fetch(stack, f"{METADATA}/user-data", "web") == ""
    text = cloud.on(WORKER, f"curl --silent --fail {METADATA}/user-data")
    keys = yaml.safe_load(text)["ssh_keys"]
    assert "PRIVATE KEY" in keys["ecdsa_private"]
    scan = ["ssh-keyscan", "-T", "5", cloud.public(WORKER)]
    shown = subprocess.run(scan, capture_output=True, text=True, timeout=60).stdout
    offered = re.findall(r"^\S+ (\S+) (\S+)", shown, re.MULTILINE)
    assert [kind for kind, _ in offered] == ["ssh-ed25519"], shown
    assert not any(key in text for _, key in offered)


def logs_in(cloud: Cloud, name: str) -> bool:
    """Whether the person does."""

    async def log_in() -> bool:
        try:
            async with asyncssh.connect(
                cloud.public(name),
                username="root",
                client_keys=[PERSON],
                known_hosts=None,
                config=None,
                connect_timeout=10,
            ) as connection:
                return (await connection.run("hostname", check=True, timeout=10)).stdout == f"{name}\n"
        except asyncssh.PermissionDenied:
            return False

    return asyncio.run(log_in())


def test_what_is_changed_in_the_config_replaces_no_droplet(stack: Stack, cloud: Cloud) -> None:
    before = boots(cloud)
    assert not logs_in(cloud, WORKER)
    changed = droplets_config(
        121,
        image="ubuntu-24-04-x64",
        monitoring=True,
        sshKeys=[PERSON.export_public_key().decode().strip()],
        tags=["team-a"],
        nodePorts=["172.30.0.1/32"],
    )
    stack.configure(changed)
    plan = stack.pulumi("preview")
    assert not re.search(r"digitalocean:index:.*(replace|delete)", plan), plan
    stack.up()
    assert boots(cloud) == before
    assert logs_in(cloud, WORKER) and logs_in(cloud, CONTROLLER)
    eventually("the node port", 60, lambda: cloud.connects(cloud.public(WORKER), NODE_PORT))
    stack.second_up_changes_nothing()
    stack.configure(droplets_config(121))
    stack.up()
    assert boots(cloud) == before
    assert not logs_in(cloud, WORKER) and not cloud.connects(cloud.public(WORKER), NODE_PORT)


def test_another_region_is_refused_in_the_preview(stack: Stack) -> None:
    config = droplets_config(121, region="ams3")
    stack.configure(config)
    told = stack.pulumi("preview", fails=True)
    assert "kubepivot:digitalOcean.region" in told and "the cluster lives with fra1" in told
    stack.configure(droplets_config(121))
    stack.second_up_changes_nothing()


@pytest.mark.parametrize("name", [WORKER, CONTROLLER])
def test_a_droplet_that_loses_its_power_comes_back(stack: Stack, cloud: Cloud, name: str) -> None:
    node = name.removeprefix("cloud-")
    cloud.act(name, "power_off")
    if name == WORKER:
        eventually("the node to be missed", 90, lambda: not is_ready(stack, node))
    cloud.act(name, "power_on")
    eventually("the node", BACK_SECONDS, partial(is_ready, stack, node))
    eventually("its pods", BACK_SECONDS, lambda: fetch(stack, "http://web").strip() == "served by web")
    assert fetch(stack, f"{METADATA}/hostname") == ""
    stack.second_up_changes_nothing()


def joined_anew(stack: Stack, cloud: Cloud, before: dict[str, int]) -> None:
    """The worker is another droplet, and pods on it are reached."""
    after = boots(cloud)
    assert after[CONTROLLER] == before[CONTROLLER] and after[WORKER] != before[WORKER]
    eventually("the node", BACK_SECONDS, lambda: is_ready(stack, "worker-1"))
    stack.kubectl("delete", "pod/web", "--ignore-not-found", "--force", "--grace-period=0")
    stack.kubectl("apply", "--filename=-", stdin=PODS)
    stack.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=90s")
    eventually("its pods", BACK_SECONDS, lambda: fetch(stack, "http://web").strip() == "served by web")
    cloud.has_one_of_everything(stack)
    stack.second_up_changes_nothing()


def test_a_droplet_that_somebody_deleted_is_made_again(stack: Stack, cloud: Cloud) -> None:
    before = boots(cloud)
    cloud.api.faults.vanish(before[WORKER])
    stack.up("--refresh")
    joined_anew(stack, cloud, before)


def test_a_raised_generation_makes_a_droplet_anew(stack: Stack, cloud: Cloud) -> None:
    before = boots(cloud)
    config = droplets_config(121)
    config["hosts"]["worker-1"]["generation"] = 1
    stack.configure(config)
    plan = stack.pulumi("preview")
    assert len(re.findall(r"index:Droplet\s+cloud-worker-1-droplet\s+replace", plan)) == 1, plan
    assert "controller-1-droplet" not in plan
    stack.up()
    joined_anew(stack, cloud, before)


def test_the_end_leaves_nothing(stack: Stack, cloud: Cloud) -> None:
    cloud.api.faults.vanish(boots(cloud)[WORKER])
    stack.destroy()
    assert cloud.api.everything() == {"tags": ["team-a"]}, "only what is the user's"
