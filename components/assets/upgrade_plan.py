"""Tells what an upgrade will do, from which version to which and in which order, and how far it has got."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from components.assets.registration import taints
from components.assets.upgrade import kubelet_version
from components.config import ClusterConfig, HostConfig
from components.config.images import release_images
from components.config.releases import RELEASES, Release
from components.hosts.machine import HostSpec
from components.tables.components import CONTROL_PLANE, LEADERS, WORKLOADS, Workload

__all__ = ["host_order", "how_far", "upgrade_plan", "workload_tiers"]


def host_order(cfg: ClusterConfig) -> list[str]:
    """The hosts in the order of their turns."""
    return [*cfg.controllers, *cfg.workers]


def upgrade_plan(cfg: ClusterConfig, begun: str) -> str:
    """The parts of the upgrade of a cluster that has begun to run that version, a line for each that changes.

    Of a version that is not supported any more it is not known what it ran with.
    """
    known = RELEASES.get(begun)
    parts = [
        [
            "every host: downloads, while nothing that runs is changed",
            "etcd and nodes are looked at, and a snapshot is made: what is wrong ends the run here",
        ],
        list(_etcd(cfg, known)),
        *(list(_workloads(cfg, known, tier)) for tier in workload_tiers(cfg)),
        *([_host(cfg, begun, known, name)] for name in host_order(cfg)),
    ]
    at_once = cfg.upgrade.max_unavailable
    pace = f"; of the hosts, which come last, {at_once} at once" if at_once > 1 else ""
    lines = [
        f"Kubernetes {begun} -> {cfg.kubernetes_version}, each part when the one before has ended well{pace}:"
    ]
    for number, part in enumerate(filter(None, parts), start=1):
        head, *others = part
        lines += [f"{number:>3}. {head}", *(f"     {other}" for other in others)]
    return "\n".join(lines)


def how_far(cfg: ClusterConfig, kubelets: Mapping[str, str]) -> str:
    """Which hosts have been upgraded, and which have not, by the versions of their kubelets."""
    wanted = kubelet_version(cfg)
    done = [name for name in host_order(cfg) if kubelets.get(name) == wanted]
    left = [f"{name} ({kubelets.get(name) or 'no node'})" for name in host_order(cfg) if name not in done]
    return f"with kubelet {wanted}: {', '.join(done) or 'none'}; not yet: {', '.join(left) or 'none'}"


def workload_tiers(cfg: ClusterConfig) -> list[list[Workload]]:
    """Workloads that change together: kube-apiserver, then those that elect a leader, then all others."""
    workloads = (*WORKLOADS, cfg.pod_network.workload)
    first = [each for each in workloads if each.name in CONTROL_PLANE and each.name not in LEADERS]
    leaders = [each for each in workloads if each.name in LEADERS]
    return [first, leaders, [each for each in workloads if each.name not in CONTROL_PLANE]]


def _workloads(cfg: ClusterConfig, known: Release | None, tier: list[Workload]) -> Iterator[str]:
    wanted = cfg.workload_images
    given: Mapping[str, str] = cfg.images.model_dump(by_alias=True, exclude_none=True)
    former = {**release_images(known), **given} if known else {}
    for workload in tier:
        images = [
            _changed(former.get(image.key), wanted[image.key])
            for image in workload.images
            if former.get(image.key) != wanted[image.key]
        ]
        named = [wanted[image.key] for image in workload.images if image.key in given]
        if images:
            yield f"{workload.name}: {', '.join(images)}"
        elif named:
            yield f"{workload.name}: {', '.join(named)}, which kubepivot:images names"


def _etcd(cfg: ClusterConfig, known: Release | None) -> Iterator[str]:
    former = known.etcd_image if known else None
    if former != cfg.release.etcd_image:
        yield f"etcd on {', '.join(cfg.controllers)}: {_changed(former, cfg.release.etcd_image)}"


def _host(cfg: ClusterConfig, begun: str, known: Release | None, name: str) -> str:
    drain = "drained" if _has_other(cfg, name) else "not drained, since no other node could take its pods"
    if drain == "drained" and cfg.upgrade.max_unavailable > 1:
        drain = "drained if another node can take its pods then"
    former, wanted = known.containerd if known else None, cfg.release.containerd
    containerd = "as it is" if former == wanted else _changed(former, wanted)
    return f"{name}: {drain}; kubelet {begun} -> {cfg.kubernetes_version}, containerd {containerd}"


def _has_other(cfg: ClusterConfig, name: str) -> bool:
    """Whether another node takes the pods if it is Ready then: `takes_over` by the taints alone."""
    hard = {each: _hard_taints(each, host) for each, host in cfg.hosts.items()}
    return any(other != name and hard[other] <= hard[name] for other in hard)


def _hard_taints(name: str, host: HostConfig) -> set[tuple[str, str, str]]:
    found = taints(HostSpec(name=name, role=host.role, taints=host.taints))
    return {(t["key"], t["value"], t["effect"]) for t in found if t["effect"] != "PreferNoSchedule"}


def _changed(former: str | None, wanted: str) -> str:
    """From the one to the other, whose name is told once if the tags alone differ."""
    if former is None:
        return f"-> {wanted}"
    name, _, tag = wanted.rpartition(":")
    was, _, old = former.rpartition(":")
    return f"{name} {old} -> {tag}" if name and name == was else f"{former} -> {wanted}"
