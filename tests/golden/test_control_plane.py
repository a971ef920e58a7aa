"""What must hold of the pods of the control plane and of etcd, in the asset directory."""

from __future__ import annotations

import pytest
import yaml

from components.assets.controlplane import COMPONENTS, UID
from components.assets.credentials import AUTHENTICATION, control_plane_files
from components.config.k8s_names import CONTROL_PLANE_ROLE
from components.tables.components import ComponentName, Form
from tests.cases import Case
from tests.golden.objects import BOOTSTRAP, Object, below, control_plane, flags_of, pod_specs


def test_a_component_mounts_the_files_that_its_flags_name(case: Case, objects: dict[str, Object]) -> None:
    specs = dict(pod_specs(objects))
    forms: dict[Form, dict[ComponentName, str]] = {
        "bootstrap": BOOTSTRAP,
        "self-hosted": {component: f"manifests/{component}.yaml" for component in COMPONENTS},
    }
    for form, paths in forms.items():
        for component, path in paths.items():
            (mount,) = specs[path]["containers"][0]["volumeMounts"]
            directory = f"{mount['mountPath']}/"
            flags = flags_of(specs[path]).values()
            named = {value.removeprefix(directory) for value in flags if value.startswith(directory)}
            assert named == set(control_plane_files(component, case.cfg, case.texts, form)), path


def test_static_pods_name_no_object_of_the_api(objects: dict[str, Object]) -> None:
    """Since 1.34 a kubelet rejects one that does."""
    static = below("bootstrap-manifests/", objects) | below("static-manifests/", objects)
    for path, spec in pod_specs(static):
        assert not {"serviceAccountName", "serviceAccount", "imagePullSecrets"} & set(spec), path
        assert {kind for volume in spec["volumes"] for kind in volume} == {"name", "hostPath"}, path
        for container in spec["containers"]:
            assert "envFrom" not in container, path
            for variable in container.get("env", []):
                assert set(variable.get("valueFrom", {})) <= {"fieldRef"}, path


def test_the_control_plane_declares_no_port(objects: dict[str, Object]) -> None:
    """On the host's network it would be a host port: the second pod of a roll would not be scheduled."""
    for path, spec in control_plane(objects).items():
        assert spec["hostNetwork"] is True, path
        assert all("ports" not in container for container in spec["containers"]), path


def test_the_control_plane_shares_ports_as_one_user(objects: dict[str, Object]) -> None:
    """A listener lets only a process of the same user share its port."""
    for path, spec in control_plane(objects).items():
        assert flags_of(spec)["permit-port-sharing"] == "true", path
        security = spec["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"], security["runAsNonRoot"]) == (UID, UID, True)
        assert all("runAsUser" not in container["securityContext"] for container in spec["containers"]), path


def test_control_plane_and_etcd_are_confined(objects: dict[str, Object]) -> None:
    etcd = dict(pod_specs(below("static-manifests/", objects)))
    for path, spec in (control_plane(objects) | etcd).items():
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, path
        assert spec["securityContext"]["runAsNonRoot"] is True, path
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, path
            assert security["capabilities"] == {"drop": ["ALL"]}, path
            assert security["readOnlyRootFilesystem"] is True, path


def test_the_control_plane_needs_no_token_and_goes_where_controllers_are(objects: dict[str, Object]) -> None:
    for path, spec in control_plane(objects).items():
        assert spec["automountServiceAccountToken"] is False, path
        assert spec["tolerations"] == [{"operator": "Exists"}], path
        if path.startswith("manifests/"):
            assert spec["nodeSelector"] == {CONTROL_PLANE_ROLE: ""}, path


@pytest.mark.parametrize("component", COMPONENTS)
def test_both_forms_of_a_component_are_the_same_but_for_what_is_listed(
    case: Case, objects: dict[str, Object], component: ComponentName
) -> None:
    temporary = flags_of(objects[BOOTSTRAP[component]]["spec"])
    real = flags_of(objects[f"manifests/{component}.yaml"]["spec"]["template"]["spec"])
    different = {flag for flag in temporary | real if temporary.get(flag) != real.get(flag)}
    several = len(case.cfg.controllers) > 1
    assert (
        different
        == {
            # The temporary one is not an address of the service `kubernetes`.
            "kube-apiserver": {"endpoint-reconciler-type"} if several else set(),
            # It gives its lease back when it ends, starts before its kube-apiserver, and is in a hurry.
            "kube-controller-manager": {
                "authentication-tolerate-lookup-failure",
                "feature-gates",
                "kube-api-burst",
                "kube-api-qps",
                "leader-elect-retry-period",
            },
            "kube-scheduler": {"leader-elect-retry-period"},
        }[component]
    )
    # The temporary kube-apiserver has its port to itself when it starts.
    left_out = {"volumes", "nodeSelector", "affinity", "containers", "initContainers"}
    specs = [
        {key: value for key, value in spec.items() if key not in left_out}
        for spec in (
            objects[BOOTSTRAP[component]]["spec"],
            objects[f"manifests/{component}.yaml"]["spec"]["template"]["spec"],
        )
    ]
    assert specs[0] == specs[1]


def test_only_the_serving_certificate_tells_the_apiservers_apart(case: Case) -> None:
    temporary = control_plane_files("kube-apiserver", case.cfg, case.texts, "bootstrap")
    real = control_plane_files("kube-apiserver", case.cfg, case.texts, "self-hosted")
    assert temporary.keys() == real.keys()
    assert {name for name in real if temporary[name] != real[name]} == {"apiserver.crt", "apiserver.key"}


def test_every_apiserver_is_secure(objects: dict[str, Object]) -> None:
    """The temporary one too: it serves the same cluster."""
    forms = [spec for path, spec in control_plane(objects).items() if "apiserver" in path]
    assert len(forms) == 2
    for spec in forms:
        flags = flags_of(spec)
        assert flags["authorization-mode"] == "Node,RBAC"
        assert flags["enable-admission-plugins"] == "NodeRestriction"
        assert flags["authentication-config"].endswith("/authentication.yaml")
        assert flags["tls-min-version"] == "VersionTLS12"
        assert flags["kubelet-certificate-authority"].endswith("/ca.crt")
        assert flags["etcd-cafile"].endswith("/etcd-ca.crt")
        assert flags["profiling"] == "false"
        assert not {"anonymous-auth", "token-auth-file", "insecure-port"} & set(flags)


def test_the_anonymous_may_ask_for_health_only_and_probes_ask_for_no_more(objects: dict[str, Object]) -> None:
    anonymous = yaml.safe_load(AUTHENTICATION)["anonymous"]
    allowed = {condition["path"] for condition in anonymous["conditions"]}
    assert allowed == {"/livez", "/readyz", "/healthz"}
    for path, spec in control_plane(objects).items():
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert spec["containers"][0][probe]["httpGet"]["path"] in allowed, path


@pytest.mark.parametrize("component", COMPONENTS)
def test_given_flags_are_those_of_both_forms(
    case: Case, objects: dict[str, Object], component: ComponentName
) -> None:
    forms = (
        flags_of(objects[BOOTSTRAP[component]]["spec"]),
        flags_of(objects[f"manifests/{component}.yaml"]["spec"]["template"]["spec"]),
    )
    for flag, value in case.cfg.flags.of(component).items():
        for flags in forms:
            # The temporary controller manager has a gate of its own beside those given.
            assert flags[flag] == value or (flag == "feature-gates" and flags[flag].endswith(f",{value}"))
