"""What of a living cluster keeps an upgrade from beginning, by what its API says. Plain functions.

Each returns problems, one line each: what it is, and the mend.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from components.assets.manifests import Object
from components.assets.rollout.objects import condition
from components.config.releases import minor_of

__all__ = ["etcd_problems", "has_begun", "new_hosts", "node_problems", "removed_apis"]

_ETCD_CHECKS = ("etcd", "etcd-readiness")
_OLDEST_KUBELET = 3
"""By so many minors may a kubelet be behind kube-apiserver."""

_LABEL = r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"'
_LABELS = rf"\{{\s*((?:{_LABEL}\s*(?:,\s*|(?=\}})))*)\}}"
_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_SAMPLE = re.compile(rf"\s*apiserver_requested_deprecated_apis\s*{_LABELS}\s*{_NUMBER}(?:\s+\d+)?\s*")
"""The metric with its labels, its value and perhaps a time."""


def removed_apis(metrics: str, to_version: str) -> list[str]:
    """APIs that somebody has asked for since kube-apiserver started, and that the version does not have.

    `metrics` are kube-apiserver's, in Prometheus' text format.
    """
    problems = set()
    for line in metrics.split("\n"):
        sample = _SAMPLE.fullmatch(line)
        if sample is None or float(sample[4]) == 0:
            continue
        labels = {name: _unescaped(value) for name, value in re.findall(_LABEL, sample[1])}
        removed = labels.get("removed_release", "")
        # What is deprecated and stays has none.
        if re.fullmatch(r"1\.\d+", removed) and minor_of(removed) <= minor_of(to_version):
            parts = ("group", "version", "resource", "subresource")
            api = "/".join(filter(None, (labels.get(part) for part in parts)))
            problems.add(
                f"{api} is still asked for, and {removed} does not have it any more: have what asks use a "
                "newer version of it, then restart kube-apiserver, which remembers until then: kubectl -n "
                "kube-system rollout restart daemonset/kube-apiserver"
            )
    return sorted(problems)


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], value)


def node_problems(nodes: Sequence[Object], from_version: str, to_version: str) -> list[str]:
    """Nodes whose kubelet can't be with that version, and nodes without room for what is new."""
    return [
        f"node {node['metadata']['name']} {problem}"
        for node in nodes
        for problem in (
            _kubelet(node, from_version, to_version),
            _disk(node),
        )
        if problem
    ]


def _kubelet(node: Object, from_version: str, to_version: str) -> str:
    version = node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")
    if not version:
        return ""  # no kubelet has been there so far
    kubelet, before, after = map(minor_of, (version, from_version, to_version))
    if kubelet > after:
        return (
            f"has a kubelet {version}, and none may be newer than kube-apiserver: bring it to {to_version}, "
            "or take the node out"
        )
    # Kubelets come last in an upgrade, so that one of the minor before tells that it has not ended.
    if kubelet < before < after:
        return (
            f"has a kubelet {version}, so the upgrade to {from_version} has not ended: set "
            f"kubepivot:kubernetesVersion to {from_version}, and run pulumi up until it succeeds"
        )
    if kubelet < after - _OLDEST_KUBELET:
        return (
            f"has a kubelet {version}, more than {_OLDEST_KUBELET} minors older than {to_version}: bring it "
            "nearer, or take the node out"
        )
    return ""


def new_hosts(
    nodes: Sequence[Object], hosts: Collection[str], from_version: str, to_version: str
) -> list[str]:
    """Hosts whose kubelet would be changed at once, and be newer than kube-apiserver still is."""
    if minor_of(from_version) == minor_of(to_version):
        return []
    ready = {node["metadata"]["name"]: condition(node, "Ready") == "True" for node in nodes}
    new = [
        f"host {name} is no node yet: add it in a run of its own, before another minor or after it"
        for name in sorted(set(hosts) - ready.keys())
    ]
    down = [
        f"node {name} is not Ready, and has to be for another minor: mend it or take it out first"
        for name in sorted(hosts)
        if not ready.get(name, True)
    ]
    return new + down


def _disk(node: Object) -> str:
    if condition(node, "DiskPressure") != "True":
        return ""
    return "has hardly any disk space left (DiskPressure), and new images need some: free it"


def etcd_problems(readyz: str) -> list[str]:
    """Checks of etcd that fail, or are not there, in what kube-apiserver says at `/readyz?verbose`."""
    lines = [line.strip() for line in readyz.splitlines()]
    return [
        f"kube-apiserver's check {check} does not pass: make etcd healthy first, kubectl get --raw "
        "'/readyz?verbose' shows the checks"
        for check in _ETCD_CHECKS
        if f"[+]{check} ok" not in lines
    ]


def has_begun(daemonset: Object, minor: int) -> bool:
    """Whether a kube-apiserver newer than that minor may have stored objects, by its DaemonSet."""
    containers = daemonset["spec"]["template"]["spec"]["containers"]
    image = next(each["image"] for each in containers if each["name"] == "kube-apiserver")
    tag = re.search(r":v?1\.(\d+)\.\d+(?:-[\w.-]+)?(?:@sha256:[0-9a-f]{64})?$", image)
    return tag is None or int(tag[1]) > minor
