"""Clients that ask the API all the time, at its endpoint and from a pod at its service address."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import yaml

from bench.availability import Login
from tests.e2e.hosts import Box
from tests.e2e.probing import Prober

SERVICE_IP = "10.3.0.1"
AFTER_SECONDS = 5
"""How long clients go on when all is available: part of the measurement, nothing is awaited."""

PROBED = "sleep 86399"
"""What the pods run in whose network a client is: no other process of a host has these arguments."""

# A DaemonSet's pods stay when their node is drained. The Deployment is what a drain moves.
MANIFESTS = f"""
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: probed, namespace: default}}
spec:
  selector: {{matchLabels: {{app: probed}}}}
  template:
    metadata: {{labels: {{app: probed}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: probed
          image: docker.io/library/busybox:1.35
          command: [{", ".join(f'"{word}"' for word in PROBED.split())}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: moved, namespace: default}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: moved}}}}
  template:
    metadata: {{labels: {{app: moved}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: moved
          image: docker.io/library/busybox:1.35
          command: [httpd, -f, -p, "8080"]
          readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"""


def begin(login: Login) -> None:
    """Makes what runs on the cluster meanwhile, where it is not there already."""
    with login.client() as api:
        for manifest in MANIFESTS.split("---\n"):
            kind = yaml.safe_load(manifest)["kind"].lower()
            answer = api.post(
                f"/apis/apps/v1/namespaces/default/{kind}s",
                content=manifest,
                headers={"Content-Type": "application/yaml"},
            )
            if answer.status_code != httpx.codes.CONFLICT:
                answer.raise_for_status()


@contextmanager
def under_load(login: Login, address: str, worker: Box) -> Iterator[dict[str, dict[str, Any]]]:
    """Has both clients ask meanwhile. What they counted is in the dictionary when the block has ended."""
    pod = worker.run(f"pgrep --oldest --full '^{PROBED}$'")
    enter = ("nsenter", f"--target={pod}", "--net")
    counts: dict[str, dict[str, Any]] = {}
    with (
        Prober.start(dict(login.pair), address, 6443) as at_endpoint,
        Prober.start(dict(login.pair), SERVICE_IP, 443, inside=worker.container, through=enter) as at_service,
    ):
        yield counts
        time.sleep(AFTER_SECONDS)
        counts |= {"endpoint": at_endpoint.stop(), "service": at_service.stop()}
