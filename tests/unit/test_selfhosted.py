"""What the cluster consists of, in which order it is made, and what hands it over."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import yaml

from components.assets.controlplane import COMPONENTS, UID
from components.assets.handover import handover_files
from components.assets.manifests import OWNER, WORKLOAD_KINDS, applied, manifests
from components.assets.templates import script
from components.config import ClusterConfig, parse
from components.selfhosted import INTENT, MOUNTED
from components.tables.components import WORKLOADS
from tests.cases import Case, load, manifest_values
from tests.unit.recorder import Registered, Run, Secret, Unknown, has, pki_texts, ran, revealed


def _objects(run: Run) -> list[Registered]:
    """The cluster's objects, the patches of nodes apart."""
    return [each for each in run.of("kubernetes:") if not each.type.endswith("Patch")]


def test_the_temporary_control_plane_starts_once_every_node_is_set_up(run: Run, case: Case) -> None:
    nodes = {run.only(f"{case.cfg.name}-{host}-node").urn for host in case.cfg.hosts}
    assert nodes <= run.only(f"{case.cfg.name}-bootstrap").dependencies


def test_no_object_is_made_before_the_temporary_api_answers(run: Run, case: Case) -> None:
    provider = run.only(f"{case.cfg.name}-cluster")
    bootstrap = run.only(f"{case.cfg.name}-bootstrap").urn
    assert bootstrap in provider.dependencies
    for each in run.of("kubernetes:"):
        assert each.provider.startswith(f"{provider.urn}::"), each.name


def test_kube_apiserver_which_starts_longest_is_asked_for_as_soon_as_what_it_mounts(run: Run) -> None:
    """Pulumi makes what is ready in the order in which it was asked for, a few at a time."""
    kinds = [each.type.rpartition(":")[2] for each in _objects(run)]
    before = kinds[: kinds.index("DaemonSet")]
    assert set(before) <= set(MOUNTED)
    assert _objects(run)[len(before)].inputs["metadata"]["name"] == "kube-apiserver"


def test_the_hand_over_waits_for_every_object(run: Run, case: Case) -> None:
    objects = {each.urn for each in _objects(run)}
    assert objects
    assert objects <= run.only(f"{case.cfg.name}-handover").dependencies


AWAITED = ("DaemonSet", "Deployment", "Service")


def test_no_pod_is_waited_for_by_the_provider(run: Run) -> None:
    """Its deadline is ten minutes, and it does not tell what a container said: the hand-over does that."""
    skipped = {
        each.urn
        for each in run.of("kubernetes:")
        if "pulumi.com/skipAwait" in each.inputs.get("metadata", {}).get("annotations", {})
    }
    assert skipped == {each.urn for each in _objects(run) if each.type.rpartition(":")[2] in AWAITED}


RUN = (*WORKLOADS, load("lab").cfg.pod_network.workload)


@pytest.mark.parametrize(
    "change",
    [
        {"flags": {"kube-apiserver": {"event-ttl": "2h"}}},
        {"flags": {"kube-scheduler": {"v": 2}}},
        *({"images": {image.key: "registry.example.com/other:1"}} for row in RUN for image in row.images),
    ],
    ids=str,
)
def test_a_change_of_any_workload_is_waited_for(change: dict[str, Any]) -> None:
    case = load("lab")
    assert _digest(parse(case.raw | change, stack=case.name), case) != _digest(case.cfg, case)


def test_the_hand_over_runs_again_when_any_workload_changes(up: Run, case: Case) -> None:
    digest = up.only(f"{case.cfg.name}-handover").files["workloads"].decode()
    assert digest == _digest(case.cfg, case)


def _digest(cfg: ClusterConfig, case: Case) -> str:
    """Of every workload, as the provider gets it."""
    values = manifest_values(cfg, pki_texts(case.name))
    found = {
        file: manifest
        for file, manifest in applied(cfg, case.machines, values.__getitem__).items()
        if manifest["kind"] in ("DaemonSet", "Deployment")
    }
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def test_the_hand_over_brings_nothing_else_than_its_files_and_the_digest(up: Run, case: Case) -> None:
    machine = case.machines[case.cfg.bootstrap_controller]
    expected = handover_files(case.cfg, machine, case.machines, pki_texts(case.name))
    brought = {path: data.decode() for path, data in up.only(f"{case.cfg.name}-handover").files.items()}
    assert brought.pop("run") == script("handover")
    assert brought.pop("workloads")
    assert brought.pop("token")
    assert brought == {path: file.text for path, file in expected.items()}


def test_a_new_kubeconfig_replaces_nothing(run: Run, case: Case) -> None:
    provider = run.only(f"{case.cfg.name}-cluster")
    assert provider.inputs["clusterIdentifier"] == case.cfg.name


def test_the_provider_logs_in_with_more_than_the_exported_kubeconfig(up: Run, case: Case) -> None:
    """Users are bound by RBAC and can be unbound; the program must be able to make the bindings."""
    provider = yaml.safe_load(up.only(f"{case.cfg.name}-cluster").plain["kubeconfig"])
    exported = yaml.safe_load(revealed(up.outputs["kubeconfig"]))
    names = [config["users"][0]["name"] for config in (provider, exported)]
    assert names == ["super-admin", "admin"]
    assert {config["clusters"][0]["cluster"]["server"] for config in (provider, exported)} == {
        case.api_endpoint
    }


def test_objects_end_with_the_cluster_instead_of_taking_the_api_from_under_each_other(
    run: Run, case: Case
) -> None:
    bootstrap = run.only(f"{case.cfg.name}-bootstrap").urn
    assert {each.deleted_with for each in run.of("kubernetes:")} == {bootstrap}


def test_what_is_named_by_its_content_is_left_to_the_hand_over(run: Run, case: Case) -> None:
    """Pulumi would delete it by a name that may be the newest one's again."""
    left = {each.name.removeprefix(f"{case.cfg.name}-") for each in _objects(run) if each.retain_on_delete}
    configs = ("coredns-config", "flannel-cfg", "kube-proxy-config", "kubeconfig-in-cluster")
    programs = ("pod-checkpointer-config", "reuseport-filter-config")
    assert left == {*configs, *programs, *(f"{each}-secret" for each in COMPONENTS)}


def test_every_object_is_named_by_the_program(up: Run) -> None:
    for each in up.of("kubernetes:"):
        assert each.inputs["metadata"]["name"], each.name


def test_objects_are_the_rendered_manifests(up: Run, case: Case) -> None:
    values = manifest_values(case.cfg, pki_texts(case.name))
    expected = manifests(case.cfg, case.machines, values.__getitem__)
    for manifest in expected.values():
        skip = {"pulumi.com/skipAwait": "true"} if manifest["kind"] in AWAITED else {}
        manifest["metadata"]["annotations"] = {**OWNER, **skip}
    for file, manifest in expected.items():
        if manifest["kind"] in WORKLOAD_KINDS:
            intent = up.only(f"{case.cfg.name}-{file.removesuffix('.yaml')}-intent")
            manifest["metadata"]["annotations"][INTENT] = f"{intent.name}-id"
    prefix = f"{case.cfg.name}-"
    assert {each.name.removeprefix(prefix): each.plain for each in _objects(up)} == {
        file.removesuffix(".yaml"): manifest for file, manifest in expected.items()
    }


def test_only_data_of_secrets_is_secret(up: Run) -> None:
    """Names of Secrets come from their content; were they secret, a preview would show no workload."""
    for each in up.of("kubernetes:"):
        secret = {key for key, value in each.inputs.items() if has(Secret, value)}
        assert secret == ({"data"} if each.type.endswith(":Secret") else set()), each.name


def test_a_preview_shows_all_of_an_object_but_what_certificates_give(case: Case) -> None:
    run = ran(case.name, preview=True)
    for each in _objects(run):
        each.inputs["metadata"]["annotations"].pop(INTENT, None)
    unknown = {
        each.name.removeprefix(f"{case.cfg.name}-") for each in _objects(run) if has(Unknown, each.inputs)
    }
    components = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    assert unknown == {
        *components,
        *(f"{component}-secret" for component in components),
    }


def test_a_living_cluster_keeps_the_user_of_its_control_plane(up: Run, case: Case) -> None:
    """Beside a kube-apiserver of another user a new one could not listen."""
    components = {f"{case.cfg.name}-{name}" for name in COMPONENTS}
    user = {"runAsUser", "runAsGroup", "fsGroup"}
    for each in _objects(up):
        ignored = {path.removeprefix("spec.template.spec.securityContext.") for path in each.ignored}
        assert ignored == (user if each.name in components else set()), each.name
        if ignored:
            context = each.plain["spec"]["template"]["spec"]["securityContext"]
            assert all(context[key] == UID for key in user), each.name


def test_controllers_have_their_role_before_there_are_workloads(run: Run, case: Case) -> None:
    patches = run.of("kubernetes:core/v1:NodePatch")
    assert {each.inputs["metadata"]["name"] for each in patches} == set(case.cfg.controllers)
    bootstrap = run.only(f"{case.cfg.name}-bootstrap").urn
    workloads = [*run.of("kubernetes:apps/v1:DaemonSet"), *run.of("kubernetes:apps/v1:Deployment")]
    assert workloads
    for each in patches:
        assert bootstrap in run.before(each)
        assert all(each.urn in run.before(workload) for workload in workloads)
