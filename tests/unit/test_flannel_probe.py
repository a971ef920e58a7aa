"""flannel's probe, in a sandbox: it passes as long as what flanneld has made is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.assets.manifests import manifests
from tests.cases import load
from tests.unit.sandbox import Sandbox

NFT = """
case "$*" in
  "list chain ip flannel-ipv4 "*) cat "/var/rules/$5" ;;
  *) exit 1 ;;
esac
"""
IP = """
case "$*" in
  "route replace 192.0.0.8 dev flannel.1") echo "192.0.0.8 dev flannel.1 scope link" >>/var/routes ;;
  "route show dev flannel.1") cat /var/routes ;;
  "-4 addr show dev flannel.1") cat /var/link ;;
esac
"""
POSTROUTING = "ip saddr 10.2.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random\n"
SUBNET = "/run/flannel/subnet.env"
NETWORK = "/etc/cni/net.d/10-flannel.conflist"
LINK = "6: flannel.1: <UP>\n    inet 10.2.1.0/32 scope global flannel.1\n"


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A node on which flanneld is done."""
    host = Sandbox(tmp_path)
    host.real("cat", "cp", "grep", "mv", "test")
    host.fake("nft", NFT)
    host.fake("ip", IP)
    host.write("/var/rules/postrtg", POSTROUTING)
    host.write("/var/rules/forward", "ip saddr 10.2.0.0/16 accept\n")
    host.write("/var/link", LINK)
    host.write("/var/routes", "10.2.0.0/24 via 10.2.0.0 dev flannel.1 onlink\n")
    host.write("/etc/kube-flannel/cni-conf.json", "{}")
    host.write(SUBNET, "FLANNEL_SUBNET=10.2.0.1/24\n")
    host.path(NETWORK).parent.mkdir(parents=True)
    assert passes(host, "startupProbe")
    return host


def passes(host: Sandbox, probe: str) -> bool:
    """Whether the probe of that name, as the kubelet runs it, finds all there."""
    objects = manifests(load("lab").cfg, load("lab").machines, lambda name: name)
    (container,) = objects["flannel.yaml"]["spec"]["template"]["spec"]["containers"]
    shell, option, path, *arguments = container[probe]["exec"]["command"]
    assert (shell, option, path) == ("sh", "-e", "/etc/kube-flannel/probe.sh")
    text = objects["flannel-cfg.yaml"]["data"]["probe.sh"]
    done = host.run("\n".join((f"set +u; set -- {' '.join(arguments)}", text)))
    return done.returncode == 0


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_what_is_whole_passes(host: Sandbox, probe: str) -> None:
    assert passes(host, probe)
    assert passes(host, probe)


@pytest.mark.parametrize("probe", ["livenessProbe", "readinessProbe"])
@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/var/rules/postrtg", None),
        ("/var/rules/postrtg", "chain postrtg {\n}\n"),
        ("/var/rules/forward", None),
        ("/var/link", None),
        ("/var/link", "6: flannel.1: <UP>\n"),
        ("/var/routes", ""),
        ("/var/routes", "10.2.2.0/24 via 10.2.2.0 dev flannel.1 onlink\n"),  # of a node that joined since
    ],
)
def test_what_is_not_whole_fails(host: Sandbox, path: str, left: str | None, probe: str) -> None:
    host.path(path).unlink()
    if left is not None:
        host.write(path, left)
    assert not passes(host, probe)


def test_flannel_has_not_started_before_its_rules_are_there(host: Sandbox) -> None:
    host.path("/var/rules/forward").unlink()
    host.write("/var/routes")
    assert not passes(host, "startupProbe")
    assert host.path("/var/routes").read_text() == "", "else a link that is being made would pass for marked"


@pytest.mark.parametrize("lacking", [SUBNET, "/var/rules/forward"])
def test_a_node_has_no_network_before_flannel_has_started(host: Sandbox, lacking: str) -> None:
    """Or it would be Ready, and its first pods fail for want of what the plugin reads."""
    host.path(NETWORK).unlink()
    text = host.path(lacking).read_text()
    host.path(lacking).unlink()
    assert not passes(host, "startupProbe")
    assert not host.path(NETWORK).exists()
    host.write(lacking, text)
    assert passes(host, "startupProbe")
    assert host.path(NETWORK).read_text() == "{}"


@pytest.mark.parametrize("probe", ["livenessProbe", "readinessProbe"])
def test_later_probes_leave_the_network_alone(host: Sandbox, probe: str) -> None:
    host.path(NETWORK).unlink()
    assert passes(host, probe)
    assert not host.path(NETWORK).exists()
