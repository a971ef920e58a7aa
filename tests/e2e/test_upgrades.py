"""Another Kubernetes version, there and back, under load: nobody notices."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from lab import lifecycle
from lab.progress import Progress
from tests.e2e.killing import end, is_updating, kill
from tests.e2e.probing import Prober, credentials
from tests.e2e.stacks import Stack, eventually, lab_config
from tests.e2e.witnesses import Writer, lost

pytestmark = pytest.mark.e2e

SUBNET = 24
CONTROLLER = f"172.30.{SUBNET}.11"
OLDER, NEWER = "1.36.1", "1.36.3"
HOSTS = ("controller-1", "worker-1", "worker-2")
RAW_FAILURES = 1 / 2000
WATCH_SECONDS = 2.0

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


def config(version: str, **more: Any) -> dict[str, Any]:
    return lab_config(SUBNET, workers=2) | {"kubernetesVersion": version} | more


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A cluster of the older release, on a lab that serves both."""
    lifecycle.prepare_release(OLDER, Progress())
    stack = new_stack("upgraded", config(OLDER))
    stack.up()
    stack.kubectl("apply", "--filename=-", stdin=SERVED)
    stack.kubectl("rollout", "status", "deployment/served", "--timeout=90s")
    yield stack


class Watcher:
    """Watches the ConfigMaps that a writer makes, as client-go does: a watch that ends is begun anew at once.

    Beside it, it counts the ready endpoints of the user's Service.
    """

    def __init__(self, endpoint: str, known: dict[str, str], pair: str) -> None:
        self._endpoint = endpoint
        self._context = ssl.create_default_context(cadata=known["ca"])
        self._context.load_cert_chain(pair)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._watch, self._count)]
        self.longest_gap = 0.0
        self.watches = 0
        self.fewest = 99

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._endpoint, verify=self._context, timeout=5, trust_env=False)

    def _watch(self) -> None:
        path = "/api/v1/namespaces/default/configmaps"
        lost_at: float | None = None
        with self._client() as client:
            while not self._stop.is_set():
                heard = time.monotonic()
                with suppress(httpx.HTTPError):
                    listed = client.get(path, params={"limit": "1"})
                    listed.raise_for_status()
                    since = {"resourceVersion": listed.json()["metadata"]["resourceVersion"], "watch": "true"}
                    with client.stream("GET", path, params=since) as events:
                        events.raise_for_status()
                        if lost_at is not None:
                            self.longest_gap = max(self.longest_gap, time.monotonic() - lost_at)
                            lost_at = None
                        # Somebody writes five a second: five seconds of silence are a loss.
                        for _ in events.iter_lines():
                            heard = time.monotonic()
                            if self._stop.is_set():
                                return
                        heard = time.monotonic()  # it was ended in good order
                    self.watches += 1
                lost_at = lost_at or heard

    def _count(self) -> None:
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        with self._client() as client:
            while not self._stop.wait(0.2):
                with suppress(httpx.HTTPError):
                    found = client.get(path, params={"labelSelector": "kubernetes.io/service-name=served"})
                    found.raise_for_status()
                    self.fewest = min(self.fewest, sum(map(_ready, found.json()["items"])))


def _ready(endpoints: dict[str, Any]) -> int:
    return sum(bool(each["conditions"].get("ready")) for each in endpoints.get("endpoints") or [])


@contextmanager
def unnoticed(stack: Stack, prefix: str, tmp_path: Any) -> Iterator[None]:
    """Clients at the endpoint and at the service address lose nothing meanwhile, a watch is back at once, the
    user's Service always has a pod, and what the API acknowledged is there.
    """
    known = credentials(stack)
    assert known is not None
    pair = tmp_path / "pair.pem"
    pair.touch(mode=0o600)
    pair.write_text(known["cert"] + known["key"])
    begin = time.monotonic()
    with (
        Prober.start(known, CONTROLLER, 6443) as at_endpoint,
        Prober.start(known, "10.3.0.1", 443, inside="upgraded-worker-1") as at_service,
        Watcher(f"https://{CONTROLLER}:6443", known, str(pair)) as watcher,
        Writer(f"https://{CONTROLLER}:6443", known, prefix) as writer,
    ):
        yield
        writer.writes_on()
        counts = {"endpoint": at_endpoint.stop(), "service": at_service.stop()}
    print(
        f"{prefix}: {time.monotonic() - begin:.0f} s; {counts}; {watcher.watches} watches ended, "
        f"back after {watcher.longest_gap:.2f} s at most; at least {watcher.fewest} endpoints"
    )
    for where, client in counts.items():
        assert client["requests"] > 20 * (time.monotonic() - begin), where
        assert client["failed_after_retry"] == 0, client
        assert client["raw_failures"] <= client["requests"] * RAW_FAILURES, client
    assert watcher.watches >= 1, "no watch was ended: the test proves nothing"
    assert watcher.longest_gap <= WATCH_SECONDS
    assert 1 <= watcher.fewest <= 2
    assert lost(stack, writer.acknowledged) == set()


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


@pytest.mark.parametrize(("before", "after"), [(OLDER, NEWER), (NEWER, OLDER)], ids=["there", "back"])
def test_nobody_notices_another_patch(stack: Stack, before: str, after: str, tmp_path: Any) -> None:
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{before}")
    stack.configure(config(after))
    print(stack.pulumi("preview", "--diff"))
    with unnoticed(stack, f"to-{after.replace('.', '-')}", tmp_path):
        begin = time.monotonic()
        print(stack.up())
        print(f"from {before} to {after}: {time.monotonic() - begin:.0f} s")
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{after}")
    assert versions(stack) == {after}
    assert stack.get("deployment/served")["status"]["availableReplicas"] == 2
    stack.second_up_changes_nothing()


def test_a_budget_that_blocks_stops_it_and_the_node_takes_pods_again(stack: Stack) -> None:
    stack.kubectl("patch", "poddisruptionbudget/served", "--patch", '{"spec": {"minAvailable": 2}}')
    stack.configure(config(NEWER, upgrade={"drain": {"seconds": 15}}))
    said = stack.up(fails=True)
    print(said)
    assert "default/served" in said
    assert kubelets(stack) == {"controller-1": f"v{NEWER}", "worker-1": f"v{OLDER}", "worker-2": f"v{OLDER}"}
    stack.kubectl("patch", "poddisruptionbudget/served", "--patch", '{"spec": {"minAvailable": 1}}')
    stack.kubectl("cordon", "worker-2")
    stack.up()
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{NEWER}") | {"worker-2": f"v{NEWER} cordoned"}
    stack.kubectl("uncordon", "worker-2")
    eventually(
        "both pods", 60, lambda: stack.get("deployment/served")["status"].get("availableReplicas") == 2
    )
    stack.second_up_changes_nothing()


@pytest.mark.parametrize(
    ("before", "after", "at"),
    [
        (NEWER, OLDER, "worker-1-upgrade"),
        (OLDER, NEWER, "kube-controller-manager"),
    ],
)
def test_an_upgrade_that_is_killed_is_ended_by_the_next_run(
    stack: Stack, before: str, after: str, at: str
) -> None:
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{before}")
    stack.configure(config(after))
    kill(stack, "up", at, lambda: is_updating(stack, at))
    end(stack, "up")
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{after}")
    assert versions(stack) == {after}
    stack.second_up_changes_nothing()


def test_an_upgrade_that_is_killed_can_be_taken_back(stack: Stack) -> None:
    stack.configure(config(OLDER))
    kill(stack, "up", "worker-2-upgrade", lambda: is_updating(stack, "worker-2-upgrade"))
    stack.configure(config(NEWER))
    end(stack, "up")
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{NEWER}")
    assert versions(stack) == {NEWER}
    stack.second_up_changes_nothing()
