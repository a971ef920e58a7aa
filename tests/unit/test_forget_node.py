"""What runs before a kubelet, in a sandbox: it ends the pods of a Node that is no more, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.assets.node import script
from tests.unit.sandbox import Sandbox

CREDENTIAL = "/var/lib/kubelet/pki/kubelet-client-current.pem"
SUBNET = "/run/flannel/subnet.env"
CURL = """
echo "$*" >>/var/asked
[ -e /var/status ] || exit 7
cat /var/status
"""
# Sandboxes: one of the host's network, one of flannel's, one that has ended.
CTR = """
shift 2
case "$*" in
  *"io.cri-containerd.kind"*) echo host; echo pod; echo ended ;;
  *"container.name\\"==flannel") echo flanneld ;;
  "containers info host") echo '{"type": "network"}' ;;
  "containers info "*) echo '{"type": "network", "path": "/var/run/netns/cni-1234"}' ;;
  "tasks kill "*" ended") exit 1 ;;
  "tasks kill "*) echo "${4#SIG} $5" >>/var/calls ;;
esac
"""


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A worker whose kubelet has been running."""
    host = Sandbox(tmp_path)
    host.real("cat", "grep", "rm")
    host.fake("curl", CURL)
    host.fake("ctr", CTR)
    host.fake("ip", 'echo "$*" >>/var/calls')
    for path in (CREDENTIAL, SUBNET, "/var/calls"):
        host.write(path)
    return host


def calls(host: Sandbox) -> list[str]:
    """What was done, and what it has to have said."""
    done = host.run(f"set -- https://api.example.com:6443 worker-1\n{script('forget-node')}")
    assert (done.returncode, done.stderr) == (0, "")
    return host.path("/var/calls").read_text().splitlines()


def test_the_pods_of_a_deleted_node_end_and_those_of_the_hosts_network_go_on(host: Sandbox) -> None:
    host.write("/var/status", "404")
    assert calls(host) == ["KILL pod", "link show dev cni0", "link delete dev cni0", "TERM flanneld"]
    assert not host.path(SUBNET).exists()
    (asked,) = host.path("/var/asked").read_text().replace(str(host.root), "").splitlines()
    assert asked.endswith(f"--key {CREDENTIAL} https://api.example.com:6443/api/v1/nodes/worker-1")
    assert "--noproxy *" in asked


@pytest.mark.parametrize("status", ["200", "401", "403", "500", None])
def test_a_node_that_is_there_or_may_be_loses_nothing(host: Sandbox, status: str | None) -> None:
    if status:
        host.write("/var/status", status)
    assert calls(host) == []
    assert host.path(SUBNET).exists()


def test_before_there_was_a_node_nobody_is_asked(host: Sandbox) -> None:
    host.path(CREDENTIAL).unlink()
    assert calls(host) == []
    assert not host.path("/var/asked").exists()
