"""One cluster, from nothing to nothing, watched by clients that lose no request."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.config.releases import LATEST
from lab.engine import docker
from tests.e2e.network import PODS, fetch
from tests.e2e.probing import Prober, credentials, wait_until_ready
from tests.e2e.stacks import Stack, eventually, lab_config
from tests.e2e.witnesses import apiservers

pytestmark = [pytest.mark.e2e, pytest.mark.life]

CONTROLLER = "172.30.1.11"
ENDPOINT = f"https://{CONTROLLER}:6443"
SERVICE_IP = "10.3.0.1"
SECONDS_AFTER = 60

HOSTS = ("pivot-controller-1", "pivot-worker-1")
UP_SECONDS = {"lab": 75, "digitalocean": 105}
DESTROY_SECONDS = {"lab": 30, "digitalocean": 60}


@dataclass
class Seen:
    """What was seen of the cluster while it came up and for a minute after."""

    seconds: float = 0
    """What `pulumi up` took."""
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the clients counted, by where they asked."""
    arguments: dict[str, list[str]] = field(default_factory=dict)
    """Command lines of processes, by host."""


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack], seen: Seen) -> Iterator[Stack]:
    """A cluster that was watched while it came up and for a minute after."""
    stack = new_stack("pivot", lab_config(1))
    output = stack.checkout.directory / "up.log"
    begin = time.monotonic()
    with output.open("w") as log:
        up = stack.start("up", "--yes", "--skip-preview", output=log)
    eventually("the hosts", 60, all_hosts_run)
    watchers = {host: watch_arguments(host) for host in HOSTS}
    known = eventually("the PKI in the state", 120, lambda: credentials(stack, "scheduler"))
    wait_until_ready(ENDPOINT, known["ca"], 120)
    with Prober.start(known, CONTROLLER, 6443) as at_endpoint:
        eventually("kube-proxy on the controller", 120, _kube_proxy_ready)
        with Prober.start(known, SERVICE_IP, 443, inside="pivot-controller-1") as at_service:
            assert up.wait(timeout=600) == 0, output.read_text()
            seen.seconds = time.monotonic() - begin
            print(f"pulumi up took {seen.seconds:.0f} s")
            seen.arguments = {
                host: json.loads(watcher.communicate(timeout=20)[0]) for host, watcher in watchers.items()
            }
            stack.up()  # writes the kubeconfig, and would do what the first one left
            time.sleep(SECONDS_AFTER)  # the measurement's own length, nothing is awaited
            seen.counts = {"endpoint": at_endpoint.stop(), "service": at_service.stop()}
    print(seen.counts)
    yield stack


def all_hosts_run() -> bool:
    label = "label=kubepivot.cluster=pivot"
    return len(docker("container", "ls", "--quiet", "--filter", label).split()) == len(HOSTS)


def watch_arguments(host: str) -> subprocess.Popen[str]:
    """Reads the arguments of every process on the host until its input is closed."""
    script = Path(__file__).with_name("arguments.py").read_text()
    command = ["docker", "exec", "--interactive", host, "python3", "-c", script]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _kube_proxy_ready() -> bool:
    """Whether its pod on the controller is. Asked as the kubelet, nobody else has a kubeconfig yet."""
    chosen = "--field-selector=spec.nodeName=controller-1 --selector=app.kubernetes.io/name=kube-proxy"
    condition = '{.items[*].status.conditions[?(@.type=="Ready")].status}'
    command = "kubectl --kubeconfig=/var/lib/kubelet/kubeconfig --request-timeout=10s get pods"
    command += f" --namespace=kube-system {chosen} --output=jsonpath='{condition}'"
    return on_controller(command, timeout=15) == "True"


def on_controller(command: str, timeout: float = 120) -> str:
    return docker("exec", "pivot-controller-1", "sh", "-ec", command, timeout=timeout)


def test_it_came_up_in_time(stack: Stack, seen: Seen, platform: str) -> None:
    """On two cores, with everything that it needs there already."""
    assert seen.seconds < UP_SECONDS[platform]


@pytest.mark.parametrize("client", ["endpoint", "service"])
def test_no_client_that_retries_once_loses_a_request(stack: Stack, seen: Seen, client: str) -> None:
    counts = seen.counts[client]
    assert counts["requests"] > 50 * SECONDS_AFTER * 0.9, counts
    assert counts["failed_after_retry"] == 0, counts
    assert counts["raw_failures"] <= 1, counts


def test_every_node_is_ready_and_dns_is_available(stack: Stack) -> None:
    nodes = stack.get("nodes")["items"]
    assert {node["metadata"]["name"] for node in nodes} == {"controller-1", "worker-1"}
    for node in nodes:
        ready = {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"]
        assert ready == "True", node["metadata"]["name"]
    coredns = stack.get("deployment/coredns", "--namespace=kube-system")
    assert coredns["status"]["availableReplicas"] == 2


def test_the_control_plane_is_made_of_ordinary_objects(stack: Stack) -> None:
    assert on_controller("ls -A /etc/kubernetes/manifests") == "etcd.yaml"
    assert on_controller("ls /etc/kubernetes | grep -c bootstrap-secrets || true") == "0"
    apiserver = stack.get("daemonset/kube-apiserver", "--namespace=kube-system")["status"]
    assert apiserver["numberReady"] == apiserver["desiredNumberScheduled"] == 1
    for name in ("kube-controller-manager", "kube-scheduler"):
        assert stack.get(f"deployment/{name}", "--namespace=kube-system")["status"]["readyReplicas"] == 1
    names = [pod["metadata"]["name"] for pod in stack.get("pods", "--namespace=kube-system")["items"]]
    assert not [name for name in names if name.startswith("bootstrap-")], names


@pytest.mark.parametrize("component", ["kube-apiserver", "kube-controller-manager", "kube-scheduler"])
def test_logs_and_exec_go_through_the_api(stack: Stack, component: str) -> None:
    selector = f"--selector=app.kubernetes.io/name={component}"
    (pod,) = stack.get("pods", "--namespace=kube-system", selector)["items"]
    name = pod["metadata"]["name"]
    assert len(stack.kubectl("logs", "--namespace=kube-system", name, "--tail=3").splitlines()) >= 1
    # The images hold one binary, so that is what can be run in them.
    version = stack.kubectl("exec", "--namespace=kube-system", name, "--", component, "--version")
    assert version.strip() == f"Kubernetes v{LATEST}"


def test_a_pod_reaches_a_service_on_the_other_node_by_name(stack: Stack) -> None:
    stack.kubectl("apply", "--filename=-", stdin=PODS)
    stack.kubectl("wait", "--for=condition=Ready", "pod/web", "pod/client", "--timeout=60s")
    pods = {name: stack.get(f"pod/{name}")["spec"]["nodeName"] for name in ("web", "client")}
    assert pods == {"web": "worker-1", "client": "controller-1"}
    fetched = eventually(
        "the page by the service's name", 30, lambda: fetch(stack, "http://web.default.svc.cluster.local")
    )
    assert fetched.strip() == "served by web"
    assert fetch(stack, "http://web").strip() == "served by web"


def addresses(stack: Stack) -> dict[str, str]:
    """At which nodes reach each other."""
    return {
        node["metadata"]["name"]: each["address"]
        for node in stack.get("nodes")["items"]
        for each in node["status"]["addresses"]
        if each["type"] == "InternalIP"
    }


def _status(url: str) -> int:
    return httpx.get(url, verify=False, timeout=5, trust_env=False).status_code


def test_nobody_is_anonymous_but_who_asks_for_health(stack: Stack) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert _status(f"{ENDPOINT}{path}") == 200
    for path in ("/version", "/api", "/api/v1/namespaces", "/metrics"):
        assert _status(f"{ENDPOINT}{path}") == 401
    kubelet = f"https://{addresses(stack)['controller-1']}:10250/pods"
    ask = f"curl --insecure --silent --max-time 5 --output /dev/null --write-out '%{{http_code}}' {kubelet}"
    assert docker("exec", "pivot-worker-1", "sh", "-ec", ask) == "401"
    # The kubelet's read-only port, and those of controller manager and scheduler.
    for port in (10255, 10257, 10259):
        listeners = on_controller(f"ss -ltnH 'sport = :{port}' | grep -v 127.0.0.1 || true")
        assert listeners == "", port


def test_a_kubelet_is_held_to_its_own_node(stack: Stack) -> None:
    kubeconfig = "KUBECONFIG=/var/lib/kubelet/kubeconfig"
    node = "node/worker-1"
    for verb in (f"label {node} stolen=true", "get secrets --all-namespaces"):
        answer = on_controller(f"{kubeconfig} kubectl {verb} 2>&1 || true")
        assert "Forbidden" in answer or "forbidden" in answer, answer


def test_the_control_plane_runs_without_root(stack: Stack) -> None:
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        users = on_controller(
            f"ps -o uid= -C {name} || ps -eo uid=,comm= | awk '$2 ~ /^{name}/ {{print $1}}'"
        )
        assert set(users.split()) == {"60643"}, name


def forms(secret: str) -> list[str]:
    """The secret as text, and what base64 makes of it wherever it is in what was encoded."""
    found = [secret]
    for before, unlike in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(b"\0" * before + secret.encode()).decode()
        found.append(encoded.rstrip("=")[unlike:-1])
    return found


def secret_forms(stack: Stack) -> list[str]:
    """What gives a private key away."""
    return forms("PRIVATE KEY-----")


def test_nothing_secret_was_in_a_processs_arguments(stack: Stack, seen: Seen) -> None:
    for host, found in seen.arguments.items():
        arguments = "\n".join(found)
        # Steps of the node and of the control plane were seen, and what is left in the end.
        for program in ("sshd", "kubelet", "kube-proxy"):
            assert program in arguments, (host, program)
        assert not [form for form in secret_forms(stack) if form in arguments], host
    assert seen.arguments.keys() == set(HOSTS)


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    stack.second_up_changes_nothing()


def test_the_state_has_no_secret_in_plain_text(stack: Stack) -> None:
    export = stack.pulumi("stack", "export")
    assert "kubepivot" in export
    assert not [form for form in secret_forms(stack) if form in export]


def test_outputs_are_what_a_user_needs(stack: Stack) -> None:
    outputs = json.loads(stack.pulumi("stack", "output", "--json"))
    assert outputs["api_endpoint"] == ENDPOINT
    assert outputs["kubeconfig"] == "[secret]"
    assert outputs["ca_certificate"].startswith("-----BEGIN CERTIFICATE-----")
    assert outputs["kubernetes_version"] == LATEST
    assert outputs["nodes"]["worker-1"] == {"role": "worker", "address": addresses(stack)["worker-1"]}


def test_a_roll_of_the_apiserver_loses_nothing(stack: Stack) -> None:
    old = apiservers(stack)
    assert list(old.values()) == [0], "the first one found itself at localhost, and not the temporary one"
    known = credentials(stack)
    assert known is not None
    urn = stack.state()["pivot-apiserver-cert"]["urn"]
    with (
        Prober.start(known, CONTROLLER, 6443) as at_endpoint,
        Prober.start(known, SERVICE_IP, 443, inside="pivot-controller-1") as at_service,
    ):
        stack.up("--replace", urn)
        counts = {"endpoint": at_endpoint.stop(), "service": at_service.stop()}
    print(counts)
    new = apiservers(stack)
    assert list(new.values()) == [0] and new.keys() != old.keys()
    for client in counts.values():
        assert client["requests"] > 1000
        assert client["failed_after_retry"] == 0, client
        # Nobody is refused by an instance that has not read the roles yet: client-go would not ask again.
        assert not [each for each in client["failures"] if " 403 " in each["error"]], client
    stack.second_up_changes_nothing()


def test_destroy_leaves_nothing(stack: Stack, platform: str) -> None:
    mounts = '{{range .Mounts}}{{if eq .Type "volume"}}{{println .Name}}{{end}}{{end}}'
    volumes = set(docker("container", "inspect", "--format", mounts, *HOSTS).split())
    assert volumes
    begin = time.monotonic()
    stack.destroy()
    assert time.monotonic() - begin < DESTROY_SECONDS[platform]
    assert docker("container", "ls", "--all", "--quiet", "--filter", "label=kubepivot.cluster=pivot") == ""
    assert not volumes & set(docker("volume", "ls", "--quiet").split())
