"""Flags of the control plane: lists grow by what is given, and what would switch a guard off is refused."""

from __future__ import annotations

import pytest

from components.assets.controlplane import bootstrap_pod
from components.config import parse
from components.config.flags import unknown_gates
from components.config.releases import LATEST, RELEASES, minor_of
from components.hosts.machine import configured_machines
from components.tables.components import ComponentName
from components.tables.feature_gates import GONE, NEW
from tests.golden.objects import flags_of
from tests.unit.raw_configs import errors, lab, with_value

APISERVER: ComponentName = "kube-apiserver"
CONTROLLER_MANAGER: ComponentName = "kube-controller-manager"
SCHEDULER: ComponentName = "kube-scheduler"
POLICIES = "admissionregistration.k8s.io/v1/validatingadmissionpolicies"


def _flags(component: ComponentName, **given: str) -> dict[str, str]:
    """The flags that the temporary control plane's component gets; the real one has the same source."""
    flags = {flag.replace("_", "-"): value for flag, value in given.items()}
    cfg = parse(with_value(lab(), f"flags {component}", flags), stack="dev")
    return flags_of(bootstrap_pod(component, cfg, configured_machines(cfg))["spec"])


def test_a_list_is_added_to_the_programs_own() -> None:
    flags = _flags(
        APISERVER, enable_admission_plugins="AlwaysPullImages, NodeRestriction", authorization_mode="Webhook"
    )
    assert flags["enable-admission-plugins"] == "NodeRestriction,AlwaysPullImages"
    assert flags["authorization-mode"] == "Node,RBAC,Webhook"


def test_controllers_are_turned_on_and_off_beside_those_that_run_anyway() -> None:
    """Without the star only those named would run; of two mentions the first one counts."""
    controllers = _flags(CONTROLLER_MANAGER, controllers="-ttl,bootstrapsigner")["controllers"].split(",")
    assert controllers[0] == "*"
    assert controllers[-2:] == ["-ttl", "bootstrapsigner"]


def test_gates_are_added_to_those_of_the_temporary_control_plane() -> None:
    gates = _flags(CONTROLLER_MANAGER, feature_gates="SomeGate=true")["feature-gates"]
    assert gates == "ControllerManagerReleaseLeaderElectionLockOnExit=true,SomeGate=true"


def test_a_flag_that_is_no_list_takes_the_place_of_the_programs_own() -> None:
    assert _flags(APISERVER, tls_min_version="VersionTLS13")["tls-min-version"] == "VersionTLS13"


@pytest.mark.parametrize(
    ("component", "flag", "value", "mend"),
    [
        (APISERVER, "authorization-mode", "AlwaysAllow", "leave out AlwaysAllow: Node and RBAC"),
        (APISERVER, "authorization-mode", "Node,RBAC,AlwaysDeny", "leave out AlwaysDeny"),
        (APISERVER, "disable-admission-plugins", "NodeRestriction", "leave out NodeRestriction: the cluster"),
        (APISERVER, "disable-admission-plugins", "ResourceQuota, ValidatingAdmissionPolicy", "ValidatingAd"),
        (APISERVER, "enable-admission-plugins", "AlwaysDeny", "it denies every request"),
        (APISERVER, "feature-gates", "ServiceAccountNodeAudienceRestriction=false", "security rests on"),
        (APISERVER, "feature-gates", "A=true, AllBeta = false", "leave out AllBeta"),
        (APISERVER, "feature-gates", "AllowInsecureKubeletCertificateSigningRequests=true", "security rests"),
        (APISERVER, "feature-gates", "kube:ServiceAccountTokenJTI=false", "leave out ServiceAccountTokenJTI"),
        (APISERVER, "disable-admission-plugins", '"PodSecurity"', "leave out PodSecurity"),
        (APISERVER, "runtime-config", "rbac.authorization.k8s.io/v1=false", "needs the stable APIs"),
        (APISERVER, "runtime-config", "api/all=false,v1=true", "leave out api/all"),
        (APISERVER, "runtime-config", "v1=0", "leave out v1"),
        (APISERVER, "runtime-config", "api/ga=false", "leave out api/ga"),
        (APISERVER, "runtime-config", "admissionregistration.k8s.io/v1=false", "needs the stable APIs"),
        (APISERVER, "runtime-config", f"{POLICIES}=false", f"leave out {POLICIES}: "),
        (APISERVER, "runtime-config", "v1/serviceaccounts = F", "leave out v1/serviceaccounts"),
        (APISERVER, "tls-min-version", "VersionTLS10", "use VersionTLS12 or VersionTLS13"),
        (CONTROLLER_MANAGER, "tls-min-version", "VersionTLS11", "use VersionTLS12 or VersionTLS13"),
        (SCHEDULER, "tls-min-version", "", "use VersionTLS12 or VersionTLS13"),
        (CONTROLLER_MANAGER, "controllers", "*,-csrsigning", "leave out -csrsigning: the cluster itself"),
        (CONTROLLER_MANAGER, "controllers", "-node-ipam-controller", "leave out -node-ipam-controller"),
    ],
)
def test_what_would_switch_a_guard_off_is_refused(component: str, flag: str, value: str, mend: str) -> None:
    (problem,) = errors(with_value(lab(), f"flags {component} {flag}", value)).problems
    assert problem.key == f"kubepivot:flags.{component}.{flag}"
    assert problem.value == f'"{value}"'
    assert mend in problem.mend


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("disable-admission-plugins", "ResourceQuota,LimitRanger"),
        ("feature-gates", "AllAlpha=true,AllBeta=true,ServiceAccountNodeAudienceRestriction=true"),
        ("runtime-config", f"api/all=true,batch/v2alpha1=false,v1,{POLICIES}=true"),
        ("audit-log-path", "-"),
    ],
)
def test_what_leaves_the_guards_alone_is_taken(flag: str, value: str) -> None:
    assert parse(with_value(lab(), f"flags {APISERVER} {flag}", value), stack="dev").flags.of(APISERVER)


@pytest.mark.parametrize(
    ("value", "minor", "mend"),
    [
        ("MemoryManager=true", 35, None),
        ("MemoryManager=true", 36, "leave out MemoryManager: 1.36 does not have it any more"),
        ("MemoryManager=false", 37, "leave out MemoryManager: 1.37 does not have it any more"),
        ("SidecarContainers=true", 36, None),
        ("SidecarContainers=true", 37, "leave out SidecarContainers: 1.37 does not have it any more"),
        ("NativeHistograms=true", 35, "leave out NativeHistograms: 1.35 does not have it yet"),
        ("NativeHistograms=true", 36, None),
        ("NativeHistograms=true", 37, None),
        ("EtcdRangeStream=false", 35, "leave out EtcdRangeStream: 1.35 does not have it yet"),
        # It came and went.
        ("WorkloadAwarePreemption=true", 35, "leave out WorkloadAwarePreemption: 1.35 does not have it yet"),
        ("WorkloadAwarePreemption=true", 36, None),
        (
            "WorkloadAwarePreemption=true",
            37,
            "leave out WorkloadAwarePreemption: 1.37 does not have it any more",
        ),
        ("AllAlpha=true,SomeGate=true", 36, None),
        ("", 36, None),
        (
            '"kube:TopologyAwareHints=true", A=true,MemoryManager = false,NFTablesNetlink=true',
            36,
            "leave out MemoryManager, TopologyAwareHints: 1.36 does not have it any more; "
            "leave out NFTablesNetlink: 1.36 does not have it yet",
        ),
    ],
)
def test_a_gate_that_a_minor_does_not_have_is_found(value: str, minor: int, mend: str | None) -> None:
    assert unknown_gates(value, minor) == mend


OLDEST = next(iter(RELEASES))
TOO_NEW = next(gate for gate, minor in NEW.items() if minor > minor_of(OLDEST))
NEWEST_MINOR = f"1.{minor_of(LATEST)}"
ENDED = next(gate for gate, minor in GONE.items() if minor == minor_of(LATEST))


@pytest.mark.parametrize("component", [APISERVER, CONTROLLER_MANAGER, SCHEDULER])
@pytest.mark.parametrize(
    ("version", "value", "mend"),
    [
        (OLDEST, f"{TOO_NEW}=true", f"leave out {TOO_NEW}: 1.{minor_of(OLDEST)} does not have it yet"),
        (LATEST, f"A=true,{ENDED}=true", f"leave out {ENDED}: {NEWEST_MINOR} does not have it any more"),
    ],
)
def test_a_gate_that_the_release_does_not_have_is_refused(
    component: str, version: str, value: str, mend: str
) -> None:
    raw = with_value(lab(), "kubernetesVersion", version)
    (problem,) = errors(with_value(raw, f"flags {component} feature-gates", value)).problems
    assert problem.key == f"kubepivot:flags.{component}.feature-gates"
    assert (problem.value, problem.mend) == (f'"{value}"', mend)


def test_of_a_release_that_is_not_supported_no_gate_is_judged() -> None:
    raw = with_value(lab(), f"flags {APISERVER} feature-gates", "MemoryManager=true")
    (problem,) = errors(with_value(raw, "kubernetesVersion", "1.20.0")).problems
    assert problem.key == "kubepivot:kubernetesVersion"


@pytest.mark.parametrize("version", RELEASES)
def test_the_programs_own_gates_are_known_to_the_release(version: str) -> None:
    cfg = parse(with_value(lab(), "kubernetesVersion", version), stack="dev")
    for component in (APISERVER, CONTROLLER_MANAGER, SCHEDULER):
        flags = flags_of(bootstrap_pod(component, cfg, configured_machines(cfg))["spec"])
        assert unknown_gates(flags.get("feature-gates", ""), cfg.release.minor) is None


def test_a_gate_that_came_and_went_came_first() -> None:
    assert all(NEW[gate] < GONE[gate] for gate in NEW.keys() & GONE.keys())


USERS = "beside which kube-apiserver takes no other"
SERVICES, PODS = "kubepivot:network.services", "kubepivot:network.pods"


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("admission-control", "use enable-admission-plugins"),
        ("admission-control-config-file", "exempt from NodeRestriction"),
        ("advertise-address", "it is the address of the pod"),
        ("allocate-node-cidrs", PODS),
        ("anonymous-auth", USERS),
        ("api-audiences", "with another one all would be refused"),
        ("authentication-config", USERS),
        ("authorization-always-allow-paths", "probes"),
        ("authorization-config", "can be added with authorization-mode"),
        ("bind-address", "probes"),
        ("client-ca-file", "the components, and Pulumi, log in"),
        ("cluster-cidr", PODS),
        ("cluster-signing-cert-file", "signed by the cluster's authority"),
        ("cluster-signing-kubelet-client-key-file", "signed by the cluster's authority"),
        ("enable-garbage-collector", "the pods of what is deleted go on"),
        ("endpoint-reconciler-type", "it follows from the number of controllers"),
        ("etcd-prefix", "it follows from kubepivot:hosts"),
        ("etcd-servers", "it follows from kubepivot:hosts"),
        ("kubelet-certificate-authority", "knows kubelets by the cluster's authority"),
        ("leader-elect", "the hand-over waits for the lease"),
        ("leader-elect-lease-duration", "whether anybody leads"),
        ("leader-elect-renew-deadline", "whether anybody leads"),
        ("leader-elect-resource-name", "the hand-over waits for the lease"),
        ("leader-elect-retry-period", "whether anybody leads"),
        ("node-cidr-mask-size-ipv4", PODS),
        ("oidc-issuer-url", USERS),
        ("oidc-username-claim", USERS),
        ("permit-port-sharing", "the old and the new one serve at the same port"),
        ("requestheader-allowed-names", "a front proxy can act as any user"),
        ("requestheader-client-ca-file", "a front proxy can act as any user"),
        ("secure-port", "kube-apiserver's is kubepivot:api.port"),
        ("service-account-issuer", "kubepivot:network.domain"),
        ("service-account-key-file", "the cluster's own key"),
        ("service-account-lookup", "has to end with it"),
        ("service-cluster-ip-range", SERVICES),
        ("tls-cert-file", "by the name in that certificate"),
        ("token-auth-file", USERS),
        ("use-service-account-credentials", "rights of an account of its own"),
    ],
)
@pytest.mark.parametrize("component", [APISERVER, CONTROLLER_MANAGER])
def test_a_flag_that_is_the_programs_own_is_refused_with_the_reason(
    component: str, flag: str, reason: str
) -> None:
    (problem,) = errors(with_value(lab(), f"flags {component} {flag}", "false")).problems
    assert problem.key == f"kubepivot:flags.{component}.{flag}"
    assert problem.mend.startswith("leave this flag out: ")
    assert reason in problem.mend


def test_the_others_of_such_a_family_may_be_given() -> None:
    given = with_value(lab(), f"flags {CONTROLLER_MANAGER} cluster-signing-duration", "720h")
    assert parse(given, stack="dev").flags.of(CONTROLLER_MANAGER)
