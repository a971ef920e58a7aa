"""What a user has in the cluster, to see whether it is still there afterwards."""

from __future__ import annotations

import subprocess
import threading
from typing import Any

from tests.e2e.stacks import Stack

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


class Writer:
    """Makes ConfigMaps without end, and knows which of them the API has acknowledged."""

    def __init__(self, stack: Stack, prefix: str) -> None:
        self._stack, self._prefix = stack, prefix
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.acknowledged: set[str] = set()

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _write(self) -> None:
        number = 0
        while not self._stop.wait(0.3):
            number += 1
            name = f"{self._prefix}-{number}"
            done = subprocess.run(
                ["kubectl", "--request-timeout=3s", "create", "configmap", name],
                env=self._stack.environment,
                capture_output=True,
                timeout=20,
            )
            if done.returncode == 0:
                self.acknowledged.add(name)


def users(stack: Stack) -> dict[str, int]:
    """UIDs of the user's pods with their restarts."""
    pods: list[Any] = stack.get("pods", "--selector=app=users")["items"]
    return {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}


def lost(stack: Stack, acknowledged: set[str]) -> set[str]:
    there = {each["metadata"]["name"] for each in stack.get("configmaps")["items"]}
    return acknowledged - there
