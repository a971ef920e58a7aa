"""Hosts that go away and come back under somebody's feet, and what has to be as it was afterwards."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.engine import docker
from tests.e2e.probing import credentials, wait_until_ready
from tests.e2e.stacks import Stack, eventually, lab_config

READY_SECONDS = 60
SETTLED_SECONDS = 240
WRITE_SECONDS = 3

SYSTEM = "--namespace=kube-system"
CHECKPOINTS = "/etc/kubernetes/checkpoints"
APISERVER = "kube-system-DaemonSet-kube-apiserver"
CHECKPOINTER = "kube-system-DaemonSet-pod-checkpointer"
LEADERS = tuple(f"kube-system-Deployment-kube-{name}" for name in ("controller-manager", "scheduler"))

USERS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: users}
spec:
  replicas: 2
  selector: {matchLabels: {app: users}}
  template:
    metadata: {labels: {app: users}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: users
          image: docker.io/library/busybox:1.35
          command: [sleep, infinity]
"""


class Cluster:
    """A lab of one controller and one worker, and what can befall it."""

    def __init__(self, new_stack: Callable[..., Stack], name: str, subnet: int) -> None:
        self.stack = new_stack(name, lab_config(subnet))
        self.address = f"172.30.{subnet}.11"
        self.endpoint = f"https://{self.address}:6443"
        self.controller, self.worker = f"{name}-controller-1", f"{name}-worker-1"

    def up(self) -> None:
        """Brings it up, with somebody's pods on it."""
        begin = time.monotonic()
        self.stack.up()
        print(f"pulumi up took {time.monotonic() - begin:.0f} s")
        self.add_users()

    @cached_property
    def known(self) -> dict[str, str]:
        """What an administrator logs in with. None of the scenarios changes it."""
        known = credentials(self.stack)
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

    def add_users(self) -> None:
        """Runs somebody's pods, on the worker."""
        self.stack.kubectl("apply", "--filename=-", stdin=USERS)
        self.stack.kubectl("rollout", "status", "deployment/users", "--timeout=90s")

    def users(self) -> dict[str, int]:
        """UIDs of somebody's pods with their restarts."""
        pods: list[Any] = self.stack.get("pods", "--selector=app=users")["items"]
        return {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}

    def lost(self, acknowledged: set[str]) -> set[str]:
        """Which of the ConfigMaps are not there."""
        there = {each["metadata"]["name"] for each in self.stack.get("configmaps")["items"]}
        return acknowledged - there

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


class Writer:
    """Makes ConfigMaps without end, and knows which of them the API has acknowledged."""

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        self._url = f"{cluster.endpoint}/api/v1/namespaces/default/configmaps"
        self._prefix = prefix
        self._context = ssl.create_default_context(cadata=cluster.known["ca"])
        with tempfile.NamedTemporaryFile(
            "w"
        ) as pem:  # 0600, and gone at once: load_cert_chain takes files only
            pem.write(cluster.known["cert"] + cluster.known["key"])
            pem.flush()
            self._context.load_cert_chain(pem.name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.acknowledged: set[str] = set()

    def __enter__(self) -> Writer:
        self._thread.start()
        eventually("something to lose", 20, lambda: len(self.acknowledged) >= 5)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def writes_on(self) -> None:
        """Waits until what is written now is acknowledged."""
        before = len(self.acknowledged)
        eventually("the writer to write on", 30, lambda: len(self.acknowledged) > before + 3)

    def _write(self) -> None:
        number = 0
        while not self._stop.wait(0.2):
            number += 1
            name = f"{self._prefix}-{number}"
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
            request = urllib.request.Request(
                self._url, json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, context=self._context, timeout=WRITE_SECONDS) as answer:
                    answer.read()
            except (urllib.error.URLError, OSError):
                continue
            self.acknowledged.add(name)


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
