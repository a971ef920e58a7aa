"""A cluster whose hosts can get another version, and which one they have."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lab import lifecycle
from lab.progress import Progress
from tests.e2e.stacks import Stack, eventually, lab_config

OLDER, NEWER = "1.36.1", "1.36.3"
HOSTS = ("controller-1", "worker-1", "worker-2")

# With a pod on each worker, of which one may be away.
SERVED = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: served}
spec:
  replicas: 2
  selector: {matchLabels: {app: served}}
  template:
    metadata: {labels: {app: served}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: served
          image: docker.io/library/busybox:1.35
          command: [httpd, -f, -p, "8080"]
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: served}
spec: {selector: {app: served}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: served}
spec: {minAvailable: 1, selector: {matchLabels: {app: served}}}
"""


def config(subnet: int, version: str, **more: Any) -> dict[str, Any]:
    return lab_config(subnet, workers=2) | {"kubernetesVersion": version} | more


def upgraded(new_stack: Callable[..., Stack], subnet: int, name: str = "upgraded", *releases: str) -> Stack:
    """A cluster of the first of these releases with somebody's pods, on a lab that serves all of them."""
    first, *others = releases or (OLDER, NEWER)
    for release in (first, *others):
        lifecycle.prepare_release(release, Progress())
    stack = new_stack(name, config(subnet, first))
    stack.up()
    stack.kubectl("apply", "--filename=-", stdin=SERVED)
    stack.kubectl("rollout", "status", "deployment/served", "--timeout=90s")
    return stack


def kubelets(stack: Stack) -> dict[str, str]:
    """The version of each node's kubelet, and whether it takes pods."""
    return {
        node["metadata"]["name"]: node["status"]["nodeInfo"]["kubeletVersion"]
        + (" cordoned" if node["spec"].get("unschedulable") else "")
        for node in stack.get("nodes")["items"]
    }


def versions(stack: Stack) -> set[str]:
    """Tags of the control plane's images, and of kube-proxy's."""
    found = set()
    for kind in ("daemonsets", "deployments"):
        for each in stack.get(kind, "--namespace=kube-system")["items"]:
            for container in each["spec"]["template"]["spec"]["containers"]:
                if match := re.fullmatch(r"registry\.k8s\.io/kube-[a-z-]+:v(.*)", container["image"]):
                    found.add(match[1])
    return found


def has_all_of(stack: Stack, version: str) -> None:
    """Every part is of that version and well, and nothing is left to do."""
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{version}")
    assert versions(stack) == {version}
    stack.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
    eventually(
        "the user's pods", 90, lambda: stack.get("deployment/served")["status"].get("availableReplicas") == 2
    )
    stack.second_up_changes_nothing()


def other(stack: Stack) -> tuple[str, str]:
    """The version that the cluster has, and the other one."""
    (found,) = versions(stack)
    return (OLDER, NEWER) if found == OLDER else (NEWER, OLDER)
