"""Hosts that go away and come back under somebody's feet, and what has to be as it was afterwards."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.engine import docker
from tests.e2e.probing import credentials, wait_until_ready
from tests.e2e.stacks import Stack, eventually, lab_config
from tests.e2e.witnesses import Writer, add_users, lost, users

READY_SECONDS = 60
SETTLED_SECONDS = 240

SYSTEM = "--namespace=kube-system"
CHECKPOINTS = "/etc/kubernetes/checkpoints"
APISERVER = "kube-system-DaemonSet-kube-apiserver"
CHECKPOINTER = "kube-system-DaemonSet-pod-checkpointer"
LEADERS = tuple(f"kube-system-Deployment-kube-{name}" for name in ("controller-manager", "scheduler"))


class Cluster:
    """A lab of one controller and one worker, and what can befall it."""

    def __init__(self, new_stack: Callable[..., Stack], name: str, subnet: int, **changes: Any) -> None:
        self.stack = new_stack(name, {**lab_config(subnet), **changes})
        self.address = f"172.30.{subnet}.11"
        self.endpoint = f"https://{self.address}:6443"
        self.controller, self.worker = f"{name}-controller-1", f"{name}-worker-1"

    def up(self) -> None:
        """Brings it up, with somebody's pods on it."""
        begin = time.monotonic()
        self.stack.up()
        print(f"pulumi up took {time.monotonic() - begin:.0f} s")
        add_users(self.stack)

    @cached_property
    def known(self) -> dict[str, str]:
        """What logs in whatever became of the cluster's roles. None of the scenarios changes it."""
        known = credentials(self.stack, "super-admin")
        assert known is not None
        return known

    def write_kubeconfig(self) -> None:
        """For kubectl before the first `pulumi up` has ended."""
        data = {key: base64.b64encode(text.encode()).decode() for key, text in self.known.items()}
        cluster = {"server": self.endpoint, "certificate-authority-data": data["ca"]}
        user = {"client-certificate-data": data["cert"], "client-key-data": data["key"]}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file = Path(self.stack.environment["KUBECONFIG"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kubeconfig))

    def on_controller(self, command: str) -> str:
        """What a command on the controller prints."""
        return docker("exec", self.controller, "sh", "-ec", command)

    def holds(self, condition: str) -> bool:
        """Whether a shell's condition holds on the controller; not while it does not run."""
        command = ["docker", "exec", self.controller, "sh", "-c", condition]
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0

    # -- what befalls it -------------------------------------------------------------------------------------

    def start(self, *hosts: str) -> float:
        """Starts hosts, the controller by default; the seconds from then until the API is ready."""
        known, begin = self.known, time.monotonic()
        docker("start", *(hosts or [self.controller]))
        wait_until_ready(self.endpoint, known["ca"], READY_SECONDS)
        return time.monotonic() - begin

    def power_cut(self) -> datetime:
        """The controller loses its power and gets it back; when that was. The API is ready then."""
        power_cut(self.controller)
        since = now()
        print(f"ready {self.start():.1f} s after the host's start")
        return since

    # -- what is there ---------------------------------------------------------------------------------------

    def manifests(self) -> set[str]:
        """Static pods of the controller."""
        return set(self.on_controller("ls -A /etc/kubernetes/manifests").split())

    def is_saved(self, *owners: str) -> bool:
        """Whether a reboot would find a whole checkpoint of each."""
        check = "/usr/local/libexec/kubepivot/arm-checkpoints --check"
        return self.holds(" && ".join(f"{check} {owner}" for owner in owners))

    def revision(self, link: str, owner: str = APISERVER) -> str:
        """Which one `current` or `previous` is."""
        return self.on_controller(f"readlink {CHECKPOINTS}/{owner}/{link}")

    def apiserver(self) -> dict[str, Any]:
        """The one pod that its DaemonSet has."""
        (pod,) = self._apiservers()
        return pod

    def _apiservers(self) -> list[dict[str, Any]]:
        selector = "--selector=app.kubernetes.io/name=kube-apiserver"
        found: list[dict[str, Any]] = self.stack.get("pods", SYSTEM, selector)["items"]
        return found

    def rolls(self) -> bool:
        """Whether a second kube-apiserver was made, and the first is there still."""
        return len(self._apiservers()) == 2

    def writer(self, prefix: str) -> Writer:
        """Somebody who writes to the API meanwhile."""
        return Writer(self.endpoint, self.known, prefix)

    # -- what has to be --------------------------------------------------------------------------------------

    def stands_alone(self, since: datetime, *nodes: str) -> None:
        """Waits until the real control plane stands alone and every pod runs, on those nodes begun since."""
        eventually(
            "the armed pods to go", SETTLED_SECONDS, lambda: self.manifests() == {"etcd.yaml"}, every=1
        )
        eventually("every pod to run again", SETTLED_SECONDS, lambda: self._fresh(since, *nodes), every=1)
        self.stack.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
        self.stack.kubectl("rollout", "status", "deployment/users", "--timeout=60s")

    def _fresh(self, since: datetime, *nodes: str) -> bool:
        """Whether every pod of kube-system is a real one and Ready, and began since on those nodes."""
        for pod in self.stack.get("pods", SYSTEM)["items"]:
            if "checkpoint-" in pod["metadata"]["name"] or pod["metadata"]["name"].startswith("bootstrap-"):
                return False
            conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
            if conditions.get("Ready") != "True":
                return False
            if pod["spec"]["nodeName"] in nodes:
                for container in pod["status"]["containerStatuses"]:
                    began = container["state"].get("running", {}).get("startedAt")
                    if not began or datetime.fromisoformat(began) < since:
                        return False
        return True


@contextmanager
def harmless(cluster: Cluster, prefix: str) -> Iterator[None]:
    """Somebody's pods and objects live through it, and it leaves nothing to do for a second `pulumi up`."""
    before = users(cluster.stack)
    with cluster.writer(prefix) as writer:
        yield
        writer.writes_on()
    assert lost(cluster.stack, writer.acknowledged) == set()
    assert users(cluster.stack) == before
    cluster.stack.second_up_changes_nothing()


def stop(*hosts: str) -> None:
    """Shuts hosts down."""
    docker("stop", "--time", "20", *hosts)


def power_cut(*hosts: str) -> None:
    """Takes their power away."""
    docker("kill", *hosts)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, and once more where Pulumi waits for what no longer answers."""
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
        return
    process.wait(timeout=30)


def now() -> datetime:
    """In whole seconds, as the API has times."""
    return datetime.now(UTC).replace(microsecond=0)
