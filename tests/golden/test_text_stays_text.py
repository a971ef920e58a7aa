"""Names and values that look like numbers, truth values or nothing are text in all YAML that is written."""

from __future__ import annotations

import re

import pytest
import yaml

from components.archive import File
from components.assets import document
from components.assets.bootstrap import bootstrap_files
from components.assets.node import node_files
from components.assets.recovery import recovery_files
from components.assets.render import render
from components.config import ClusterConfig, parse
from components.hosts.machine import configured_machines
from tests.cases import pem, pki_names

LIKE_NUMBERS = ("09", "1e3", "0x10", "0o17", "0b11", "1_0", "1.5", "2026-1-2", "12:30")
OTHERS = ("y", "N", "yes", "off", "null", "true", "~", "")


@pytest.mark.parametrize("text", [*LIKE_NUMBERS, *OTHERS])
def test_what_looks_like_something_else_is_quoted(text: str) -> None:
    assert document.dump({"key": text}) == f"key: '{text}'\n"


def test_what_is_no_text_is_not() -> None:
    values = {"a": 9, "b": 0.5, "c": True, "d": None}
    assert document.dump(values) == "a: 9\nb: 0.5\nc: true\nd: null\n"


@pytest.mark.parametrize("text", ["10.2.0.0/16", "10.3.0.10", "1.36.3", "v1", "64Mi", "0x", "node-1"])
def test_other_text_needs_no_quotes(text: str) -> None:
    assert document.dump({"key": text}) == f"key: {text}\n"


CLUSTER, CONTROLLER, WORKER, DOMAIN, IMAGE = "09", "1e3", "0x10", "y", "9:30"


@pytest.fixture(scope="module")
def cfg() -> ClusterConfig:
    """A cluster of nothing but such names."""
    hosts = {
        CONTROLLER: {"role": "controller", "address": "172.30.0.11"},
        WORKER: {"role": "worker", "address": "172.30.0.21", "taints": ["0o17=09:NoSchedule"]},
    }
    raw = {
        "platform": "lab",
        "name": CLUSTER,
        "hosts": hosts,
        "network": {"domain": DOMAIN},
        "images": {"coredns": IMAGE},
        "recovery": {"generation": 1},
    }
    return parse(raw, stack="dev")


@pytest.fixture(scope="module")
def files(cfg: ClusterConfig) -> dict[str, File]:
    """Everything that is written for it, by path."""
    texts = {name: pem(name) for name in pki_names(cfg)}
    machines = configured_machines(cfg)
    controller, worker = machines[CONTROLLER], machines[WORKER]
    found = {
        "render": render(cfg, machines, texts),
        "controller": node_files(cfg, controller, machines, texts),
        "worker": node_files(cfg, worker, machines, texts),
        "bootstrap": bootstrap_files(cfg, controller, machines, texts),
        "recover": recovery_files(cfg, controller, machines, texts),
    }
    return {f"{step}/{path}": file for step, brought in found.items() for path, file in brought.items()}


def test_no_name_stands_without_quotes(files: dict[str, File]) -> None:
    names = "|".join(map(re.escape, (CLUSTER, CONTROLLER, WORKER, DOMAIN, IMAGE, "0o17")))
    quoted, bare = (
        re.compile(f"[-:] '({names})'$", re.MULTILINE),
        re.compile(f"[-:] ({names})$", re.MULTILINE),
    )
    documents = {
        path: file.text for path, file in files.items() if path.endswith((".yaml", ".conf", "kubeconfig"))
    }
    assert {match for text in documents.values() for match in quoted.findall(text)} == {
        *(CLUSTER, CONTROLLER, DOMAIN, IMAGE, "0o17")
    }
    for path, text in documents.items():
        assert not bare.search(text), path


def test_names_are_read_as_they_were_given(files: dict[str, File]) -> None:
    kubelet = yaml.safe_load(files["worker/root/etc/kubernetes/kubelet.yaml"].text)
    assert kubelet["clusterDomain"] == DOMAIN
    taints = yaml.safe_load(files["worker/root/etc/kubernetes/kubelet.d/taints.conf"].text)
    assert taints["registerWithTaints"] == [{"key": "0o17", "value": "09", "effect": "NoSchedule"}]
    kubeconfig = yaml.safe_load(files["render/auth/kubeconfig"].text)
    assert kubeconfig["current-context"] == kubeconfig["clusters"][0]["name"] == CLUSTER
    coredns = yaml.safe_load(files["render/manifests/coredns-deployment.yaml"].text)
    assert coredns["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE
