"""What a preview shows of a change: what has to change, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.cases import read
from tests.sweeps import swept
from tests.unit.recorder import Unknown, changed, has, program, ran

KNOW_THE_NODES = {"handover", "kubelet-policy", "csr-renewal-role-binding"}


def _parts(urns: Iterable[str]) -> set[str]:
    """Names of resources without the cluster's."""
    return {urn.rpartition("::")[2].partition("-")[2] for urn in urns}


@pytest.mark.parametrize(("name", "worker"), [("lab", "worker-1"), ("baremetal", "gpu")])
def test_a_worker_that_leaves_takes_only_its_own_with_it(name: str, worker: str) -> None:
    raw = read(name)
    del raw["hosts"][worker]
    before, after = ran(name).by_urn, program(raw).by_urn
    assert after.keys() < before.keys()
    assert all(worker in urn for urn in before.keys() - after.keys())
    assert _parts(urn for urn in after if after[urn] != before[urn]) == KNOW_THE_NODES


@pytest.mark.parametrize(("name", "worker"), swept([("baremetal", "gpu"), ("lab", "worker-1")]))
def test_a_preview_of_a_worker_that_joins_shows_nothing_of_the_others(name: str, worker: str) -> None:
    raw = read(name)
    del raw["hosts"][worker]
    state = program(raw)
    preview = program(read(name), preview=True, state=state)
    urns = {each.urn for each in state.resources}
    shown = changed(state, preview)
    assert all(worker in urn for urn in shown - urns)
    assert _parts(shown & urns) == KNOW_THE_NODES
    # Even then all of it is shown.
    assert not any(has(Unknown, each.inputs) for each in preview.resources if each.urn in shown & urns)
    assert not has(Unknown, preview.outputs)


@pytest.mark.parametrize(("name", "host"), swept([("baremetal", "alpha"), ("lab", "worker-1")]))
def test_a_preview_of_labels_and_taints_shows_their_host_only(name: str, host: str) -> None:
    raw = read(name)
    raw["hosts"][host] |= {"labels": {"example.com/a": "b"}, "taints": ["example.com/c:NoExecute"]}
    shown = changed(ran(name), program(raw, preview=True, state=ran(name)))
    stores = {f"{host}-etcd"} if raw["hosts"][host]["role"] == "controller" else set()
    assert _parts(shown) == stores | {
        f"{host}-{part}" for part in ("labels", "node", "node-intent", "upgrade")
    }


READERS: dict[str, list[str]] = {
    "admin": [],
    "super-admin": ["bootstrap", "cluster", "handover", "worker-1-removal"],
    "apiserver": ["handover", "kube-apiserver", "kube-apiserver-intent", "kube-apiserver-secret"],
    "bootstrap-apiserver": ["bootstrap"],
    "scheduler": [
        *("bootstrap", "handover", "kube-scheduler", "kube-scheduler-intent", "kube-scheduler-secret")
    ],
    "kubelet-serving-worker-1": ["worker-1-node", "worker-1-node-intent", "worker-1-upgrade"],
    "kubelet-client-controller-1": [
        *("controller-1-etcd", "controller-1-node", "controller-1-node-intent", "controller-1-upgrade")
    ],
    "etcd-peer-controller-1": [
        "controller-1-etcd",
        "controller-1-node",
        "controller-1-node-intent",
        "controller-1-upgrade",
    ],
}
"""What in the cluster `lab` reads a leaf, be it through the digest of workloads."""


@pytest.mark.parametrize("leaf", swept(READERS))
def test_a_preview_of_a_leaf_that_is_renewed_shows_what_reads_it(leaf: str) -> None:
    state = ran("lab")
    preview = program(read("lab"), preview=True, state=state.without(f"lab-{leaf}-cert"))
    names = {each.urn: each.name for each in preview.resources}
    shown = sorted(names[urn].removeprefix("lab-") for urn in changed(state, preview))
    assert shown == READERS[leaf]
    assert has(Unknown, preview.outputs) == (leaf == "admin")
