"""Pods on two nodes that ask each other, and what somebody does to the network below them."""

from __future__ import annotations

from tests.e2e.stacks import MIRROR, Stack

BREAKS = {
    "the packet filter is flushed": "nft flush ruleset",
    "the routes are flushed": "ip route flush dev flannel.1",
    "the link is down and up": "ip link set flannel.1 down; ip link set flannel.1 up",
    "the link is deleted": "ip link delete flannel.1",
}

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: worker-1
  terminationGracePeriodSeconds: 0
  containers:
    - name: web
      image: docker.io/library/busybox:1.35
      command: [sh, -c, "mkdir /www && echo 'served by web' > /www/index.html && exec httpd -f -h /www"]
      readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: controller-1
  terminationGracePeriodSeconds: 0
  containers:
    - name: client
      image: docker.io/library/busybox:1.35
      command: [sleep, infinity]
"""
"""`web` on the worker, with a Service, and `client` on the controller."""


def fetch(stack: Stack, url: str, pod: str = "client") -> str:
    """What a pod gets from there, and "" if it is nothing."""
    command = ("exec", pod, "--", "timeout", "5", "wget", "-q", "-O", "-", url)
    return stack.run_kubectl(*command).stdout


def across(stack: Stack) -> bool:
    """Whether a pod reaches the other node's by the name of a Service."""
    return fetch(stack, "http://web").strip() == "served by web"


def outside(stack: Stack) -> bool:
    """Whether a pod of the worker reaches what knows no address of pods: for that it is masqueraded."""
    return bool(fetch(stack, f"{MIRROR['images']}/v2/", "web"))


def works(stack: Stack) -> bool:
    """Whether pods on the worker reach everybody, and are reached."""
    return outside(stack) and across(stack) and fetch(stack, "http://web", "web") != ""
