"""Field managers: who owns which field of an object."""

from __future__ import annotations

import secrets
from typing import Any

from lab.plugins.kubernetes.objects import PATCH_FIELD_MANAGER, PATCH_FORCE, Object, annotation, metadata

CREATOR = "pulumi-kubernetes"
"""Who owns what a plain create has set, until the first update."""

_OURS = (CREATOR, "pulumi-kubernetes.exe", "pulumi-resource-kubernetes")
_ADOPTED = {("kubectl", "Apply"), ("kubectl", "Update"), ("before-first-apply", "Update")} | {
    (name, "Update") for name in _OURS
}


def manager_of(inputs: Object, last: str = "") -> str:
    """The manager to apply `inputs` as: the annotated one, the last one or one of the resource's own."""
    return annotation(inputs, PATCH_FIELD_MANAGER) or last or f"{CREATOR}-{secrets.token_hex(4)}"


def adoption(live: Object, manager: str) -> list[Object]:
    """The JSON patch that hands the fields of creates and of kubectl to `manager`; empty if there are none.

    Without it an apply that leaves a field out would not remove it.
    """
    entries: list[Object] = metadata(live).get("managedFields") or []
    adopted = [entry for entry in entries if _adopted(entry)]
    if not adopted:
        return []
    kept = [entry for entry in entries if not _adopted(entry)]
    own = next((item for item in kept if (item["manager"], item["operation"]) == (manager, "Apply")), None)
    fields: Object = own["fieldsV1"] if own else {}
    for entry in adopted:
        fields = _union(fields, entry["fieldsV1"])
    merged = {**(own or adopted[0]), "manager": manager, "operation": "Apply", "fieldsV1": fields}
    return [
        {
            "op": "replace",
            "path": "/metadata/managedFields",
            "value": [merged, *(entry for entry in kept if entry is not own)],
        },
        {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata(live)["resourceVersion"]},
    ]


def forced(inputs: Object, live: Object, *, preview: bool) -> bool:
    """Whether to take fields from other managers: as asked, or where no real conflict is to be seen yet."""
    entries = metadata(live).get("managedFields") or []
    ours = any(entry["manager"] in _OURS and entry["operation"] == "Update" for entry in entries)
    return annotation(inputs, PATCH_FORCE) == "true" or not entries or (preview and ours)


def _adopted(entry: Object) -> bool:
    return (entry["manager"], entry["operation"]) in _ADOPTED and not entry.get("subresource")


def _union(one: Any, other: Any) -> Any:
    return {key: _union(one.get(key, {}), other.get(key, {})) for key in {**one, **other}}
