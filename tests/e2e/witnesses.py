"""What a user has in the cluster, to see whether it is still there afterwards."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

import httpx

from tests.e2e.stacks import Stack, eventually

WRITE_SECONDS = 3

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


def add_users(stack: Stack) -> None:
    """Runs somebody's pods, on the worker."""
    stack.kubectl("apply", "--filename=-", stdin=USERS)
    stack.kubectl("rollout", "status", "deployment/users", "--timeout=90s")


def users(stack: Stack) -> dict[str, int]:
    """UIDs of the user's pods with their restarts."""
    return _restarts(stack, "--selector=app=users")


def apiservers(stack: Stack) -> dict[str, int]:
    """UIDs of the pods of kube-apiserver with their restarts."""
    return _restarts(stack, "--namespace=kube-system", "--selector=app.kubernetes.io/name=kube-apiserver")


def _restarts(stack: Stack, *which: str) -> dict[str, int]:
    pods: list[Any] = stack.get("pods", *which)["items"]
    return {
        pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
    }


def lost(stack: Stack, acknowledged: set[str]) -> set[str]:
    """Which of the ConfigMaps are not there."""
    there = {each["metadata"]["name"] for each in stack.get("configmaps")["items"]}
    return acknowledged - there


class Writer:
    """Makes ConfigMaps without end, and knows which of them the API has acknowledged."""

    def __init__(self, endpoint: str, known: Mapping[str, str], prefix: str) -> None:
        self._url = f"{endpoint}/api/v1/namespaces/default/configmaps"
        self._prefix = prefix
        self._context = ssl.create_default_context(cadata=known["ca"])
        # 0600, and gone at once: load_cert_chain takes files only.
        with tempfile.NamedTemporaryFile("w") as pem:
            pem.write(known["cert"] + known["key"])
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
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.post(
                    self._url, json=body, verify=self._context, timeout=WRITE_SECONDS, trust_env=False
                )
                if answer.is_success:
                    self.acknowledged.add(name)
