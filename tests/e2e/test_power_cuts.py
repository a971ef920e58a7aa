"""The controller loses its power in the middle of `pulumi up`; once it is back, the next run ends well."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from lab.engine import docker
from tests.e2e.disasters import Cluster, interrupt, now, power_cut
from tests.e2e.stacks import Stack, eventually
from tests.e2e.witnesses import add_users, lost, users

pytestmark = pytest.mark.e2e

MANIFESTS = "/etc/kubernetes/manifests"
# The temporary controller manager goes first, kube-apiserver between `pivoted` and the secrets.
HANDING_OVER = (
    f"test -e {MANIFESTS}/bootstrap-apiserver.yaml && ! test -e {MANIFESTS}/bootstrap-controller-manager.yaml"
)
RETIRING = "test -e /var/lib/kubepivot/pivoted && test -e /etc/kubernetes/bootstrap-secrets"


@pytest.fixture(scope="module")
def cluster(new_stack: Callable[..., Stack]) -> Iterator[Cluster]:
    yield Cluster(new_stack, "cuts", 10)


def cut(cluster: Cluster, what: str, condition: Callable[[], bool], *arguments: str) -> datetime:
    """Cuts the power as soon as `pulumi up` has got so far, gives it back and ends the run; when that was."""
    output = cluster.stack.checkout.directory / "cut.log"
    with output.open("w") as log:
        up = cluster.stack.start("up", "--yes", "--skip-preview", *arguments, output=log)
        eventually(what, 150, lambda: condition() or up.poll() is not None, every=0.05)
        assert up.poll() is None, output.read_text()
        power_cut(cluster.controller)
        since = now()
        docker("start", cluster.controller)
        interrupt(up)
    assert up.returncode != 0, output.read_text()
    return since


def test_power_cuts_while_it_is_set_up(cluster: Cluster) -> None:
    """Each run has to go on from what the one before it left; nobody's pods are there yet."""
    installed = "test -e /var/lib/kubepivot/containerd"
    cut(cluster, "a container runtime on the controller", lambda: cluster.holds(installed))
    bootstrap = f"test -e {MANIFESTS}/bootstrap-apiserver.yaml"
    cut(cluster, "the temporary control plane", lambda: cluster.holds(bootstrap))
    cut(cluster, "the hand-over", lambda: cluster.holds(HANDING_OVER))


def test_a_power_cut_between_the_two_control_planes(cluster: Cluster) -> None:
    """Neither the temporary one nor the real one stands alone, and somebody uses the cluster already."""
    cluster.start()
    cluster.write_kubeconfig()
    add_users(cluster.stack)
    before = users(cluster.stack)
    with cluster.writer("pivot") as writer:
        cut(cluster, "the temporary kube-apiserver to go", lambda: cluster.holds(RETIRING))
        cluster.start()
        cluster.stack.up()
        writer.writes_on()
    assert cluster.holds("! test -e /etc/kubernetes/bootstrap-secrets")
    assert lost(cluster.stack, writer.acknowledged) == set()
    assert users(cluster.stack) == before
    cluster.stack.second_up_changes_nothing()


def test_a_power_cut_while_the_apiserver_rolls(cluster: Cluster) -> None:
    before, old = users(cluster.stack), cluster.apiserver()
    urn = cluster.stack.state()["cuts-apiserver-cert"]["urn"]
    with cluster.writer("roll") as writer:
        since = cut(cluster, "the second kube-apiserver", cluster.rolls, "--replace", urn)
        cluster.start()
        cluster.stack.up()
        writer.writes_on()
    cluster.stands_alone(since, "controller-1")
    assert cluster.apiserver()["metadata"]["uid"] != old["metadata"]["uid"]
    renewed = cluster.stack.state()["cuts-apiserver-cert"]["outputs"]["certPem"]
    assert ssl.get_server_certificate((cluster.address, 6443), timeout=5).strip() == renewed.strip()
    assert lost(cluster.stack, writer.acknowledged) == set()
    assert users(cluster.stack) == before
    cluster.stack.second_up_changes_nothing()


def test_destroy_leaves_nothing(cluster: Cluster) -> None:
    cluster.stack.destroy()
    assert docker("container", "ls", "--all", "--quiet", "--filter", "label=kubepivot.cluster=cuts") == ""
