"""The tables of components, images and ports, and that what is rendered and checked comes from them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from components.assets.controlplane import COMPONENTS, bootstrap_pod
from components.assets.etcd import etcd_config, etcd_pod
from components.assets.manifests import WORKLOAD_KINDS, manifests
from components.assets.networks import NETWORKS
from components.assets.overrides import overrides
from components.assets.rollout import leadership
from components.config import parse
from components.config.flags import FlagsConfig
from components.config.images import IMAGES, ImagesConfig
from components.config.releases import LATEST, RELEASES
from components.hosts.machine import configured_machines
from components.programs.checkpointer import checkpointer, pods
from components.tables.components import CHECKPOINTED, CONTROL_PLANE, LEADERS, WORKLOADS, ComponentName, Flag
from components.tables.ports import PORTS
from tests.cases import CHECKOUT, Case
from tests.golden.objects import flags_of
from tests.unit.raw_configs import lab, with_value

# -- components ----------------------------------------------------------------------------------------------


def test_the_config_has_a_key_for_every_component_and_every_image() -> None:
    assert [field.alias for field in FlagsConfig.model_fields.values()] == list(CONTROL_PLANE)
    assert [field.alias for field in ImagesConfig.model_fields.values()] == list(IMAGES)
    workloads = (*WORKLOADS, *(network.workload for network in NETWORKS.values()))
    assert {image.key for row in workloads for image in (*row.images, *row.borrowed)} == set(IMAGES)


def test_a_flag_that_several_have_is_reserved_for_one_reason() -> None:
    """The config's check does not look whose it is."""
    reasons: dict[str, set[str]] = {}
    for row in CONTROL_PLANE.values():
        for flag in row.flags:
            reasons.setdefault(flag.name, set()).add(flag.reserved)
    assert {name: found for name, found in reasons.items() if len(found) > 1} == {}


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_has_each_flag_once(component: ComponentName) -> None:
    names = [flag.name for flag in CONTROL_PLANE[component].flags]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_the_program_sets_is_in_the_table_or_of_the_network(
    case: Case, component: ComponentName
) -> None:
    flags = flags_of(bootstrap_pod(component, case.cfg, case.machines)["spec"]).keys()
    table = {flag.name for flag in CONTROL_PLANE[component].flags if flag.value}
    of_network = case.cfg.pod_network.flags.get(component, {}).keys()
    assert flags - case.cfg.flags.of(component).keys() <= table | of_network
    assert of_network <= flags


def test_what_a_network_sets_is_not_the_configs_to_set() -> None:
    reserved = {flag.name for row in CONTROL_PLANE.values() for flag in row.flags if flag.reserved}
    for network in NETWORKS.values():
        assert {name for given in network.flags.values() for name in given} <= reserved


def test_every_workload_has_a_row_and_is_put_back_by_its_keys(case: Case) -> None:
    """What a hand-over says of a change that does not work."""
    raw = lab()
    for key in IMAGES:
        raw = with_value(raw, f"images {key}", "example.com/other:1")
    for component in COMPONENTS:
        raw = with_value(raw, f"flags {component}", {"v": "2"})
    cfg = parse(raw, stack="dev")
    rendered = manifests(cfg, configured_machines(cfg), lambda name: name).values()
    for manifest in rendered:
        if manifest["kind"] in WORKLOAD_KINDS:
            name, spec = manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]
            keys = overrides(cfg, name)
            containers = [*spec["containers"], *spec.get("initContainers", [])]
            assert len({key for key in keys if ":images." in key}) == len(containers), name
            assert (f"kubepivot:flags.{name}" in keys) == (name in COMPONENTS)
            assert overrides(case.cfg, name) == [
                key for key in keys if _given(case, key.removeprefix("kubepivot:"))
            ]


def _given(case: Case, key: str) -> bool:
    section, _, name = key.partition(".")
    return bool(case.raw.get(section, {}).get(name))


def test_pod_checkpointer_has_the_same_names() -> None:
    """It runs without the tables."""
    assert {owner.name for owner in pods.SAVED} == set(CHECKPOINTED)
    assert tuple(owner.name for owner in pods.LEADERS) == LEADERS
    assert checkpointer.LED_SECONDS == leadership.LEAD_SECONDS


def test_a_flag_that_ends_with_a_star_has_no_value() -> None:
    families = [flag for row in CONTROL_PLANE.values() for flag in row.flags if flag.name.endswith("*")]
    assert families and all(flag == Flag(flag.name, "", flag.reserved) for flag in families)


# -- releases ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "has_gate"), [("1.35.2", False), ("1.36.0", True), ("1.40.1", True)])
def test_a_made_up_release_is_one_row(version: str, has_gate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """kube-controller-manager ends if it is given a feature gate that its release does not know."""
    monkeypatch.setitem(RELEASES, version, replace(RELEASES[LATEST], kubernetes=version))
    cfg = parse(with_value(lab(), "kubernetesVersion", version), stack="dev")
    spec = bootstrap_pod("kube-controller-manager", cfg, configured_machines(cfg))["spec"]
    assert ("feature-gates" in flags_of(spec)) == has_gate
    assert spec["containers"][0]["image"] == f"registry.k8s.io/kube-controller-manager:v{version}"
    given = {"feature-gates": "SomeGate=true"}
    cfg = parse(with_value(lab(), "flags kube-controller-manager", given), stack="dev")
    cfg = cfg.model_copy(update={"kubernetes_version": version})
    gates = flags_of(bootstrap_pod("kube-controller-manager", cfg, configured_machines(cfg))["spec"])[
        "feature-gates"
    ]
    assert gates.split(",")[-1] == "SomeGate=true"
    assert len(gates.split(",")) == 1 + has_gate


# -- the endpoints of the service `kubernetes` ---------------------------------------------------------------


def test_either_the_program_or_the_apiservers_own_the_endpoints(case: Case) -> None:
    rendered = manifests(case.cfg, case.machines, lambda name: name)
    flags = flags_of(rendered["kube-apiserver.yaml"]["spec"]["template"]["spec"])
    ours = {each["kind"] for path, each in rendered.items() if path.startswith("kubernetes-endpoint")}
    if len(case.cfg.controllers) == 1:
        assert flags["endpoint-reconciler-type"] == "none"
        assert {"EndpointSlice", "Endpoints"} <= ours
    else:
        assert flags["endpoint-reconciler-type"] == "lease"
        assert ours == set()


# -- ports ---------------------------------------------------------------------------------------------------


def test_what_etcd_and_the_control_plane_listen_at_is_in_the_table(case: Case) -> None:
    known = {port.first for port in PORTS if port.protocol == "TCP"} | {case.cfg.api.port}
    options = etcd_config(case.cfg, case.machines[case.cfg.controllers[0]], case.machines)
    pods = [etcd_pod(case.cfg), *(bootstrap_pod(each, case.cfg, case.machines) for each in COMPONENTS)]
    found = set()
    for what in (options, *(pod["spec"]["containers"] for pod in pods)):
        text = yaml.safe_dump(what)
        found |= set(map(int, re.findall(r"(?:https?://[\d.]+:|secure-port=|\bport: )(\d+)", text)))
    assert {2379, 2380, 2381, 10257, 10259, case.cfg.api.port} <= found <= known


def test_ports_that_templates_name_are_in_the_table() -> None:
    """Scripts by URL, manifests of what is on the host's network by key. 443 is the Service's."""
    known = {port.first for port in PORTS}
    named: set[int] = set()
    for path in sorted((CHECKOUT / "components/assets").rglob("*/*.*")):
        if path.suffix == ".sh":
            named |= set(map(int, re.findall(r"https?://[^/ ]+:(\d{4,5})\b", path.read_text())))
        elif path.suffix == ".yaml" and "hostNetwork: true" in path.read_text():
            named |= set(map(int, re.findall(r"\bport: (\d{4,5})\b", path.read_text())))
    assert {2379, 2381, 10248, 10256} <= named <= known


def test_no_port_is_there_twice() -> None:
    rows = (*PORTS, *(port for network in NETWORKS.values() for port in network.ports))
    numbers = [(port.protocol, port.first) for port in rows]
    assert len(numbers) == len(set(numbers))


def test_what_is_needed_on_every_host_has_one_number() -> None:
    """The preflight looks at them one by one."""
    assert all(port.last is None for port in PORTS if port.needed)
