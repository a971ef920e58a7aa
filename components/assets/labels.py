"""Labels and taints of the config on a node that has registered already. Plain functions."""

from __future__ import annotations

from collections.abc import Sequence

from components.assets.manifests import Object
from components.assets.registration import taints
from components.config.k8s_names import Taint
from components.hosts.machine import HostSpec

__all__ = ["NONE", "labels_of", "labels_patch"]

NONE: Object = {"labels": {}, "taints": []}


def labels_of(host: HostSpec) -> Object:
    """The labels and taints that the config gives the host: what is recorded, and shown by a preview."""
    return {"labels": dict(host.labels), "taints": [str(taint) for taint in host.taints]}


def labels_patch(node: Object, host: HostSpec, before: Object) -> Object | None:
    """A merge patch after which the node has what the config gives it; None if it has.

    Of `before`, what was recorded last, it takes away what the config has no longer, unless somebody has
    given it another value since. What others have set stays. Taints are one list, of which controllers of the
    cluster write parts as well: so the patch is for the node that was looked at alone.
    """
    labels = _labels(node, host, before)
    listed = node["spec"].get("taints", [])
    tainted = _taints(listed, host, before)
    if not labels and tainted == listed:
        return None
    patch: Object = {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"], "labels": labels}}
    return patch if tainted == listed else patch | {"spec": {"taints": tainted}}


def _labels(node: Object, host: HostSpec, before: Object) -> dict[str, str | None]:
    there = node["metadata"].get("labels", {})
    given = {key: value for key, value in host.labels.items() if there.get(key) != value}
    gone = [
        key for key, value in before["labels"].items() if key not in host.labels and there.get(key) == value
    ]
    return {**given, **dict.fromkeys(gone)}


def _taints(listed: Sequence[Object], host: HostSpec, before: Object) -> list[Object]:
    given = {(each.key, each.effect): each for each in host.taints}
    # Of a controller the config need not name every taint.
    registered = {(each["key"], each["effect"]) for each in taints(host)}
    gone = [each for each in map(Taint.parse, before["taints"]) if (each.key, each.effect) not in registered]
    found = []
    for each in listed:
        taint = Taint(key=each["key"], value=each.get("value", ""), effect=each["effect"])
        wanted = given.pop((taint.key, taint.effect), taint)
        if wanted != taint:
            found.append(_object(wanted))
        elif taint not in gone:
            found.append(each)
    return found + [_object(taint) for taint in given.values()]


def _object(taint: Taint) -> Object:
    return {"key": taint.key, "value": taint.value, "effect": taint.effect}
