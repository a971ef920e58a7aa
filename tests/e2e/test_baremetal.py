"""Machines that exist already: taken, refused with a reason, and given back as they were."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from components.config.releases import LATEST, RELEASES
from lab.engine import docker
from tests.e2e.hosts import Box, KeyPair
from tests.e2e.stacks import MIRROR, Stack, remove_hosts

pytestmark = pytest.mark.e2e

LOGIN = KeyPair.generate()

# All that a clean machine may gain or lose by itself is left out: processes, sockets, logs, caches of time.
LOOK = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp \) -prune -o -print
find /run /var -xdev | grep -Ev '^/run/(systemd|udev|log|user|credentials|lock|sshd|motd|utmp)' |
  grep -Ev '^/var/(log/journal|lib/systemd)|^/run/kubepivot.lock$'
awk '{ print $2, $3 }' /proc/mounts | grep -v '^/run/credentials'
ip -o link show | sed 's/^[0-9]*: //; s/ .*//'
nft list tables
iptables-save | grep '^-A'
systemctl list-unit-files --no-legend --type=service
sysctl net.ipv4.ip_forward net.ipv4.tcp_migrate_req net.bridge.bridge-nf-call-iptables
ps -eo comm= | grep -E 'kube|containerd|etcd|flannel|coredns|pause' || true
"""


@pytest.fixture(scope="module")
def boxes(new_stack: Callable[..., Stack]) -> Iterator[dict[str, Box]]:
    remove_hosts("metal")
    yield {
        "first": Box.make("metal", "first", "172.30.3.11", LOGIN),
        "second": Box.make("metal", "second", "172.30.3.21", LOGIN),
    }
    remove_hosts("metal")


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack], boxes: dict[str, Box]) -> Stack:
    return new_stack("metal", config(boxes))


@pytest.fixture
def fresh(new_stack: Callable[..., Stack], boxes: dict[str, Box], request: pytest.FixtureRequest) -> Stack:
    """A stack whose state knows of no preflight."""
    return new_stack(re.sub(r"\W+", "-", request.node.name)[-30:].strip("-"), config(boxes, name="metal"))


def config(boxes: dict[str, Box], **changes: Any) -> dict[str, Any]:
    return {
        "platform": "baremetal",
        "hosts": {
            "first": boxes["first"].config("controller"),
            "second": boxes["second"].config("worker", labels={"example.com/disk": "fast"}),
        },
        "mirror": MIRROR,
        "pki": {"protect": False},
        **changes,
    }


def look(box: Box) -> list[str]:
    return sorted(set(box.run(LOOK).splitlines()))


# `ls` names those that are there.
PLACES = (
    "/etc/kubernetes /etc/systemd/system/kubelet.service /usr/local/bin/containerd /usr/local/bin/kubelet"
    " /var/lib/kubelet /var/lib/kubepivot"
)


def untouched(box: Box) -> bool:
    return box.run(f"ls -d {PLACES} 2>/dev/null || true") == ""


# Each: what is wrong with the machines or the config, and what the user is told.
def wrong_login(boxes: dict[str, Box]) -> dict[str, Any]:
    hosts = config(boxes)["hosts"]
    return {"hosts": {**hosts, "second": {**hosts["second"], "key": KeyPair.generate().private}}}


def wrong_host_key(boxes: dict[str, Box]) -> dict[str, Any]:
    hosts = config(boxes)["hosts"]
    return {"hosts": {**hosts, "second": {**hosts["second"], "hostKey": KeyPair.generate().public}}}


def dead_host(boxes: dict[str, Box]) -> dict[str, Any]:
    hosts = config(boxes)["hosts"]
    return {"hosts": {**hosts, "second": {**hosts["second"], "address": "172.30.3.99"}}}


REFUSED_CONFIGS = {
    "wrong SSH key": (wrong_login, ["unable to authenticate"]),
    "wrong host key": (wrong_host_key, ["host key"]),
    "dead host": (dead_host, ["172.30.3.99"]),
    "mirror out of reach": (
        lambda boxes: {"mirror": {**MIRROR, "artifacts": "http://172.30.3.98"}},
        ["172.30.3.98", "does not answer", "kubepivot:mirror.artifacts"],
    ),
    "mirror without the files": (
        lambda boxes: {"mirror": {**MIRROR, "artifacts": "http://172.30.0.2/nowhere"}},
        ["nowhere", "404", "kubepivot:mirror.artifacts"],
    ),
}


@pytest.mark.parametrize("problem", REFUSED_CONFIGS)
def test_a_wrong_config_is_refused_before_any_host_is_touched(
    fresh: Stack, boxes: dict[str, Box], problem: str
) -> None:
    change, words = REFUSED_CONFIGS[problem]
    fresh.configure(config(boxes, name="metal", **change(boxes)))
    output = fresh.up(fails=True, timeout=150)
    assert not [word for word in words if word not in output], output
    assert "PRIVATE KEY" not in output
    assert all(untouched(box) for box in boxes.values())


LATE_CLOCK = """#!/bin/sh
exec /bin/date --date='+10 minutes' "$@"
"""

REFUSED_HOSTS = {
    "a kubelet": (
        "systemd-run --quiet --unit kubelet sleep infinity; mkdir /etc/kubernetes; touch /etc/kubernetes/x",
        "systemctl stop kubelet; rm -r /etc/kubernetes",
        ["kubelet.service is running", "/etc/kubernetes is not empty"],
    ),
    "data of another etcd and a taken port": (
        "mkdir -p /var/lib/etcd/member; systemd-run --quiet --unit squatter "
        "python3 -m http.server 6443; until ss -ltnH 'sport = :6443' | grep -q .; do sleep 0.1; done",
        "rm -r /var/lib/etcd; systemctl stop squatter",
        ["/var/lib/etcd is not empty", "port 6443 is in use"],
    ),
    "a network that carries no pods": (
        "ip route delete default; nft add table ip filter;"
        " nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'",
        "nft delete table ip filter; ip route add default via 172.30.0.1",
        ["no route for addresses of services", "drops what is forwarded", "table ip filter, chain FORWARD"],
    ),
    "a clock that is wrong": (
        "cat >/usr/local/bin/date; chmod +x /usr/local/bin/date",
        "rm /usr/local/bin/date",
        ["its clock is", "chrony"],
    ),
}


@pytest.mark.parametrize("problem", REFUSED_HOSTS)
def test_a_host_that_is_not_fit_is_refused_with_every_reason(
    fresh: Stack, boxes: dict[str, Box], problem: str
) -> None:
    make, mend, words = REFUSED_HOSTS[problem]
    boxes["first"].run(make, stdin=LATE_CLOCK)
    try:
        output = fresh.up(fails=True, timeout=150)
    finally:
        boxes["first"].run(mend)
    assert not [word for word in words if word not in output], output
    assert all("first: " in line for line in output.splitlines() for word in words if word in line)
    assert all(untouched(box) for box in boxes.values())


# As a cloud image has it; the status is that of `echo`.
ONLY_SAYS = """sed -i 's/^/command="echo Please login as the user debian rather than the user root." /' \
/root/.ssh/authorized_keys"""


def test_a_root_who_only_says_who_may_log_in_is_told_and_looked_at_again(
    fresh: Stack, boxes: dict[str, Box]
) -> None:
    fresh.configure(config(boxes, name="metal"))
    for box in boxes.values():
        box.run(ONLY_SAYS)
    try:
        output = fresh.up(fails=True, timeout=150)
    finally:
        for box in boxes.values():
            box.run("sed -i 's/^command=[^.]*[.]\" //' /root/.ssh/authorized_keys")
    assert "says: Please login as the user debian" in output
    assert re.search(r"set kubepivot:hosts\.(first|second)\.user", output)
    assert "KeyError" not in output and "Traceback" not in output, output
    # It hears of what is wrong with a host only if it looks.
    boxes["first"].run("mkdir /etc/kubernetes; touch /etc/kubernetes/x")
    try:
        output = fresh.up("--replace", "**preflight", fails=True, timeout=150)
    finally:
        boxes["first"].run("rm -r /etc/kubernetes")
    assert "first: /etc/kubernetes is not empty" in output
    assert all(untouched(box) for box in boxes.values())


def test_hosts_that_cannot_be_told_apart_are_refused(fresh: Stack, boxes: dict[str, Box]) -> None:
    fresh.configure(config(boxes, name="metal"))
    own = boxes["second"].run("cat /etc/machine-id")
    boxes["second"].run("cat >/etc/machine-id", stdin=boxes["first"].run("cat /etc/machine-id") + "\n")
    try:
        output = fresh.up(fails=True, timeout=150)
    finally:
        boxes["second"].run("cat >/etc/machine-id", stdin=own + "\n")
    assert "first and second have the same machine-id" in output
    assert "pulumi up --replace '**preflight'" in output
    assert all(untouched(box) for box in boxes.values())
    # Mended, the hosts are looked at again as the message says; a dead third one keeps them clean.
    again = fresh.pulumi("preview", "--replace", "**preflight")
    assert "first-preflight replace" in again and "second-preflight replace" in again


def test_a_host_that_changed_since_its_preflight_is_looked_at_again(
    fresh: Stack, boxes: dict[str, Box]
) -> None:
    fresh.configure(config(boxes, name="metal", **dead_host(boxes)))
    fresh.up(fails=True, timeout=150)  # passes the first host
    boxes["first"].run("mkdir /etc/kubernetes; touch /etc/kubernetes/of-another-tool")
    fresh.configure(config(boxes, name="metal"))
    try:
        output = fresh.up(fails=True, timeout=150)
    finally:
        assert boxes["first"].run("ls /etc/kubernetes; rm -r /etc/kubernetes") == "of-another-tool"
    assert "first: /etc/kubernetes is not empty" in output
    fresh.destroy()
    assert untouched(boxes["second"])


# Has another kubectl than its checksum says; everything else comes from the mirror.
DAMAGED = f"""
from http.server import BaseHTTPRequestHandler, HTTPServer

class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        damaged = self.path.endswith("/kubectl")
        self.send_response(200 if damaged else 302)
        self.send_header("Location", "{MIRROR["artifacts"]}" + self.path)
        self.end_headers()
        self.wfile.write(b"damaged")

    def do_HEAD(self):
        self.send_response(302)
        self.send_header("Location", "{MIRROR["artifacts"]}" + self.path)
        self.end_headers()

HTTPServer(("", 80), Site).serve_forever()
"""


def test_a_wrong_checksum_for_one_host_installs_nothing_on_any(fresh: Stack, boxes: dict[str, Box]) -> None:
    before = {name: look(box) for name, box in boxes.items()}
    site = Box.make("metal", "site", "172.30.3.31", LOGIN)
    site.run("cat >/srv/site.py", stdin=DAMAGED)
    site.run(
        "systemd-run --quiet --unit www python3 /srv/site.py;"
        " until ss -ltnH 'sport = :80' | grep -q .; do sleep 0.1; done"
    )
    fresh.configure(config(boxes, name="metal", mirror={**MIRROR, "artifacts": "http://172.30.3.31"}))
    output = fresh.up(fails=True, timeout=150)
    docker("container", "rm", "--force", "--volumes", site.container)
    assert f"the checksum of http://172.30.3.31/dl.k8s.io/v{LATEST}/bin/linux/amd64/kubectl is" in output
    assert all(untouched(box) for box in boxes.values())
    fresh.destroy()
    for name, box in boxes.items():
        assert look(box) == before[name], _difference(before[name], look(box))


# What others have put on a worker: none of it is in the way, and all of it has to stay.
THEIRS = r"""
mkdir -p /var/lib/etcd/member /opt/containerd/bin /opt/cni/theirs /usr/libexec/kubernetes/theirs /var/theirs
for file in /var/lib/etcd/member/wal /opt/containerd/bin/theirs /opt/cni/theirs/x \
  /usr/libexec/kubernetes/theirs/x /usr/local/bin/kubectl /usr/local/bin/etcdctl \
  /var/theirs/data; do echo theirs >$file; done
iptables -t nat -A PREROUTING -p tcp --dport 7 -m comment --comment 'it is "theirs" -j KUBE-X' -j ACCEPT
"""
# The data directories are links to a big disk.
BIG_DISK = """
mkdir -p /var/disk/kubelet /var/disk/containerd
for name in kubelet containerd; do ln -s /var/disk/$name /var/lib/$name; done
"""
# Made while the cluster is there. Read-only: the kubelet empties what there is of no pod that it knows.
THEIRS_LATER = """
mkdir /var/log/pods/theirs
mount --bind /var/theirs /var/log/pods/theirs
mount -o remount,bind,ro /var/log/pods/theirs
nft add table inet theirs
nft 'add chain inet theirs forward { type filter hook forward priority 10; policy drop; }'
"""
PODS = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: reached, namespace: default}
spec:
  selector: {matchLabels: {app: reached}}
  template:
    metadata: {labels: {app: reached}}
    spec:
      tolerations: [{operator: Exists}]
      containers:
      - name: coredns
        image: @IMAGE@
        args: [-dns.port=8053]
        ports: [{containerPort: 8053, hostPort: 8053, protocol: TCP}]
---
apiVersion: v1
kind: Service
metadata: {name: reached, namespace: default}
spec:
  type: NodePort
  selector: {app: reached}
  ports: [{port: 8053, nodePort: 30053}]
""".replace("@IMAGE@", f"registry.k8s.io/coredns/coredns:v{RELEASES[LATEST].coredns}")
# Nobody is there. What asks the API would wait for it.
PROXY = """
for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY; do echo $name=http://192.0.2.1:3128; done
for name in no_proxy NO_PROXY; do echo $name=172.30.0.2; done
"""


@pytest.mark.life
def test_two_machines_become_a_cluster_and_clean_again(stack: Stack, boxes: dict[str, Box]) -> None:
    """They have a proxy, and a name server neither: nothing lies outside of their network."""
    for box in boxes.values():
        box.run(f"({PROXY}) >/etc/environment; echo '# none' >/etc/resolv.conf")
    boxes["second"].run("ip route replace default dev eth0")
    stack.configure(config(boxes))
    boxes["first"].run(BIG_DISK)
    boxes["second"].run(THEIRS)
    before = {name: look(box) for name, box in boxes.items()}
    stack.up()
    nodes = {node["metadata"]["name"]: node for node in stack.get("nodes")["items"]}
    assert set(nodes) == {"first", "second"}
    for node in nodes.values():
        assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
    assert nodes["second"]["metadata"]["labels"]["example.com/disk"] == "fast"
    assert boxes["first"].run("ls -A /etc/kubernetes/manifests") == "etcd.yaml"
    # What else the machine around them holds evicts no pod of theirs.
    kubelet = json.loads(stack.kubectl("get", "--raw=/api/v1/nodes/first/proxy/configz"))["kubeletconfig"]
    assert kubelet["evictionHard"]["nodefs.available"] == "0%"
    stack.second_up_changes_nothing()
    pods_that_reach_no_other_node_are_told(stack, boxes)
    stack.kubectl("apply", "--filename=-", stdin=PODS)
    stack.kubectl("rollout", "status", "daemonset/reached", "--timeout=90s")
    for box in boxes.values():
        rules = box.run("iptables-save --table nat")
        assert '\\"' in rules and "CNI-HOSTPORT" in rules, rules
    boxes["second"].run(THEIRS_LATER)
    output = stack.destroy()
    assert "left as it is, since it was mounted by others:" in output and "/var/log/pods/theirs" in output
    assert (
        boxes["second"].run("cat /var/log/pods/theirs/data; nft list table inet theirs").startswith("theirs")
    )
    boxes["second"].run(
        "umount /var/log/pods/theirs; rmdir -p /var/log/pods/theirs || true; nft delete table inet theirs"
    )
    for name, box in boxes.items():
        assert look(box) == before[name], _difference(before[name], look(box))
    theirs = (
        "/var/lib/etcd/member/wal /opt/containerd/bin/theirs /usr/local/bin/kubectl /usr/local/bin/etcdctl"
    )
    assert set(boxes["second"].run(f"cat {theirs}").split()) == {"theirs"}
    boxes["first"].run("rm /var/lib/kubelet /var/lib/containerd; rm -r /var/disk")


def pods_that_reach_no_other_node_are_told(stack: Stack, boxes: dict[str, Box]) -> None:
    """Everything is Ready meanwhile."""
    checked = "/var/lib/kubepivot/network-checked"
    boxes["first"].run(f"test -s {checked} && rm {checked}")
    boxes["second"].run(REFUSED_HOSTS["a network that carries no pods"][0].partition(";")[2])
    try:
        output = stack.up("--replace", "**handover", fails=True)
    finally:
        boxes["second"].run("nft delete table ip filter")
    assert re.search(r"pods reach no Service on another node: first,? ?second", output), output
    begin = time.monotonic()
    stack.up("--replace", "**handover")
    print(f"the network was looked at, and all else, in {time.monotonic() - begin:.0f} s")
    assert "network-check" not in stack.kubectl("get", "all", "--all-namespaces")


def _difference(before: list[str], after: list[str]) -> str:
    gone = [f"- {line}" for line in before if line not in after]
    new = [f"+ {line}" for line in after if line not in before]
    return "\n".join([*gone, *new][:60])


def test_a_login_that_destroy_cannot_use_and_a_dead_host(stack: Stack, boxes: dict[str, Box]) -> None:
    """A host that refuses the login waits until the config is right; a dead one is passed over."""
    stack.configure(config(boxes))
    stack.up()
    docker("kill", boxes["second"].container)
    new = KeyPair.generate()
    boxes["first"].run("cat >/root/.ssh/authorized_keys", stdin=new.public + "\n")
    begin = time.monotonic()
    output = stack.pulumi("destroy", "--yes", "--skip-preview", timeout=120, fails=True)
    assert "second (172.30.3.21) does not answer: it was left as it is" in output
    assert "first (172.30.3.11) was not reset: " in output and "pulumi up --target '**-reset'" in output
    assert time.monotonic() - begin < 60
    assert len(boxes["first"].run("ls /etc/kubernetes/kubepivot.cluster")) > 0
    # What is gone does not stop a program that is run again.
    output = stack.pulumi("destroy", "--run-program", "--yes", "--skip-preview", timeout=120, fails=True)
    assert "first (172.30.3.11) was not reset: " in output and "Error: " not in output, output
    changed = config(boxes)
    changed["hosts"]["first"]["key"] = new.private
    stack.configure(changed)
    # The engine makes a provider whatever the targets, and misses what that depends on.
    output = stack.pulumi("up", "--yes", "--skip-preview", "--target", "**-reset", timeout=120, fails=True)
    assert "metal-first-reset updated" in output and "metal-first-node" not in output, output
    stack.destroy()
    assert stack.state() == {}
    assert untouched(boxes["first"])
