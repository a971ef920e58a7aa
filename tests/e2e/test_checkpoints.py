"""What can become of the checkpoints and of those who keep them; the API comes back from what is left."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.programs.checkpointer.state import DEAD_SECONDS, UNLED_SECONDS
from lab import apt
from lab.engine import docker
from tests.e2e.disasters import (
    APISERVER,
    CHECKPOINTER,
    CHECKPOINTS,
    LEADERS,
    READY_SECONDS,
    SYSTEM,
    Cluster,
    harmless,
)
from tests.e2e.probing import wait_until_ready
from tests.e2e.stacks import Stack, eventually

pytestmark = pytest.mark.e2e

EVERYTHING = (APISERVER, CHECKPOINTER, *LEADERS)
ARMED = "kube-apiserver-checkpoint.json"
EVER = datetime.min.replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def cluster(new_stack: Callable[..., Stack]) -> Iterator[Cluster]:
    cluster = Cluster(new_stack, "saved", 11)
    cluster.up()
    eventually("every checkpoint", 30, lambda: cluster.is_saved(*EVERYTHING))
    yield cluster


def checkpointers(cluster: Cluster) -> Any:
    """Pods of the pod-checkpointer."""
    return cluster.stack.get("pods", SYSTEM, "--selector=app.kubernetes.io/name=pod-checkpointer")["items"]


def said(cluster: Cluster) -> str:
    """What the pod-checkpointer has said."""
    return cluster.stack.kubectl("logs", SYSTEM, "daemonset/pod-checkpointer")


# -- what is on disk -----------------------------------------------------------------------------------------

# A filesystem of its own from now on, and a hook for what happens to it while the host is off. A container
# has no loop devices, and loses those that it makes at every boot.
SMALL_DISK = f"""
cat >/usr/local/sbin/small-disk <<'SCRIPT'
#!/bin/sh
set -eu
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
for number in $(seq 0 63); do [ -e "/dev/loop$number" ] || mknod "/dev/loop$number" b 7 "$number"; done
mount -o loop /var/lib/small.img {CHECKPOINTS}
[ ! -e /var/lib/damage ] || sh -eu /var/lib/damage
SCRIPT
chmod 0755 /usr/local/sbin/small-disk
cat >/etc/systemd/system/small-disk.service <<'UNIT'
[Unit]
DefaultDependencies=no
Before=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/small-disk
[Install]
WantedBy=local-fs.target
UNIT
systemctl enable --quiet small-disk
mke2fs -q -t ext4 -O ^has_journal -m 0 -N 512 -d {CHECKPOINTS} /var/lib/small.img 2M
systemctl start small-disk
"""
FILLER = f"{CHECKPOINTS}/filler"


def test_the_checkpoint_directory_is_removed(cluster: Cluster) -> None:
    with harmless(cluster, "removed"):
        cluster.on_controller(f"rm -rf {CHECKPOINTS}")
        eventually("every checkpoint", 10, lambda: cluster.is_saved(*EVERYTHING))
        since = cluster.power_cut()
        assert ARMED in cluster.manifests()
        cluster.stands_alone(since, "controller-1")


def test_the_disk_is_full_while_the_apiserver_rolls(cluster: Cluster) -> None:
    """The new one cannot be saved, the old one starts the API; with space the new one is saved."""
    cluster.on_controller(SMALL_DISK)
    # A pod sees a mount of its host if it began after it.
    cluster.stack.kubectl("delete", SYSTEM, "pod", "--selector=app.kubernetes.io/name=pod-checkpointer")
    cluster.stack.kubectl("rollout", "status", SYSTEM, "daemonset/pod-checkpointer", "--timeout=60s")
    old = cluster.revision("current")
    with harmless(cluster, "full"):
        cluster.on_controller(f"! dd if=/dev/zero of={FILLER} bs=1k oflag=sync 2>/dev/null")
        cluster.stack.up("--replace", cluster.stack.state()["saved-apiserver-cert"]["urn"])
        eventually("the refusal", 60, lambda: "No space left on device" in said(cluster), every=1)
        since = cluster.power_cut()
        assert ARMED in cluster.manifests()
        assert cluster.is_saved(*EVERYTHING)
        assert cluster.revision("current") == old
        cluster.on_controller(f"rm {FILLER}")
        cluster.stands_alone(since, "controller-1")
        eventually("the new one to be saved", 60, lambda: cluster.revision("current") != old)
    assert cluster.revision("previous") == old


def test_a_checkpoint_is_cut_short_while_the_host_is_off(cluster: Cluster) -> None:
    current, previous = cluster.revision("current"), cluster.revision("previous")
    home = f"{CHECKPOINTS}/{APISERVER}"
    with harmless(cluster, "truncated"):
        damage = f"truncate --size=100 {home}/current/{ARMED}; rm /var/lib/damage"
        cluster.on_controller(f"echo '{damage}' >/var/lib/damage")
        since = cluster.power_cut()
        boot = cluster.on_controller("journalctl --boot --unit=kubepivot-checkpoints --output=cat")
        assert f"{home}/current is damaged" in boot
        assert f"/{previous}/" in cluster.on_controller(f"cat /etc/kubernetes/manifests/{ARMED}")
        cluster.stands_alone(since, "controller-1")
        whole = f"cd {home}/{current} && sha256sum --check --strict --status SHA256SUMS"
        eventually("the damaged one to be written anew", 60, lambda: cluster.holds(whole))


# -- who keeps them ------------------------------------------------------------------------------------------


def test_the_apiservers_daemonset_is_deleted(cluster: Cluster) -> None:
    """Nothing makes its pod again; its checkpoint serves, and a refresh finds that it is missing."""
    old = cluster.apiserver()
    with harmless(cluster, "apiserver"):
        cluster.stack.kubectl("delete", SYSTEM, "daemonset", "kube-apiserver")
        eventually("the armed pods", 120, lambda: ARMED in cluster.manifests())
        wait_until_ready(cluster.endpoint, cluster.known["ca"], READY_SECONDS)
        cluster.stack.pulumi("preview", "--expect-no-changes")  # it does not look at the cluster
        cluster.stack.up("--refresh")
        cluster.stands_alone(EVER)
    assert cluster.apiserver()["metadata"]["uid"] != old["metadata"]["uid"]


def test_the_checkpointers_daemonset_is_deleted(cluster: Cluster) -> None:
    """Nobody keeps the checkpoints any more: what there is starts the API, its own copy included. The host
    does that, and a boot.
    """
    with harmless(cluster, "checkpointer"):
        cluster.stack.kubectl("delete", SYSTEM, "daemonset", "pod-checkpointer")
        eventually("the pod-checkpointer to go", 60, lambda: not checkpointers(cluster))
        cluster.stack.kubectl("delete", SYSTEM, "daemonset", "kube-apiserver")
        eventually("the armed pods", 150, lambda: ARMED in cluster.manifests(), every=1)
        wait_until_ready(cluster.endpoint, cluster.known["ca"], READY_SECONDS)
        since = cluster.power_cut()
        assert ARMED in cluster.manifests()
        cluster.stack.up("--refresh")
        cluster.stands_alone(since, "controller-1")


REGISTRY = "/etc/containerd/certs.d/docker.io/hosts.toml"
IMAGE_GONE = f"""
cp {REGISTRY} {REGISTRY}.kept
echo 'server = "https://127.0.0.1:9"' >{REGISTRY}
images() {{ ctr --namespace k8s.io images list; }}
digest=$(images | awk '/library.python/ {{ print $3; exit }}')
ctr --namespace k8s.io images remove --sync $(images | awk -v digest="$digest" '$3 == digest {{ print $1 }}')
"""


def test_the_checkpointers_image_is_gone(cluster: Cluster) -> None:
    """The boot needs no image of its own. Without the checkpointer copies stay beside the real pods."""
    selector = "--selector=app.kubernetes.io/name=pod-checkpointer"

    def cannot_be_pulled() -> bool:
        (pod,) = cluster.stack.get("pods", SYSTEM, selector)["items"]
        reasons = [
            each["state"].get("waiting", {}).get("reason") for each in pod["status"]["containerStatuses"]
        ]
        return reasons in (["ErrImagePull"], ["ImagePullBackOff"])

    with harmless(cluster, "image"):
        cluster.on_controller(IMAGE_GONE)
        since = cluster.power_cut()
        eventually("the image to be missed", 90, cannot_be_pulled, every=1)
        assert ARMED in cluster.manifests()
        cluster.on_controller(f"mv {REGISTRY}.kept {REGISTRY}")
        cluster.stands_alone(since, "controller-1")


# -- what has no living instance -----------------------------------------------------------------------------

ROLE = "node-role.kubernetes.io/control-plane"


def test_the_nodes_are_deleted(cluster: Cluster) -> None:
    """Both register again by themselves before the pod GC looks, with role and addresses. Containers run on
    but for flannel's, which asks for a lease of the new Node, and kube-proxy's, which since 1.37 ends when
    its Node is deleted.
    """

    def nodes() -> dict[str, dict[str, Any]]:
        return {each["metadata"]["name"]: each for each in cluster.stack.get("nodes")["items"]}

    def containers() -> dict[str, str]:
        """Pod and name by identifier, of those that run in pods that stay."""
        others = "--selector=app.kubernetes.io/name notin (flannel, kube-proxy)"
        found = cluster.stack.get("pods", SYSTEM, others)["items"]
        return {
            each["containerID"]: f"{pod['metadata']['name']}/{each['name']}"
            for pod in found
            if "deletionTimestamp" not in pod["metadata"]
            for each in pod["status"].get("containerStatuses", [])
            if "running" in each["state"]
        }

    def missing() -> list[str]:
        return sorted(running[each] for each in running.keys() - containers().keys())

    def known(node: dict[str, Any]) -> tuple[object, ...]:
        conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}
        taints = [each["key"] for each in node["spec"].get("taints", [])]
        # A new Node has neither: the kubelet labels it, the controller manager gives the range.
        return conditions.get("Ready"), node["metadata"].get("labels"), taints, node["spec"].get("podCIDR")

    def registered() -> bool:
        found = nodes()
        return found.keys() == before.keys() and all(
            known(node) == known(before[name]) and node["metadata"]["uid"] != before[name]["metadata"]["uid"]
            for name, node in found.items()
        )

    before, running = nodes(), containers()
    assert known(before["controller-1"])[2] == [ROLE]
    with harmless(cluster, "nodes"):
        begin = time.monotonic()
        cluster.stack.kubectl("delete", "nodes", "--all", "--wait=false")
        eventually("the nodes to be back", 90, registered, every=1)
        print(f"both nodes were back after {time.monotonic() - begin:.0f} s")
        assert missing() in ([], ["etcd-controller-1/etcd"])
        eventually("etcd's pod to be shown again", 60, lambda: not missing(), every=1)
        assert cluster.manifests() == {"etcd.yaml"}
        cluster.stands_alone(EVER)


def test_the_endpoints_of_the_api_are_deleted(cluster: Cluster) -> None:
    """Both come back by themselves, as the program has made them."""
    kinds = ("endpoints", "endpointslices")

    def known() -> list[Any]:
        found = [cluster.stack.get(kind, "--field-selector=metadata.name=kubernetes") for kind in kinds]
        return [{**each, "metadata": None} for kind in found for each in kind["items"]]

    before = known()
    assert len(before) == len(kinds)
    with harmless(cluster, "endpoints"):
        cluster.stack.kubectl("delete", *(f"{kind}/kubernetes" for kind in kinds))
        eventually("the endpoints", 60, lambda: known() == before, every=1)


def test_nobody_leads(cluster: Cluster) -> None:
    """Neither controller manager nor scheduler is left to make and place the next ones: their copies do."""
    deployments = [f"deployment/{owner.removeprefix('kube-system-Deployment-')}" for owner in LEADERS]
    copies = {f"{name.removeprefix('deployment/')}-checkpoint.json" for name in deployments}

    def has_left(number: int) -> bool:
        names = "--selector=app.kubernetes.io/name in (kube-controller-manager,kube-scheduler)"
        return len(cluster.stack.get("pods", SYSTEM, names)["items"]) == number

    with harmless(cluster, "leaders"):
        # The controller manager, the last to go, takes the pods of both away.
        for deployment, others in zip(reversed(deployments), (1, 0), strict=True):
            cluster.stack.kubectl("scale", SYSTEM, deployment, "--replicas=0")
            eventually(f"no pod of {deployment}", 60, partial(has_left, others))
        for deployment in deployments:
            cluster.stack.kubectl("scale", SYSTEM, deployment, "--replicas=1")
        eventually("their copies", UNLED_SECONDS + 30, lambda: cluster.manifests() >= copies, every=1)
        cluster.stands_alone(EVER)
        assert has_left(len(deployments))


# -- the clock -----------------------------------------------------------------------------------------------

CLOCK = "/etc/kubernetes/clock"
FAKED = {"LD_PRELOAD": f"{CLOCK}/clock.so", "CLOCK_OFFSET": f"{CLOCK}/offset"}


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """libfaketime would do, but makes Python's `time.sleep` fail."""
    apt.ensure_command("gcc", "gcc", "libc6-dev")
    source, library = Path(__file__).with_name("clock.c"), tmp_path / "clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    return library


def test_the_checkpointers_clock_jumps_by_a_day(cluster: Cluster, clock: Path) -> None:
    """The checkpointer's alone: programs in Go ask the kernel, whose clock is this machine's as well."""
    daemonset = "daemonset/pod-checkpointer"
    cluster.on_controller(f"mkdir {CLOCK} && echo 0 >{CLOCK}/offset")
    docker("cp", str(clock), f"{cluster.controller}:{CLOCK}/clock.so")

    def a_day_ahead() -> bool:
        code = "import time; print(time.time() - 86000)"
        command = ["kubectl", "exec", SYSTEM, daemonset, "--", "python3", "-c", code]
        done = subprocess.run(command, env=cluster.stack.environment, capture_output=True, timeout=20)
        return done.returncode == 0 and float(done.stdout) > time.time()

    with harmless(cluster, "clock"):
        cluster.stack.kubectl("set", "env", SYSTEM, daemonset, *(f"{k}={v}" for k, v in FAKED.items()))
        cluster.stack.kubectl("rollout", "status", SYSTEM, daemonset, "--timeout=60s")
        cluster.on_controller(f"echo 86400 >{CLOCK}/offset")
        eventually("the clock to jump", 60, a_day_ahead, every=1)
        jumped = time.monotonic()
        cluster.on_controller(f"rm -rf {CHECKPOINTS}/*")
        eventually("every checkpoint", 30, lambda: cluster.is_saved(*EVERYTHING))
        while time.monotonic() < jumped + DEAD_SECONDS + 5:  # what nobody answers is armed by then
            assert cluster.manifests() == {"etcd.yaml"}
            time.sleep(1)
        # Before the cluster's certificates are valid: nothing that answers is believed.
        cluster.on_controller(f"echo -86400 >{CLOCK}/offset")
        eventually("the armed pods", 40, lambda: ARMED in cluster.manifests())
        cluster.on_controller(f"echo 0 >{CLOCK}/offset")
        cluster.stands_alone(EVER)
        cluster.stack.kubectl("set", "env", SYSTEM, daemonset, *(f"{name}-" for name in FAKED))
        cluster.stack.kubectl("rollout", "status", SYSTEM, daemonset, "--timeout=60s")


def test_destroy_leaves_nothing(cluster: Cluster) -> None:
    cluster.stack.destroy()
    assert docker("container", "ls", "--all", "--quiet", "--filter", "label=kubepivot.cluster=saved") == ""
