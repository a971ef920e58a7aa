"""Every error of a config names key, value and mend, and no error shows a secret."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from components.config import ConfigError, parse
from components.config.host import PlatformName
from components.config.releases import LATEST, RELEASES, minor_of
from tests.unit.raw_configs import EARLIER, LEFT_OUT, Raw, baremetal, errors, lab, with_value
from tests.unit.wrong_configs import (
    DNS_LABEL,
    WRONG,
    case,
    check,
)

pytestmark = pytest.mark.usefixtures("home")

*_others, _last = (f"'{name}'" for name in get_args(PlatformName))
_PLATFORMS = f"{', '.join(_others)} or {_last}"


@pytest.mark.parametrize(
    WRONG,
    [
        # Top level
        case("platform", LEFT_OUT, "required"),
        case("platform", "cloud", f"use {_PLATFORMS}"),
        case("mode", "rendr", "use 'cluster' or 'render'"),
        case("assetDirectory", "", "must not be empty", shown='""'),
        case("assetDirectory", "~/assets", "only a shell knows ~"),
        case("assetDirectory", "~", "only a shell knows ~"),
        case("name", "My_Cluster", DNS_LABEL),
        case("name", "a" * 41, "at most 40"),
        case("kubernetesVersion", "1.20.0", f"not supported; use one of {', '.join(RELEASES)}"),
        case("kubernetesVersion", 1.36, "in quotes"),
        case("pki protect", "perhaps", "true or false"),
        case("lab image", "x", "for platform lab only", base=baremetal, key="lab", shown="(a map)"),
        # Upgrades
        case("upgrade maxUnavailable", 0, "use a whole number from 1 to 1000"),
        case("upgrade maxUnavailable", "25%", "use a whole number from 1 to 1000"),
        case("upgrade drain seconds", 0, "use a whole number from 1 to 86400"),
        case("upgrade drain seconds", "5m", "use a whole number from 1 to 86400"),
        case("upgrade drain deleteEmptyDir", "yes", "true or false"),
        case("upgrade drain force", 1, "true or false"),
        # Recovery
        case("recovery generation", -1, "use a whole number from 0 to 1000000"),
        case("recovery generation", "again", "use a whole number from 0 to 1000000"),
        case("recovery controller", "worker-1", "no controller has this name; use one of controller-1"),
        case("recovery controller", "controller-2", "no controller has this name; use one of controller-1"),
        case("recovery snapshot", "/snapshot.db", "raise kubepivot:recovery.generation"),
        case("recovery snapshot", "snapshot.db", "use the absolute path"),
        *(
            case("recovery snapshot", path, "in /var/lib/etcd is etcd's own and no snapshot")
            for path in (
                "/var/lib/etcd/member/snap/db",
                "/var/lib/etcd",
                "//var/lib/./x/../etcd/before-recovery-1/snap/db",
            )
        ),
        # Unknown keys
        case("kubernetesversion", "1", "did you mean kubernetesVersion?", shown="kubernetesversion"),
        case("asset_directory", "x", "did you mean assetDirectory?", shown="asset_directory"),
        case("hosts worker-1 adress", "1.2.3.4", "did you mean address?", shown="adress"),
        case("network podz", "x", "did you mean pods?", shown="podz"),
        case("api prot", 1, "did you mean port?", shown="prot"),
        case("mirror image", "x", "did you mean images?", shown="image"),
        case("pki xyz", "x", "known are protect", shown="xyz"),
        case("lab imag", "x", "did you mean image?", shown="imag"),
        # Of another minor
        *(
            case(
                f"images {key}",
                image,
                f"name an image of 1.{minor_of(LATEST)}, as kubernetesVersion is {LATEST}",
            )
            for key, image in (
                ("kube-apiserver", f"registry.k8s.io/kube-apiserver:v{EARLIER}"),
                ("kube-controller-manager", f"example.com:5000/manager:1.{minor_of(LATEST) + 1}.0-fix1"),
                ("kube-proxy", f"example.com/proxy:v{EARLIER}-fix1"),
            )
        ),
        # Shape
        case("network", "10.0.0.0/8", "write a map of keys", shown="(a single value)"),
        case("network", None, "write a map of keys", shown="(nothing)"),
        case("hosts worker-1", None, "write a map of keys", shown="(nothing)"),
        case("backup s3 endpoint", None, "write it as text", shown="(not set)"),
        case("hosts", ["10.0.0.1"], "write a map of keys", shown="(a list)"),
        case("hosts worker-1", "10.0.0.1", "write a map of keys", shown="(a single value)"),
        case("hosts worker-1 labels", "a=b", "write a map of keys", shown="(a single value)"),
    ],
)
def test_an_error_names_key_value_and_mend(
    base: Callable[[], Raw], path: str, value: object, key: str, shown: str, mend: str
) -> None:
    check(base, path, value, key, shown, mend)


def test_several_controllers_are_not_restored_from_a_snapshot() -> None:
    raw = with_value(lab(), "hosts controller-2", {"role": "controller", "address": "172.30.0.12"})
    raw |= {"api": {"host": "172.30.0.100"}, "recovery": {"generation": 1, "controller": "controller-2"}}
    assert parse(raw, stack="dev").recovery_controller == "controller-2"
    (problem,) = errors(with_value(raw, "recovery snapshot", "/snapshot.db")).problems
    assert problem.key == "kubepivot:recovery.snapshot"
    assert "several controllers cannot be restored from a snapshot yet" in problem.mend


def test_all_problems_come_at_once() -> None:
    raw = lab() | {"platfrom": "lab", "network": {"pods": "10.3.0.0/16"}, "api": {"port": 0}}
    raw["hosts"]["worker-1"] |= {"role": "node", "address": "10.3.0.5"}
    raw["hosts"]["worker-2"] = {"role": "worker", "address": "10.3.0.5"}
    error = errors(raw)
    assert [problem.key for problem in error.problems] == [
        "kubepivot:hosts.worker-1.role",
        "kubepivot:api.port",
        "kubepivot:platfrom",
        "kubepivot:hosts.worker-1.address",
        "kubepivot:hosts.worker-2.address",
        "kubepivot:network.services",
        "kubepivot:hosts.worker-1.address",
        "kubepivot:hosts.worker-1.address",
        "kubepivot:hosts.worker-2.address",
        "kubepivot:hosts.worker-2.address",
        "kubepivot:hosts.worker-2.address",
    ]
    assert str(error).startswith("the stack's config has 11 problems:\n")


def test_a_wrong_value_brings_no_follow_up_error() -> None:
    assert [
        problem.key for problem in errors(with_value(lab(), "hosts controller-1 role", "x")).problems
    ] == ["kubepivot:hosts.controller-1.role"]
    raw = with_value(lab(), "hosts controller-1 address", "x")
    assert [problem.key for problem in errors(raw).problems] == ["kubepivot:hosts.controller-1.address"]


def test_the_default_name_is_checked_too() -> None:
    with pytest.raises(
        ConfigError, match=r'kubepivot:name = "My\.Stack": it is the stack.s name; set this key: use'
    ):
        parse(lab(), stack="My.Stack")


def test_same_address_on_another_port_is_the_same_host() -> None:
    """A node and its etcd are known by it."""
    raw = with_value(baremetal(), "hosts worker-1 address", "192.168.1.11")
    (problem,) = errors(with_value(raw, "hosts worker-1 port", 2222)).problems
    assert problem.key == "kubepivot:hosts.worker-1.address"
    assert "host controller-1 has the same address" in problem.mend


def test_a_network_of_two_addresses_has_them_for_hosts() -> None:
    raw = with_value(lab(), "network hosts", "172.30.0.10/31")
    raw["hosts"]["worker-1"]["address"] = "172.30.0.10"
    assert parse(raw, stack="dev").network.hosts == "172.30.0.10/31"


def test_a_secret_never_shows(home: Path) -> None:
    text = (home / ".ssh" / "id_ed25519").read_text()
    locked = (home / ".ssh" / "id_locked").read_text()
    body = text.splitlines()[1]

    config = parse(with_value(baremetal(), "hosts worker-1 key", text), stack="dev")
    shown = [repr(config), str(config), config.model_dump_json(), repr(config.hosts["worker-1"])]

    wrong = [
        with_value(with_value(baremetal(), "hosts worker-1 key", text), "platform", "cloud"),
        with_value(lab(), "hosts worker-1 key", text),
        with_value(lab(), "hosts worker-1 key", body),
        *(
            with_value(baremetal(), "hosts worker-1 key", value)
            for value in (text[:-40], body, [text], {"a": text})
        ),
        with_value(baremetal(), "hosts worker-1 hostKey", text),
        with_value(baremetal(), "hosts worker-1 kye", text),
        with_value(baremetal(), "hosts worker-1", text),
        with_value(baremetal(), "hosts", text),
        with_value(baremetal(), "privateKey", body),
    ]
    for raw in wrong:
        try:
            parse(raw, stack="dev")
        except ConfigError as error:
            shown += [str(error), repr(error), traceback.format_exc()]
    assert len(shown) == 4 + 3 * len(wrong)
    assert not [message for message in shown if body[:20] in message or "PRIVATE KEY" in message]

    for path in ("backup s3", "backup", "hosts", "hosts worker-1"):
        for value in ("hunter2", 123456789):
            assert str(value) not in str(errors(with_value(baremetal(), path, value)))

    message = str(errors(with_value(baremetal(), "hosts worker-1 key", locked)))
    assert locked.splitlines()[1][:20] not in message
    url = str(errors(with_value(lab(), "mirror images", "http://user:hunter2@m")))
    assert "hunter2" not in url
    assert "http://***@m" in url
