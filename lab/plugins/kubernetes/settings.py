"""The provider's own configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulumi.provider.experimental.provider import CheckFailure

from lab.plugins.common import UNKNOWN
from lab.plugins.kubernetes import kubeconfig

_SWITCHES = ("enableServerSideApply", "deleteUnreachable", "upsertExistingObjects")
_KNOWN = {"kubeconfig", "clusterIdentifier", "version", *_SWITCHES}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a program says about a cluster."""

    kubeconfig: str = ""
    delete_unreachable: bool = False
    """Forget objects of an unreachable cluster on delete, instead of failing."""
    upsert: bool = False
    """A create of an existing object updates it."""

    @classmethod
    def parse(cls, args: Mapping[str, Any]) -> Settings:
        """Settings that `failures` has passed."""
        environment = os.environ.get("PULUMI_K8S_DELETE_UNREACHABLE", "false")
        return cls(
            kubeconfig=args.get("kubeconfig", ""),
            delete_unreachable=_is_true(args.get("deleteUnreachable", environment)),
            upsert=_is_true(args.get("upsertExistingObjects", False)),
        )


def failures(args: Mapping[str, Any]) -> list[CheckFailure]:
    """What is wrong with the arguments of a provider resource."""
    found = [
        CheckFailure(
            name,
            f"{name} is not supported by this stand-in for the official plugin; known are "
            f"{', '.join(sorted(_KNOWN))}",
        )
        for name in sorted(set(args) - _KNOWN)
    ]
    for name in _SWITCHES:
        if str(args.get(name, "true")).lower() not in ("true", "false", UNKNOWN):
            found.append(CheckFailure(name, f"{name} must be true or false, not {args[name]!r}"))
    if str(args.get("enableServerSideApply", True)).lower() == "false":
        found.append(
            CheckFailure("enableServerSideApply", "must be true: the stand-in applies on the server only")
        )
    if not args.get("kubeconfig") or not isinstance(args["kubeconfig"], str):
        found.append(CheckFailure("kubeconfig", "is required: the contents of a kubeconfig as text"))
    elif args["kubeconfig"] != UNKNOWN:
        try:
            kubeconfig.parse(args["kubeconfig"])
        except kubeconfig.KubeconfigError as error:
            found.append(CheckFailure("kubeconfig", str(error)))
    return found


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The arguments that differ, and those of them for which every object has to be made anew.

    An unchanged clusterIdentifier says that it is the same cluster, whatever the kubeconfig says.
    """
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    unknown = new.get("kubeconfig") == UNKNOWN
    if unknown and changed:
        changed = ["kubeconfig"]
    was, is_now = old.get("clusterIdentifier"), new.get("clusterIdentifier")
    if is_now and was == is_now:
        return changed, []
    replacing = ["clusterIdentifier"] if was and is_now else []
    if "kubeconfig" in changed and (unknown or _active_cluster(old) != _active_cluster(new)):
        replacing.append("kubeconfig")
    return changed, replacing


def _active_cluster(args: Mapping[str, Any]) -> Mapping[str, Any] | None:
    text = args.get("kubeconfig")
    return kubeconfig.active_cluster(kubeconfig.parse(text)) if text else None


def _is_true(value: Any) -> bool:
    return str(value).lower() == "true"
