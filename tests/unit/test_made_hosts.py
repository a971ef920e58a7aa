"""A platform that makes its machines: their addresses are Outputs, and the config has none."""

from __future__ import annotations

from functools import cache
from typing import Any
from unittest.mock import patch

import pulumi
import pytest

from components.assets.controlplane import COMPONENTS
from components.config import ClusterConfig, crosschecks, parse
from components.hosts.host import Host, Hosts, Ssh
from components.lasting import changed
from components.living_cluster import lasting, made_with
from components.selfhosted import INTENT
from tests.cases import CASES, Case, Raw, load, read
from tests.sweeps import swept
from tests.unit.recorder import REMOTE, Run, Unknown, has, record

MACHINE = "test:index:Machine"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIArwvbnKlP9VYIeKDcJ3CdSTHv2dbmbL5SL3bd0uNiDd"


class Machine(pulumi.CustomResource):
    """What a cloud makes, and gives an address."""

    address: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions) -> None:
        super().__init__(MACHINE, name, {"address": None}, opts)


def without_addresses(cfg: ClusterConfig) -> ClusterConfig:
    """The config as such a platform takes it."""
    hosts = {name: host.model_copy(update={"address": None}) for name, host in cfg.hosts.items()}
    return cfg.model_copy(update={"hosts": hosts})


def made_hosts(cfg: ClusterConfig, addresses: dict[str, pulumi.Input[str]]) -> Hosts:
    """The hosts of such a platform at these addresses."""
    return {
        name: Host(
            name=name,
            role=host.role,
            labels=host.labels,
            taints=host.taints,
            address=addresses[name],
            ssh=Ssh(
                host=addresses[name], user="root", port=22, private_key="", host_key=HOST_KEY, dial_tries=4
            ),
            instance_id=name,
            ephemeral=True,
        )
        for name, host in cfg.hosts.items()
    }


def ran(raw: Raw, *, plain: bool = False, preview: bool = False, state: Run | None = None) -> Run:
    """The cluster on hosts whose addresses the platform knows when they are made, or `plain`, before."""
    cfg = parse(raw, stack="test")
    known = cfg.addresses

    def create_hosts(cfg: ClusterConfig, opts: pulumi.ResourceOptions) -> tuple[Hosts, pulumi.Input[str]]:
        machines = {name: Machine(f"{cfg.name}-{name}-machine", opts) for name in cfg.hosts}
        made: dict[str, pulumi.Input[str]] = {name: each.address for name, each in machines.items()}
        hosts = made_hosts(cfg, {**known} if plain else made)
        return hosts, cfg.api.host or hosts[cfg.bootstrap_controller].address

    def build() -> None:
        from components.cluster import Cluster  # importing the SDK warns, which pytest allows in a test only

        with patch("components.cluster.create_hosts", create_hosts):
            cluster = Cluster(without_addresses(cfg))
        pulumi.export("api_endpoint", cluster.api_endpoint)
        pulumi.export("nodes", cluster.nodes)

    def answer(name: str, _: Any) -> dict[str, str]:
        return {"address": known[name.removeprefix(f"{cfg.name}-").removesuffix("-machine")]}

    return record(build, preview=preview, answers={MACHINE: answer}, state=state)


@cache
def up(name: str) -> Run:
    """The run with a case's config, recovery and snapshot with it."""
    return ran(everything(name))


def everything(name: str) -> Raw:
    """A case's config that calls for every step."""
    raw = read(name)
    return raw | {
        "recovery": {"generation": 1},
        "backup": {**raw.get("backup", {}), "generation": 1},
    }


@pytest.mark.parametrize("case", swept(CASES), indirect=True)
def test_all_is_rendered_as_with_addresses_from_the_config(case: Case) -> None:
    made, plain = up(case.name), ran(everything(case.name), plain=True)
    assert made.by_urn == plain.by_urn
    assert made.outputs == plain.outputs
    assert [each.urn for each in made.resources if has(Unknown, each.inputs)] == []


@pytest.mark.parametrize("case", swept(CASES), indirect=True)
def test_a_preview_without_a_state_plans_what_up_makes(case: Case) -> None:
    preview = ran(everything(case.name), preview=True)
    assert preview.by_urn.keys() == up(case.name).by_urn.keys()
    for each in preview.of(REMOTE):
        assert has(Unknown, each.inputs["connection"]), each.name
    for host in case.cfg.hosts:
        serving = preview.only(f"{case.cfg.name}-kubelet-serving-{host}-request").inputs
        assert has(Unknown, serving["ipAddresses"]), host
        client = preview.only(f"{case.cfg.name}-kubelet-client-{host}-request").inputs
        assert not has(Unknown, {**client, "privateKeyPem": ""}), host
    assert has(Unknown, preview.outputs["nodes"])
    assert has(Unknown, preview.outputs["api_endpoint"]) == (not case.cfg.api.host)


def test_no_more_of_an_object_is_unknown_than_what_has_an_address() -> None:
    preview = ran(read("lab"), preview=True)
    unknown = {
        f"{each.name.removeprefix('lab-')} {path}"
        for each in preview.of("kubernetes:")
        if not each.type.endswith(":Secret")
        for path in _unknown(each.inputs)
        if not path.endswith(INTENT)
    }
    volume = "spec template spec volumes"
    assert unknown == {
        "kubeconfig-in-cluster metadata name",
        "kubeconfig-in-cluster data kubeconfig",
        f"flannel {volume} configMap name",
        f"kube-proxy {volume} configMap name",
        "kubernetes-endpoint-slice endpoints addresses",
        "kubernetes-endpoints subsets addresses ip",
        "kube-apiserver spec template spec containers command",
        # What these depend on are the certificates.
        *(f"{component} {volume} secret secretName" for component in COMPONENTS),
    }


def _unknown(value: Any, path: tuple[str, ...] = ()) -> set[str]:
    """The keys on the way to what is unknown."""
    match value:
        case Unknown():
            return {" ".join(path)}
        case dict():
            return {found for key, child in value.items() for found in _unknown(child, (*path, key))}
        case list():
            return {found for child in value for found in _unknown(child, path)}
        case _:
            return set()


@pytest.mark.parametrize(("name", "worker"), swept([("baremetal", "gpu"), ("lab", "worker-1")]))
def test_a_preview_of_a_worker_that_joins_shows_nothing_of_the_others(name: str, worker: str) -> None:
    raw = read(name)
    del raw["hosts"][worker]
    before = ran(raw)
    preview = ran(read(name), preview=True, state=before)
    other = {urn for urn, inputs in preview.by_urn.items() if inputs != before.by_urn.get(urn)}
    assert all(worker in urn for urn in other - before.by_urn.keys())
    cluster = load(name).cfg.name
    assert {urn.rpartition("::")[2] for urn in other & before.by_urn.keys()} == {
        f"{cluster}-{part}" for part in ("handover", "kubelet-policy", "csr-renewal-role-binding")
    }
    assert has(Unknown, preview.outputs["nodes"][worker])
    assert not has(Unknown, {**preview.outputs, "nodes": {**preview.outputs["nodes"], worker: ""}})


def test_an_address_that_only_the_run_will_know_is_no_other_value_of_a_living_cluster() -> None:
    cfg = load("baremetal").cfg
    living = made_with(up("baremetal").only("metal-bootstrap").plain["stdin"])
    assert changed(lasting(cfg, None), living) == []
    assert [each.key for each in changed(lasting(cfg, "10.0.0.1"), living)] == ["kubepivot:api.host"]


def test_only_the_platforms_that_take_machines_as_they_are_need_addresses() -> None:
    def keys(platform: str) -> list[str]:
        raw = {"platform": platform, "hosts": {"a": {"role": "controller"}, "b": {"role": "worker"}}}
        return [problem.key for problem in crosschecks.problems(raw) if problem.key.endswith(".address")]

    needed = ["kubepivot:hosts.a.address", "kubepivot:hosts.b.address"]
    assert keys("lab") == keys("baremetal") == needed
    assert keys("cloud") == []
