"""Upgrades that may not begin, or can't end: each stops before harm, with the reason and the mend, and the
cluster serves.

One that a disruption budget blocks is in `test_upgrades.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from components.api import client
from components.upgrade_checks import look
from lab import lifecycle
from lab.engine import docker
from lab.progress import Progress
from tests.e2e.probing import Prober, credentials
from tests.e2e.stacks import Stack, eventually, lab_config
from tests.e2e.upgrading import HOSTS, NEWER, OLDER, kubelets, versions

pytestmark = [pytest.mark.e2e, pytest.mark.builds]

SUBNET = 30
CONTROLLER = f"172.30.{SUBNET}.11"
ON_CONTROLLER, WORKER_1, WORKER_2 = (f"refused-{name}" for name in ("controller-1", "worker-1", "worker-2"))
NONE = "registry.k8s.io/none/none:none"
BACKUPS, KEPT = "/var/lib/kubepivot/backups", "/var/lib/kubepivot/before-upgrade"
SYSTEM = "--namespace=kube-system"


def config(version: str, **more: Any) -> dict[str, Any]:
    """With an API that 1.36 has and 1.37 has not, and a quota of etcd that is soon used up."""
    flags = {"kube-apiserver": {"runtime-config": "networking.k8s.io/v1beta1=true"}}
    own = {"kubernetesVersion": version, "etcd": {"quota": "64Mi"}, "flags": flags}
    return lab_config(SUBNET, workers=2) | own | more


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A cluster of the older release, on a lab that serves both."""
    for release in (OLDER, NEWER):
        lifecycle.prepare_release(release, Progress())
    stack = new_stack("refused", config(OLDER))
    stack.up()
    yield stack


def on_host(container: str, command: str) -> str:
    return docker("exec", container, "sh", "-ec", command)


@contextmanager
def served(stack: Stack) -> Iterator[None]:
    """A client at the endpoint loses no request meanwhile."""
    known, begin = credentials(stack), time.monotonic()
    assert known is not None
    with Prober.start(known, CONTROLLER, 6443) as prober:
        yield
        counts = prober.stop()
    print(f"{time.monotonic() - begin:.0f} s; {counts}")
    assert counts["requests"] > 20 * (time.monotonic() - begin)
    assert counts["lost"] == 0, counts


def workloads(stack: Stack) -> dict[str, int]:
    """A number for each that rises with every change of it."""
    return {
        each["metadata"]["name"]: each["metadata"]["generation"]
        for kind in ("daemonsets", "deployments")
        for each in stack.get(kind, SYSTEM)["items"]
    }


def recorded(stack: Stack) -> str:
    return str(stack.state()["kubernetes-version"]["inputs"]["input"])


def steps(stack: Stack, end: str) -> dict[str, Any]:
    """What the state has of the hosts' steps with this end of their names."""
    return {name: each["inputs"] for name, each in stack.state().items() if name.endswith(end)}


def refused(stack: Stack, said: tuple[str, ...]) -> None:
    """The newer version, which does not begin."""
    before = workloads(stack), steps(stack, "-node")
    stack.configure(config(NEWER))
    output = stack.up(fails=True)
    print(output)
    for part in said:
        assert part in " ".join(output.split()), part
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{OLDER}")
    assert (workloads(stack), steps(stack, "-node")) == before
    assert recorded(stack) == OLDER


def put_back(stack: Stack) -> None:
    stack.configure(config(OLDER))
    stack.up()
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{OLDER}")
    assert versions(stack) == {OLDER}
    stack.second_up_changes_nothing()


# -- what may not begin --------------------------------------------------------------------------------------


def test_an_api_that_the_next_minor_has_not_is_found_when_somebody_asks_for_it(stack: Stack) -> None:
    """By a real kube-apiserver's metrics. No API goes between the releases that a lab can have."""
    known = credentials(stack, "super-admin")
    assert known is not None
    pair = known["cert"] + known["key"]

    async def problems() -> list[str]:
        async with client(f"https://{CONTROLLER}:6443", known["ca"], pair) as api:
            return await look(api, HOSTS, OLDER, "1.37.2")

    assert asyncio.run(problems()) == []
    stack.kubectl("get", "--raw", "/apis/networking.k8s.io/v1beta1/ipaddresses")
    (problem,) = asyncio.run(problems())
    print(problem)
    assert problem.startswith("networking.k8s.io/v1beta1/ipaddresses is still asked for, and 1.37 does not")


@pytest.mark.parametrize(
    ("container", "directory", "said"),
    [
        (
            WORKER_2,
            "/var/cache/kubepivot",
            ("worker-2 has no room", "/var/cache/kubepivot: 64 MiB are free, and 100 are needed"),
        ),
        (
            ON_CONTROLLER,
            BACKUPS,
            (f"{BACKUPS} has 64 MiB free, and", "make space there", "nothing has been upgraded"),
        ),
    ],
    ids=["for downloads", "for the snapshot"],
)
def test_a_full_disk(stack: Stack, container: str, directory: str, said: tuple[str, ...]) -> None:
    on_host(container, f"mkdir -p {directory}; mount -t tmpfs -o size=64m tmpfs {directory}")
    try:
        with served(stack):
            refused(stack, said)
    finally:
        on_host(container, f"umount {directory}")


ETCD = """
etcd() {
  etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt \\
    --cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key "$@"
}
"""
FILL = """
for number in $(seq 100); do
  head -c 1000000 /dev/urandom | base64 --wrap=0 | etcd put fill/$number >/dev/null 2>&1 || break
done
etcd alarm list
"""
EMPTY = """
etcd del --prefix fill/
etcd compact --physical "$(etcd endpoint status --write-out=json | sed 's/.*"revision":\\([0-9]*\\).*/\\1/')"
etcd defrag
etcd alarm disarm
"""


def test_an_etcd_with_an_alarm(stack: Stack) -> None:
    """kube-apiserver takes it for healthy, since it can be read. A larger quota can be given meanwhile, as
    the documents say. In the end the older version is back.
    """
    with served(stack):
        assert "alarm:NOSPACE" in on_host(ON_CONTROLLER, ETCD + FILL)
        try:
            refused(stack, ("etcd is not healthy", "NOSPACE", "nothing has been upgraded: mend that"))
            stack.configure(config(OLDER, etcd={"quota": "128Mi"}))
            stack.up()
            assert "alarm:NOSPACE" in on_host(ON_CONTROLLER, f"{ETCD} etcd alarm list")
            assert str(128 << 20) in on_host(ON_CONTROLLER, "cat /etc/kubernetes/etcd.conf.yml")
        finally:
            on_host(ON_CONTROLLER, ETCD + EMPTY)
    eventually("every leader", 60, lambda: leaders_are_ready(stack))
    put_back(stack)


def leaders_are_ready(stack: Stack) -> bool:
    return all(
        stack.get(f"deployment/kube-{name}", SYSTEM)["status"].get("readyReplicas") == 1
        for name in ("controller-manager", "scheduler")
    )


# -- what can't end ------------------------------------------------------------------------------------------


def test_an_image_that_cannot_be_had(stack: Stack) -> None:
    before, nodes = workloads(stack), kubelets(stack)
    assert on_host(ON_CONTROLLER, f"ls {KEPT} 2>/dev/null || true") == ""
    with served(stack):
        stack.configure(config(NEWER, images={"kube-apiserver": NONE}))
        output = stack.up(fails=True)
        print(output)
        for part in (
            "kube-apiserver is not rolled out",
            "ImagePull",
            NONE,
            "kubepivot:images.kube-apiserver",
        ):
            assert part in output
        changed = {name for name, generation in workloads(stack).items() if generation != before[name]}
        assert changed == {"kube-apiserver"}, "nothing goes on before that one has rolled"
        assert kubelets(stack) == nodes
        put_back(stack)


def test_the_snapshot_from_before_is_whole_and_stays(stack: Stack) -> None:
    """Beside none of the upgrades that did not begin."""
    (name,) = on_host(ON_CONTROLLER, f"cd {KEPT}; sha256sum --check --quiet *.sha256; ls *.db").split()
    on_host(ON_CONTROLLER, f"rm {BACKUPS}/{name}")
    status = on_host(ON_CONTROLLER, f"etcdutl snapshot status {KEPT}/{name} --write-out=json")
    assert name.endswith(f"-{json.loads(status)['revision']}.db")
    assert on_host(ON_CONTROLLER, f"stat -c %a:%U {KEPT} {KEPT}/{name}").split() == ["700:root", "600:root"]


DROP_IN = "/etc/systemd/system/kubelet.service.d/broken.conf"


def test_a_kubelet_that_does_not_come_back(stack: Stack) -> None:
    """On the first worker, since it can't start; the second is as it was, and the next run ends it."""
    check = f"/bin/sh -c '! /usr/local/bin/kubelet --version | grep -qF {NEWER}'"
    on_host(
        WORKER_1,
        f'mkdir -p {DROP_IN.rpartition("/")[0]}; printf "[Service]\\nExecStartPre={check}\\n" >{DROP_IN}',
    )
    begin = time.monotonic()
    with served(stack):
        stack.configure(config(NEWER))
        output = stack.up(fails=True)
        print(output)
        said = " ".join(output.split())
        assert "Job for kubelet.service failed" in said
        assert "no other host is begun, and worker-1 stays cordoned" in said
        assert "Mend what 'journalctl -u kubelet' says there" in said
        assert "put the former values back in the config; then run 'pulumi up' again" in said
        assert kubelets(stack) == {
            "controller-1": f"v{NEWER}",
            "worker-1": f"v{OLDER} cordoned",
            "worker-2": f"v{OLDER}",
        }
        print(f"stopped after {time.monotonic() - begin:.0f} s")
        on_host(WORKER_1, f"rm {DROP_IN}; systemctl daemon-reload; systemctl restart kubelet")
        stack.up()
    assert kubelets(stack) == dict.fromkeys(HOSTS, f"v{NEWER}")
    assert versions(stack) == {NEWER}
    stack.second_up_changes_nothing()
