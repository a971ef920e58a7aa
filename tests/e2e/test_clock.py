"""The clock of a controller jumps by a day and is put right, while it runs and before it boots."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from lab import pins
from lab.engine import docker
from tests.e2e import wallclock
from tests.e2e.disasters import SYSTEM, Cluster, harmless, now
from tests.e2e.probing import Prober, credentials
from tests.e2e.stacks import Checkout, Stack, eventually
from tests.e2e.wallclock import DAY, jump

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def image(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    wallclock.make_image(tmp_path_factory.mktemp("wallclock"))
    yield wallclock.IMAGE
    wallclock.remove_image()


@pytest.fixture(scope="module")
def cluster(image: str, new_stack: Callable[..., Stack]) -> Cluster:
    cluster = Cluster(new_stack, "clock", 13, lab={"image": image})
    cluster.up()
    return cluster


def works(cluster: Cluster, name: str) -> None:
    """Controllers, the scheduler and kubelets do their work, and answer for logs and commands."""
    begin = time.monotonic()
    image = "--image=docker.io/library/busybox:1.35"
    cluster.stack.kubectl(
        "create", "deployment", name, image, "--", "sh", "-c", "echo begun; exec sleep infinity"
    )
    cluster.stack.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    print(f"{name}: a deployment took {time.monotonic() - begin:.1f} s")
    assert cluster.stack.kubectl("logs", f"deployment/{name}") == "begun\n"
    assert cluster.stack.kubectl("exec", f"deployment/{name}", "--", "echo", "here") == "here\n"
    cluster.stack.kubectl("delete", "deployment", name)


def time_of(cluster: Cluster) -> datetime:
    """What a pod of the controller takes for the time."""
    code = "from datetime import *; print(datetime.now(UTC).isoformat())"
    command = ("exec", SYSTEM, "daemonset/pod-checkpointer", "--", "python3", "-c", code)
    return datetime.fromisoformat(cluster.stack.kubectl(*command).strip())


# Of every pod's token that the kubelet keeps, how the API answers who comes with it.
TOKENS = """
for token in /var/lib/kubelet/pods/*/volumes/kubernetes.io~projected/*/token; do
  curl --silent --insecure --max-time 5 --output /dev/null --write-out '%{http_code}\\n' \
    --header "Authorization: Bearer $(cat "$token")" https://127.0.0.1:6443/api
done | sort -u
"""


def answers(cluster: Cluster) -> list[str]:
    return cluster.on_controller(TOKENS).split()


def tokens_are_new(cluster: Cluster) -> bool:
    """Whether the kubelet has got a new one for every pod since the clock jumped ahead."""
    tokens = "/var/lib/kubelet/pods/*/volumes/kubernetes.io~projected/*/token"
    return cluster.holds(f"for token in {tokens}; do [ $token -nt /run/jumped ] || exit 1; done")


def put_right(cluster: Cluster) -> None:
    """What docs/operations.md has to be done on a host whose clock was ahead."""
    section = (pins.CHECKOUT / "docs/operations.md").read_text().split("\n## The clock was wrong\n")[1]
    recipe = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[0]
    docker("exec", cluster.controller, "sh", "-euc", recipe)


def test_the_clock_of_a_controller_jumps(cluster: Cluster) -> None:
    address = cluster.address
    with harmless(cluster, "jump"):
        known = credentials(cluster.stack)
        assert known is not None
        with Prober.start(known, address, 6443, rate=20) as client:
            cluster.on_controller("touch /run/jumped")
            jump(cluster.controller, DAY)
            assert time_of(cluster) - now() > timedelta(hours=23)
            works(cluster, "ahead")
            # The kubelet looks at a pod's volumes every minute or two.
            eventually("tokens of tomorrow", 180, lambda: tokens_are_new(cluster), every=1)
            assert answers(cluster) == ["200"]
            cluster.stack.second_up_changes_nothing()

            jump(cluster.controller, 0)
            assert time_of(cluster) - now() < timedelta(minutes=1)
            works(cluster, "right")
            # They are not valid yet, and the kubelet would keep them for a day.
            eventually("tokens of tomorrow to be refused", 30, lambda: answers(cluster) == ["401"], every=1)
            put_right(cluster)
            eventually("tokens of today", 60, lambda: answers(cluster) == ["200"], every=1)
            counts = client.stop()
        print(counts)
        assert counts["lost"] == 0, counts
    assert cluster.manifests() == {"etcd.yaml"}


def reasons(cluster: Cluster) -> set[Any]:
    """Why containers of kube-system do not run."""
    return {
        container["state"].get("waiting", {}).get("reason")
        for pod in cluster.stack.get("pods", SYSTEM)["items"]
        for container in pod["status"].get("containerStatuses", [])
    }


def test_a_controller_boots_with_a_wrong_clock_and_with_the_right_one(cluster: Cluster) -> None:
    with harmless(cluster, "boot"):
        jump(cluster.controller, DAY)
        cluster.power_cut()
        assert cluster.holds("[ -e /etc/kubernetes/manifests/kube-apiserver-checkpoint.json ]")
        cluster.stands_alone(now() + timedelta(hours=23), "controller-1")
        works(cluster, "booted-ahead")
        cluster.stack.second_up_changes_nothing()

        jump(cluster.controller, 0)
        since = cluster.power_cut()
        # To the kubelet the containers of tomorrow, which have ended, are the latest.
        eventually("names to be taken", 120, lambda: "CreateContainerError" in reasons(cluster), every=1)
        put_right(cluster)
        cluster.stands_alone(since, "controller-1")
        works(cluster, "booted-right")


def test_destroy_leaves_nothing(cluster: Cluster) -> None:
    cluster.stack.destroy()
    label = "label=kubepivot.cluster=clock"
    assert docker("container", "ls", "--all", "--quiet", "--filter", label) == ""
