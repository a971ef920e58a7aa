"""The asset directory, byte for byte, and what must hold of it whatever it says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from components.archive import File
from components.assets.controlplane import COMPONENTS
from components.assets.manifests import manifests
from components.config.images import release_images
from components.config.releases import RELEASES
from components.tables.components import WORKLOADS
from tests.cases import Case, load, manifest_values, pem
from tests.golden.objects import BOOTSTRAP, Object, below, control_plane, flags_of, pod_specs

Files = dict[str, File]

# Names of manifests/ as bootkube rendered them, and why ours differ.
SEED = set((Path(__file__).parent / "bootkube-manifests.txt").read_text().split())
LEFT_OUT = {
    # Kubelets have certificates of the PKI: whoever may ask for one in any node's name is every node.
    "csr-approver-role-binding",
    "csr-bootstrap-role-binding",
    "kubelet-bootstrap-token",
    # It logs in with a certificate that the API binds to a role by itself, as the scheduler does.
    "kube-controller-manager-role-binding",
    "kube-controller-manager-service-account",
    # It made every pod of kube-system an administrator.
    "kube-system-rbac-role-binding",
    # It logs in as the kubelet.
    "pod-checkpointer-sa",
}
ADDED = {
    "flannel-policy": "its role would let it write labels of any node",
    "flannel-policy-binding": "the other half of it",
    "kubelet-policy": "a kubelet may make pods with any labels, and its Node when its host was removed",
    "kubelet-policy-binding": "the other half of it",
    "controller-cluster-role": "a controller's Node needs its role from the start, which no kubelet may give",
    "controller-cluster-role-binding": "the same",
    "admin-role-binding": "the exported kubeconfig is bound by RBAC, not a member of system:masters",
    "kube-proxy-config": "its flags are deprecated in favour of a file",
    "kube-scheduler-secret": "it authenticates by certificate instead of the apiserver's insecure port",
    "pod-checkpointer-config": "it is a program of ours on an image of Python",
    "reuseport-filter-config": "the program beside kube-apiserver, which shares its port in a roll",
    "kubelet-api-role-binding": "kubelets authorise the apiserver's client by webhook",
}
ADDED_WITH_ONE_CONTROLLER = {
    "kubernetes-endpoint-slice": "the lease reconciler would empty the service while the apiserver rolls",
    "kubernetes-endpoints": "the same, for clients that read the older form",
    "kubernetes-endpoint-role": "the host makes both again if somebody deletes them",
    "kubernetes-endpoint-role-binding": "the same",
}


# -- the directory -------------------------------------------------------------------------------------------


def test_every_file_is_as_expected(files: Files, golden: Callable[[str, Mapping[str, File]], None]) -> None:
    golden("assets", files)


def test_files_are_those_of_bootkube(case: Case, files: Files) -> None:
    added = ADDED | (ADDED_WITH_ONE_CONTROLLER if len(case.cfg.controllers) == 1 else {})
    manifests = {path.split("/")[1].removesuffix(".yaml") for path in files if path.startswith("manifests/")}
    assert manifests == SEED - LEFT_OUT | set(added)
    assert {path for path in files if path.startswith("bootstrap-manifests/")} == set(BOOTSTRAP.values())
    assert {path.rpartition("/")[0] for path in files} == {
        *("auth", "bootstrap-manifests", "etcd", "manifests", "static-manifests", "tls", "tls/etcd")
    }
    assert {path for path in files if path.startswith(("static-manifests/", "etcd/"))} == {
        "static-manifests/etcd.yaml",
        *(f"etcd/{name}.conf.yml" for name in case.cfg.controllers),
    }


def test_every_object_says_what_and_where_it_is(objects: dict[str, Object]) -> None:
    cluster_wide = {
        *("ClusterRole", "ClusterRoleBinding"),
        *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
    }
    identities = []
    for path, found in objects.items():
        metadata = found["metadata"]
        assert ("namespace" not in metadata) == (found["kind"] in cluster_wide), path
        if path.startswith("manifests/"):
            identities.append((found["kind"], metadata.get("namespace"), metadata["name"]))
    assert len(identities) == len(set(identities))


def test_no_placeholder_is_left(files: Files) -> None:
    for path, file in files.items():
        program = path in ("manifests/pod-checkpointer-config.yaml", "manifests/reuseport-filter-config.yaml")
        none = "" if program else r"|\bNone\b"
        assert not re.search(r"\$\{|⟦|@[A-Z_]+@" + none, file.text), path


# -- secrets -------------------------------------------------------------------------------------------------


def test_secrets_are_in_secrets_and_private_files_only(
    case: Case, files: Files, objects: dict[str, Object]
) -> None:
    secrets = [text for name, text in case.texts.items() if name.endswith(".key")]
    shapes = [*secrets, *(base64.b64encode(text.encode()).decode() for text in secrets), "PRIVATE KEY"]
    for path, file in files.items():
        secret = any(shape in file.text for shape in shapes)
        kind = objects[path]["kind"] if path in objects else None
        assert file.mode == (0o600 if secret or kind == "Secret" else 0o644), path
        assert not secret or kind in (None, "Secret"), path


@pytest.mark.parametrize(
    ("changed", "rolled"),
    [
        ("apiserver.key", {"kube-apiserver"}),
        ("etcd/ca.crt", {"kube-apiserver"}),
        ("service-account.key", {"kube-apiserver", "kube-controller-manager"}),
        ("ca.crt", {"kube-apiserver", "kube-controller-manager", "kube-scheduler"}),
        ("scheduler.crt", {"kube-scheduler"}),
        ("bootstrap-apiserver.crt", set()),
        ("kubelet-serving-controller-1.crt", set()),
    ],
)
def test_a_change_of_a_secret_renames_it_and_rolls_its_pods(changed: str, rolled: set[str]) -> None:
    case = load("lab")
    before, after = (
        manifests(case.cfg, case.machines, manifest_values(case.cfg, texts).__getitem__)
        for texts in (case.texts, case.texts | {changed: pem(f"another {changed}")})
    )
    for component in COMPONENTS:
        for file in (f"{component}.yaml", f"{component}-secret.yaml"):
            assert (before[file] != after[file]) == (component in rolled), file
        names = [found[f"{component}-secret.yaml"]["metadata"]["name"] for found in (before, after)]
        assert (names[0] != names[1]) == (component in rolled)


# -- the cluster ---------------------------------------------------------------------------------------------


def test_every_reference_of_a_pod_leads_to_an_object(objects: dict[str, Object]) -> None:
    manifests = below("manifests/", objects)
    known = {(found["kind"], found["metadata"]["name"]) for found in manifests.values()}
    for path, spec in pod_specs(manifests):
        references = [
            ("ConfigMap", volume["configMap"]["name"]) for volume in spec["volumes"] if "configMap" in volume
        ]
        references += [
            ("Secret", volume["secret"]["secretName"]) for volume in spec["volumes"] if "secret" in volume
        ]
        if "serviceAccountName" in spec:
            references.append(("ServiceAccount", spec["serviceAccountName"]))
        assert set(references) <= known, path
        mounts = {
            mount["name"]
            for container in [*spec["containers"], *spec.get("initContainers", [])]
            for mount in container.get("volumeMounts", [])
        }
        assert mounts == {volume["name"] for volume in spec["volumes"]}, path


def test_every_selector_finds_its_pods(objects: dict[str, Object]) -> None:
    templates = [
        found["spec"]["template"]
        for found in objects.values()
        if found["kind"] in ("Deployment", "DaemonSet")
    ]
    for path, found in objects.items():
        match found["kind"]:
            case "Deployment" | "DaemonSet":
                selector, pods = found["spec"]["selector"]["matchLabels"], [found["spec"]["template"]]
            case "PodDisruptionBudget":
                selector, pods = found["spec"]["selector"]["matchLabels"], templates
            case "Service":
                selector, pods = found["spec"]["selector"], templates
            case _:
                continue
        assert any(selector.items() <= pod["metadata"]["labels"].items() for pod in pods), path


def test_every_binding_leads_to_a_role(objects: dict[str, Object]) -> None:
    own = {found["metadata"]["name"] for found in objects.values() if found["kind"] == "ClusterRole"}
    accounts = {found["metadata"]["name"] for found in objects.values() if found["kind"] == "ServiceAccount"}
    for path, found in objects.items():
        if found["kind"] == "ClusterRoleBinding":
            role = found["roleRef"]["name"]
            assert role in own or role == "cluster-admin" or role.startswith("system:"), path
            for subject in found["subjects"]:
                assert subject["kind"] != "ServiceAccount" or subject["name"] in accounts, path


def test_every_policy_is_in_force(objects: dict[str, Object]) -> None:
    policies, bound = (
        {found["metadata"]["name"] for found in objects.values() if found["kind"] == kind}
        for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    )
    assert policies == bound == {"kubepivot-flannel", "kubepivot-kubelet"}
    for path, found in objects.items():
        if found["kind"] == "ValidatingAdmissionPolicyBinding":
            expected = {"policyName": found["metadata"]["name"], "validationActions": ["Deny"]}
            assert found["spec"] == expected, path


def test_of_kubelets_only_those_of_the_config_are_trusted(case: Case, objects: dict[str, Object]) -> None:
    """A certificate outlives its host. And only controllers have static pods that the API has to know."""
    policy = objects["manifests/kubelet-policy.yaml"]["spec"]
    named = {
        resource: json.loads(hosts)
        for validation in policy["validations"]
        for resource, hosts in re.findall(
            r"resource != '(\w+)' .* in (\[.*\])\.map", validation["expression"]
        )
    }
    assert named == {"pods": [*case.cfg.controllers], "nodes": sorted(case.cfg.hosts)}
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert set(rule["resources"]) == named.keys()
    subjects = objects["manifests/csr-renewal-role-binding.yaml"]["subjects"]
    users = {f"system:node:{name}" for name in case.cfg.hosts}
    assert {(each["kind"], each["name"]) for each in subjects} == {("User", user) for user in users}
    everyone = [path for path, found in objects.items() if "system:nodes" in str(found.get("subjects"))]
    assert everyone == []


def test_images_are_those_of_the_release_unless_given(case: Case, objects: dict[str, Object]) -> None:
    release = RELEASES[case.cfg.kubernetes_version]
    run = {image.key for row in (*WORKLOADS, case.cfg.pod_network.workload) for image in row.images}
    workloads = {key: image for key, image in release_images(release).items() if key in run}
    images = {
        container["image"]
        for _, spec in pod_specs(objects)
        for container in [*spec["containers"], *spec.get("initContainers", [])]
    }
    instead = {
        workloads[name]: image
        for name, image in case.cfg.images.model_dump(by_alias=True, exclude_none=True).items()
    }
    expected = {release.etcd_image, *workloads.values()}
    assert set(instead) <= expected
    assert images == expected - set(instead) | set(instead.values())


OVERLAPPING = {*COMPONENTS, "pod-checkpointer", "coredns"}


def test_a_roll_starts_the_new_pod_first_where_two_may_run(case: Case, objects: dict[str, Object]) -> None:
    workloads = {
        found["metadata"]["name"]: found
        for found in objects.values()
        if found["kind"] in ("Deployment", "DaemonSet")
    }
    assert set(workloads) == OVERLAPPING | {"flannel", "kube-proxy"}
    for name, workload in workloads.items():
        strategy = workload["spec"]["updateStrategy" if workload["kind"] == "DaemonSet" else "strategy"]
        expected: Object = {"maxSurge": 1, "maxUnavailable": 0}
        if name not in OVERLAPPING:
            expected = {"maxUnavailable": "10%"}
        assert strategy["rollingUpdate"] == expected, name
    for component in COMPONENTS:
        workload = workloads[component]
        on_all = component == "kube-apiserver"
        assert workload["kind"] == ("DaemonSet" if on_all else "Deployment")
        if not on_all:
            assert workload["spec"]["replicas"] == len(case.cfg.controllers)


def test_a_pod_that_may_seem_ready_has_to_last(objects: dict[str, Object]) -> None:
    """Another one may answer the probe at a shared port, and without a probe whatever runs is Ready."""
    for path, found in objects.items():
        if found["kind"] in ("Deployment", "DaemonSet"):
            (container,) = found["spec"]["template"]["spec"]["containers"]
            shares = any(
                "--permit-port-sharing=true" in each
                for each in container["command" if "command" in container else "args"]
            )
            expected = 0 if "readinessProbe" in container and not shares else 10
            assert found["spec"].get("minReadySeconds", 0) == expected, path


def test_what_restarts_the_network_of_a_node_looks_at_the_node_alone(objects: dict[str, Object]) -> None:
    """At rules that somebody may flush, by what is in the images: kube-proxy's has no shell."""
    commands = {
        "kube-proxy": ["nft", "--terse", "list", "chain", "ip", "kube-proxy", "masquerading"],
        "flannel": ["sh", "-e", "/etc/kube-flannel/probe.sh"],
    }
    for name, command in commands.items():
        (container,) = objects[f"manifests/{name}.yaml"]["spec"]["template"]["spec"]["containers"]
        probe = container["livenessProbe"]
        assert probe["exec"]["command"] == command
        assert probe["periodSeconds"] * probe["failureThreshold"] <= 30, "mended within a minute"
        assert probe["failureThreshold"] > 1 and probe["timeoutSeconds"] >= 15, "a busy host is not broken"
        assert container["startupProbe"]["failureThreshold"] == 3600, "nor one that waits for the API"


def test_the_address_plan_is_everywhere_the_same(case: Case, objects: dict[str, Object]) -> None:
    cfg = case.cfg
    for path, spec in control_plane(objects).items():
        flags = flags_of(spec)
        assert flags.get("service-cluster-ip-range", cfg.network.services) == cfg.network.services, path
        assert flags.get("cluster-cidr", cfg.network.pods) == cfg.network.pods, path
        assert flags.get("secure-port", str(cfg.api.port)) == str(cfg.api.port), path
        if "apiserver" in path:
            assert spec["containers"][0]["readinessProbe"]["httpGet"]["port"] == cfg.api.port, path
    assert objects["manifests/coredns-service.yaml"]["spec"]["clusterIP"] == cfg.dns_ip
    (proxy,) = objects["manifests/kube-proxy.yaml"]["spec"]["template"]["spec"]["containers"]
    assert proxy["startupProbe"]["httpGet"]["host"] == cfg.service_ip
    assert cfg.network.domain in objects["manifests/coredns-config.yaml"]["data"]["Corefile"]
    assert cfg.network.pods in objects["manifests/flannel-cfg.yaml"]["data"]["net-conf.json"]
    assert case.api_endpoint in objects["manifests/kubeconfig-in-cluster.yaml"]["data"]["kubeconfig"]
    slices = [found for found in objects.values() if found["kind"] == "EndpointSlice"]
    assert [found["ports"][0]["port"] for found in slices] == [cfg.api.port] * len(slices)


def test_every_member_of_etcd_knows_all_of_them(case: Case, files: Files, objects: dict[str, Object]) -> None:
    members = {path: yaml.safe_load(file.text) for path, file in files.items() if path.startswith("etcd/")}
    assert len({options["initial-cluster"] for options in members.values()}) == 1
    peers = {f"{options['name']}={options['initial-advertise-peer-urls']}" for options in members.values()}
    clients = {options["advertise-client-urls"] for options in members.values()}
    apiserver = flags_of(objects[BOOTSTRAP["kube-apiserver"]]["spec"])
    for path, options in members.items():
        assert set(options["initial-cluster"].split(",")) == peers, path
        for transport in ("client-transport-security", "peer-transport-security"):
            assert options[transport]["client-cert-auth"] is True, path
    assert set(apiserver["etcd-servers"].split(",")) == clients
