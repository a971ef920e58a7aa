"""A control plane that nothing can start any more, brought back by one value of the config."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from lab.engine import docker
from lab.errors import LabError
from tests.e2e.killing import descendants
from tests.e2e.probing import credentials, ready, wait_until_ready
from tests.e2e.stacks import Stack, eventually, lab_config
from tests.e2e.witnesses import Writer, add_users, apiservers, lost, users

pytestmark = pytest.mark.e2e

ENDPOINT = "https://172.30.9.11:6443"
CONTROLLER, WORKER = "recovery-controller-1", "recovery-worker-1"
SYSTEM = "--namespace=kube-system"
LEADERS = ("kube-scheduler", "kube-controller-manager")
"""The second takes the first's pods away."""
CHECKPOINTS = "/etc/kubernetes/checkpoints"
BACKUPS = "/var/lib/kubepivot/backups"
# A recovery takes no longer than these or, on a slow machine, than the cluster took to come up.
RECOVERED_SECONDS, RESTORED_SECONDS = 60, 90
SILENT_SECONDS = 60
"""For how long a worker may be silent before it is taken for dead."""
OWNERS = [f"kube-system-DaemonSet-{name}" for name in ("kube-apiserver", "pod-checkpointer")]
OWNERS += [f"kube-system-Deployment-kube-{name}" for name in ("controller-manager", "scheduler")]
# What comes and goes by itself, and the pods that a recovery makes anew.
FLEETING = tuple(
    f"/registry/{kind}/"
    for kind in ("events", "leases", "masterleases", "peerserverleases", "pods/kube-system")
)


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    stack = new_stack("recovery", lab_config(9))
    begin = time.monotonic()
    stack.up()
    seconds = time.monotonic() - begin
    print(f"pulumi up took {seconds:.0f} s")
    stack.pace = max(1, seconds / RECOVERED_SECONDS)
    add_users(stack)
    yield stack


def on_controller(*command: str) -> str:
    return docker("exec", CONTROLLER, *command)


def configure(stack: Stack, generation: int, **rest: str) -> None:
    stack.configure(lab_config(9) | {"recovery": {"generation": generation, **rest}})


def recover(stack: Stack, generation: int, limit: float, **rest: str) -> str:
    """Raises the generation; what `pulumi up` said."""
    configure(stack, generation, **rest)
    begin = time.monotonic()
    output = stack.up()
    seconds = time.monotonic() - begin
    print(f"generation {generation}: pulumi up took {seconds:.1f} s")
    told = re.findall(r"-recover \w+ing \((\d+)s\) (?:\[diff: .*?\];? ?)?(.+)", output)
    for second, what in dict.fromkeys(told):
        print(f"  {second:>3} s: {what}")
    assert seconds < limit * stack.pace
    return output


def answers(stack: Stack) -> bool:
    known = credentials(stack)
    assert known is not None
    return ready(ENDPOINT, known["ca"])


def new_writer(stack: Stack, prefix: str) -> Writer:
    known = credentials(stack)
    assert known is not None
    return Writer(ENDPOINT, known, prefix)


def containers(stack: Stack) -> dict[str, tuple[str, str]]:
    """Containers of the user's pods, and since when they run."""
    found: list[Any] = stack.get("pods", "--selector=app=users")["items"]
    return {
        pod["metadata"]["uid"]: (status["containerID"], status["state"]["running"]["startedAt"])
        for pod in found
        for status in pod["status"]["containerStatuses"]
    }


def pods(stack: Stack, *components: str) -> set[str]:
    """UIDs of their pods."""
    names = f"--selector=app.kubernetes.io/name in ({','.join(components)})"
    return {pod["metadata"]["uid"] for pod in stack.get("pods", SYSTEM, names)["items"]}


def gone(stack: Stack, component: str) -> bool:
    return not pods(stack, component)


def control_plane(stack: Stack) -> set[str]:
    """UIDs of its pods."""
    return pods(stack, "kube-apiserver", *LEADERS)


def manifests() -> set[str]:
    return set(on_controller("ls", "-A", "/etc/kubernetes/manifests").split())


def is_well(stack: Stack) -> bool:
    """Whether every pod of kube-system is Ready, and nothing temporary is among them."""
    found = stack.get("pods", SYSTEM)["items"]
    conditions = [{each["type"]: each["status"] for each in pod["status"]["conditions"]} for pod in found]
    names = [pod["metadata"]["name"] for pod in found]
    return all(each.get("Ready") == "True" for each in conditions) and not [
        name for name in names if name.startswith("bootstrap-") or "checkpoint-" in name
    ]


def as_before(stack: Stack) -> None:
    """Everything is as on a cluster that was never ill, and the next disaster may come."""
    eventually("only etcd to be static", 240, lambda: manifests() == {"etcd.yaml"})
    eventually("every pod to be Ready", 120, lambda: is_well(stack))
    stack.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
    stack.kubectl("rollout", "status", "deployment/users", "--timeout=60s")
    arm = "/usr/local/libexec/kubepivot/arm-checkpoints"
    saved = " && ".join(f"{arm} --check {owner}" for owner in OWNERS)
    eventually(
        "whole checkpoints", 60, lambda: on_controller("sh", "-c", f"{saved} && echo yes || echo no") == "yes"
    )
    assert "bootstrap-secrets" not in on_controller("ls", "/etc/kubernetes")
    stack.second_up_changes_nothing()


def delete_all(stack: Stack, *kinds: str) -> None:
    """What nobody should do in kube-system. The API goes with the DaemonSets, maybe before kubectl ends."""
    delete = ["kubectl", "--request-timeout=5s", "delete", SYSTEM, "--all", "--force", "--grace-period=0"]
    for kind in kinds:
        done = subprocess.run(
            [*delete, kind], env=stack.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0 or not answers(stack), done.stderr
    eventually("the API to go", 120, lambda: not answers(stack))
    for kind in {*",".join(kinds).split(",")} - {"pods"}:
        # What kubectl did not get to any more.
        etcdctl("del", "--prefix", f"/registry/{kind}/kube-system/")
        assert etcdctl("get", "--prefix", "--keys-only", f"/registry/{kind}/kube-system/") == ""


# A host that is no more: nobody renews its lease, and its pod counts as running until somebody looks.
GHOST = """
apiVersion: v1
kind: Node
metadata: {name: ghost}
---
apiVersion: v1
kind: Pod
metadata: {name: ghost}
spec:
  nodeName: ghost
  tolerations: [{operator: Exists}]
  containers: [{name: ghost, image: "docker.io/library/busybox:1.35"}]
"""


@pytest.mark.life
def test_all_objects_of_the_control_plane_are_deleted(stack: Stack) -> None:
    stack.kubectl("apply", "--filename=-", stdin=GHOST)
    etcdctl("put", "/registry/masterleases/192.0.2.1", "an apiserver that is no more")
    before, old = containers(stack), control_plane(stack)
    with new_writer(stack, "objects") as writer:
        delete_all(stack, "daemonsets,deployments")
        written = len(writer.acknowledged)
        output = recover(stack, 1, RECOVERED_SECONDS)
        assert list(apiservers(stack).values()) == [0], "the new one found itself at localhost"
        assert "handing over to the real control plane" in output
        assert not old & control_plane(stack)
        for kind in ("node", "pod"):
            assert "NotFound" in stack.kubectl("get", kind, "ghost", fails=True)
        assert etcdctl("get", "--prefix", "--keys-only", "/registry/masterleases/") == ""
        eventually("the user to go on", 20, lambda: len(writer.acknowledged) > written + 5)
    as_before(stack)
    assert lost(stack, writer.acknowledged) == set()
    assert containers(stack) == before, "the user's pods did not notice"


def test_secrets_and_checkpoints_are_gone_too(stack: Stack) -> None:
    before = containers(stack)
    with new_writer(stack, "secrets") as writer:
        delete_all(stack, "secrets,configmaps", "daemonsets,deployments", "pods")
        on_controller("sh", "-c", f"rm -rf {CHECKPOINTS} /etc/kubernetes/manifests/*-checkpoint.json")
        recover(stack, 2, RECOVERED_SECONDS)
        assert list(apiservers(stack).values()) == [0], "the new one found itself at localhost"
        writer.writes_on()
    as_before(stack)
    assert lost(stack, writer.acknowledged) == set()
    assert containers(stack) == before


def test_nobody_makes_pods_any_more(stack: Stack) -> None:
    """Neither scheduler nor controller manager is left; kube-apiserver serves, and nothing is armed."""
    before = containers(stack)
    with new_writer(stack, "nobody") as writer:
        for leader in LEADERS:
            stack.kubectl("scale", SYSTEM, f"deployment/{leader}", "--replicas=0")
            eventually(f"no {leader}", 60, partial(gone, stack, leader))
        stack.kubectl("scale", SYSTEM, *(f"deployment/{leader}" for leader in LEADERS), "--replicas=1")
        recover(stack, 3, RECOVERED_SECONDS)
        assert list(apiservers(stack).values()) == [0], "the new one found itself at localhost"
        writer.writes_on()
    as_before(stack)
    assert lost(stack, writer.acknowledged) == set()
    assert containers(stack) == before


CTR = "ctr --namespace k8s.io"
KILL_CHECKPOINTER = (
    f"for id in $({CTR} containers list --quiet "
    """'labels."io.kubernetes.container.name"==pod-checkpointer'); do """
    f"! {CTR} tasks list --quiet | grep -qx $id || {CTR} tasks kill --signal SIGKILL $id; done"
)


def test_checkpoints_are_lost_before_a_reboot_and_a_worker_is_cut_off(stack: Stack) -> None:
    """The controller boots with etcd only. The worker is taken for dead, and comes back."""
    with new_writer(stack, "lost") as writer:
        on_controller(
            *("sh", "-ec"),
            f"systemctl stop kubelet; {KILL_CHECKPOINTER}; rm -rf {CHECKPOINTS}",
        )
        docker("kill", CONTROLLER)
        docker("pause", WORKER)
        try:
            docker("start", CONTROLLER)
            eventually("etcd", 60, etcd_is_well)
            assert manifests() == {"etcd.yaml"}
            assert not answers(stack)
            output = recover(stack, 4, RECOVERED_SECONDS + SILENT_SECONDS)
        finally:
            docker("unpause", WORKER)
        assert f"node worker-1 has not been heard of for {SILENT_SECONDS} s: it is removed" in output
        assert "NotFound" in stack.kubectl("get", "node", "worker-1", fails=True)
        eventually("the worker to be a node again", 90, lambda: len(stack.get("nodes")["items"]) == 2)
        writer.writes_on()
    as_before(stack)
    assert lost(stack, writer.acknowledged) == set()


@pytest.mark.life
def test_etcd_is_lost_and_a_snapshot_is_there(stack: Stack) -> None:
    with new_writer(stack, "saved") as writer:
        writer.writes_on()
    before, uids, keys, snapshot = containers(stack), identities(stack), registry(), back_up()
    stack.kubectl("create", "configmap", "after-the-snapshot")
    on_controller("sh", "-c", "rm -rf /var/lib/etcd/*")
    docker("kill", CONTROLLER)
    docker("start", CONTROLLER)
    recover(stack, 5, RESTORED_SECONDS, snapshot=snapshot)
    assert identities(stack) == uids
    assert lost(stack, writer.acknowledged) == set()
    assert keys - registry() == set()
    stack.kubectl("get", "configmap", "after-the-snapshot", fails=True)
    as_before(stack)
    assert containers(stack) == before


def identities(stack: Stack) -> dict[str, str]:
    found = [stack.get("namespace", "kube-system"), stack.get("deployment", "users")]
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in found}


def etcdctl(*arguments: str) -> str:
    pki = "/etc/kubernetes/pki/etcd"
    login = (f"--cacert={pki}/ca.crt", f"--cert={pki}/server.crt", f"--key={pki}/server.key")
    return on_controller("etcdctl", "--endpoints=https://127.0.0.1:2379", *login, *arguments)


def etcd_is_well() -> bool:
    try:
        return "is healthy" in etcdctl("endpoint", "health", "--write-out=simple")
    except LabError:
        return False


def back_up() -> str:
    """A snapshot as the product makes it: its path on the controller."""
    on_controller("systemctl", "start", "kubepivot-backup")
    *_, newest, digest = sorted(on_controller("ls", BACKUPS).split())
    assert digest == f"{newest}.sha256"
    return f"{BACKUPS}/{newest}"


def registry() -> set[str]:
    """Keys of all objects that last."""
    found = etcdctl("get", "/registry/", "--prefix", "--keys-only").split()
    return {key for key in found if not key.startswith(FLEETING)}


def taken_over(since: str) -> bool:
    """Whether a real kube-apiserver has got all connections after that time, as its filter tells."""
    said = on_controller("sh", "-c", "grep -rhs 'answers at localhost' /var/log/pods || true")
    everything = re.compile(r"(\S+) .* number (\d+) answers at localhost, number \2 elsewhere")
    return any(line[1] > since for line in everything.finditer(said))


def test_a_restore_of_what_works_goes_back_in_time_and_survives_a_kill(stack: Stack) -> None:
    """Pulumi is killed and the controller's power cut in the middle of it. Then a real kube-apiserver has all
    connections, beside a checkpoint and the temporary one.
    """
    stack.kubectl("create", "configmap", "before-the-snapshot")
    before, keys, snapshot = users(stack), registry(), back_up()
    stack.kubectl("create", "configmap", "too-much")
    stack.kubectl("delete", "configmap", "before-the-snapshot")
    configure(stack, 6, snapshot=snapshot)
    process = stack.start("up", "--yes", "--skip-preview", output=subprocess.DEVNULL)
    eventually("the temporary control plane", 90, lambda: "bootstrap-apiserver.yaml" in manifests())
    for pid in descendants(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(timeout=30)
    docker("kill", CONTROLLER)
    cut = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    docker("start", CONTROLLER)
    stack.pulumi("cancel", "--yes")
    eventually("a real kube-apiserver to take over", 150, lambda: taken_over(cut))
    assert "bootstrap-apiserver.yaml" in manifests()
    recover(stack, 6, RESTORED_SECONDS, snapshot=snapshot)
    stack.kubectl("get", "configmap", "too-much", fails=True)
    stack.kubectl("get", "configmap", "before-the-snapshot")
    assert keys - registry() == set()
    as_before(stack)
    assert users(stack).keys() == before.keys()
    aside = on_controller("ls", "/var/lib/etcd").split()
    assert sorted(aside) == ["before-recovery-6", "member"]


def test_a_reboot_after_a_recovery(stack: Stack) -> None:
    docker("kill", CONTROLLER, WORKER)
    docker("start", CONTROLLER, WORKER)
    known = credentials(stack)
    assert known is not None
    wait_until_ready(ENDPOINT, known["ca"], 60)
    as_before(stack)


def test_a_generation_is_done_once(stack: Stack) -> None:
    """Another value of the config runs the step again, and it does nothing."""
    old = control_plane(stack)
    recover(stack, 6, 30)
    assert control_plane(stack) == old
    stack.second_up_changes_nothing()


# Nobody listens there.
WEBHOOK = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: nobody}
webhooks:
  - name: pods.example.com
    clientConfig: {url: "https://127.0.0.1:1/"}
    rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
    failurePolicy: Fail
    sideEffects: None
    admissionReviewVersions: [v1]
    timeoutSeconds: 5
"""


def test_where_no_pod_can_be_made_a_working_cluster_is_left_as_it_is(stack: Stack) -> None:
    old = control_plane(stack)
    stack.kubectl("apply", "--filename=-", stdin=WEBHOOK)
    configure(stack, 7)
    begin = time.monotonic()
    output = stack.up(fails=True)
    seconds = time.monotonic() - begin
    stack.kubectl("delete", "validatingwebhookconfiguration", "nobody")
    print(f"refused after {seconds:.0f} s")
    assert 'failed calling webhook "pods.example.com"' in output
    assert "none was deleted" in output
    assert seconds < 60
    assert control_plane(stack) == old
    # The record of the generation goes back, and nothing else is done.
    configure(stack, 6)
    assert "1 updated" in stack.up()
    as_before(stack)
