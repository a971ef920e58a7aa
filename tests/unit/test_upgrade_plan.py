"""What a preview tells of an upgrade: versions, order and drains."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pulumi
import pytest

from components.assets.upgrade_plan import upgrade_plan
from components.config import ClusterConfig, parse
from components.config.releases import LATEST, RELEASES
from tests.cases import CHECKOUT, Raw, read
from tests.unit.recorder import Run, program

LATER = f"{LATEST}1"
"""A later patch of the newest minor."""
TAINT = "example.com/gpu=true:NoSchedule"


def with_workers(count: int, **more: Any) -> Raw:
    raw = read("lab")
    controller = raw["hosts"]["controller-1"]
    workers = {
        f"worker-{number}": {"role": "worker", "address": f"172.30.0.{20 + number}"}
        for number in range(1, count + 1)
    }
    return raw | {"hosts": {"controller-1": controller, **workers}} | more


def config(raw: Raw) -> ClusterConfig:
    return parse(raw, stack="lab")


def lines(plan: str) -> list[str]:
    """The parts without their numbers."""
    return [re.sub(r"^ *(\d+\.)? *", "", line) for line in plan.splitlines()[1:]]


def told(run: Run, begun: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a preview logs before the record of the version would change."""
    said: list[str] = []
    monkeypatch.setattr("pulumi.log.info", lambda text, **_: said.append(text))

    async def check(*_: object) -> None:
        assert not said, "an upgrade that may not begin has no plan"

    monkeypatch.setattr("components.upgrade_path.check", check)
    hook: Any = run.hooks["upgrade-checks"]
    assert hook.opts.on_dry_run
    args = pulumi.ResourceHookArgs(urn="", id="", name="", type="", old_inputs={"input": begun})
    asyncio.run(hook(args))
    (text,) = said
    return text


def test_the_example_in_the_documents_is_what_a_preview_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    run = program(with_workers(2, kubernetesVersion="1.37.2"), preview=True)
    text = told(run, "1.36.3", monkeypatch)
    assert f"```\n{text}\n```\n" in (CHECKOUT / "docs/operations.md").read_text(), text


def test_parts_are_in_the_order_in_which_the_program_does_them() -> None:
    run = program(with_workers(2))
    told = lines(upgrade_plan(config(with_workers(2)), "1.36.3"))
    workloads = {
        "etcd and nodes are looked at, and a snapshot is made": "controller-1-snapshot",
        "etcd on controller-1": "controller-1-etcd",
        "coredns": "coredns-deployment",
    }
    names = [line.partition(":")[0] for line in told]
    resources = [
        run.only(
            f"lab-{workloads.get(name, name)}"
            if name not in ("controller-1", "worker-1", "worker-2")
            else f"lab-{name}-upgrade"
        )
        for name in names[1:]
    ]
    for earlier, later in pairwise(resources):
        assert later.urn not in run.before(earlier), (earlier.name, later.name)
    assert resources[0].urn in run.before(resources[1])
    hosts = resources[-3:]
    assert all(one.urn in run.before(other) for one, other in pairwise(hosts))
    assert all(each.urn in run.before(hosts[0]) for each in resources[:-3])


def test_every_workload_whose_image_changes_is_told_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = RELEASES[LATEST]
    later = replace(newest, kubernetes=LATER, flannel="9.9", etcd="9", containerd="9.9")
    monkeypatch.setitem(RELEASES, LATER, later)
    own = {"coredns": "registry.example.com/coredns:v1", "kube-proxy": "registry.example.com/kube-proxy:v1"}
    raw = with_workers(1, kubernetesVersion=LATEST, images=own)
    cfg = config(raw).model_copy(update={"kubernetes_version": LATER})
    assert lines(upgrade_plan(cfg, LATEST)) == [
        "every host: downloads, while nothing that runs is changed",
        "etcd and nodes are looked at, and a snapshot is made: what is wrong ends the run here",
        f"etcd on controller-1: quay.io/coreos/etcd v{newest.etcd} -> v9",
        f"kube-apiserver: registry.k8s.io/kube-apiserver v{LATEST} -> v{LATER}",
        f"kube-controller-manager: registry.k8s.io/kube-controller-manager v{LATEST} -> v{LATER}",
        f"kube-scheduler: registry.k8s.io/kube-scheduler v{LATEST} -> v{LATER}",
        "kube-proxy: registry.example.com/kube-proxy:v1, which kubepivot:images names",
        "coredns: registry.example.com/coredns:v1, which kubepivot:images names",
        f"flannel: ghcr.io/flannel-io/flannel v{newest.flannel} -> v9.9",
        f"controller-1: drained; kubelet {LATEST} -> {LATER}, containerd {newest.containerd} -> 9.9",
        "worker-1: not drained, since no other node could take its pods; "
        f"kubelet {LATEST} -> {LATER}, containerd {newest.containerd} -> 9.9",
    ]


def test_of_a_version_that_is_not_known_any_more_only_what_comes_is_told() -> None:
    found = lines(upgrade_plan(config(with_workers(0)), "1.35.1"))
    assert f"kube-apiserver: -> registry.k8s.io/kube-apiserver:v{LATEST}" in found[3]
    assert found[-1] == (
        "controller-1: not drained, since no other node could take its pods; "
        f"kubelet 1.35.1 -> {LATEST}, containerd -> {RELEASES[LATEST].containerd}"
    )


@pytest.mark.parametrize(
    ("taints", "drained"),
    [
        ({}, {"controller-1", "worker-1", "worker-2"}),
        ({"worker-1": [TAINT]}, {"controller-1", "worker-1"}),
        ({"worker-1": [TAINT], "worker-2": [TAINT]}, {"worker-1", "worker-2"}),
        ({"worker-2": ["example.com/gpu=true:PreferNoSchedule"]}, {"controller-1", "worker-1", "worker-2"}),
    ],
)
def test_hosts_that_no_other_stands_in_for_are_not_drained(
    taints: dict[str, list[str]], drained: set[str]
) -> None:
    raw = with_workers(2)
    for name, given in taints.items():
        raw["hosts"][name] |= {"taints": given}
    found = lines(upgrade_plan(config(raw), "1.36.1"))
    assert {line.partition(":")[0] for line in found if ": drained; " in line} == drained


def test_how_many_hosts_at_once_is_told() -> None:
    raw = with_workers(2, upgrade={"maxUnavailable": 2})
    assert upgrade_plan(config(raw), "1.36.3").startswith(
        f"Kubernetes 1.36.3 -> {LATEST}, each part when the one before has ended well; of the hosts, which "
        "come last, 2 at once:\n"
    )
    assert "worker-1: drained if another node can take its pods then; kubelet" in upgrade_plan(
        config(raw), "1.36.3"
    )
