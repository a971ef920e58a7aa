"""Keys and certificates as the program asks for them: who signs, for whom, for what and how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from components.hosts.machine import Machines
from components.pki import Pki, Texts, apiserver_sans
from tests.cases import Case, load, pki_names
from tests.unit.recorder import Registered, Run, Secret, Unknown, pki_texts, ran, record, revealed

KEY = "tls:index/privateKey:PrivateKey"
AUTHORITY = "tls:index/selfSignedCert:SelfSignedCert"
REQUEST = "tls:index/certRequest:CertRequest"
LEAF = "tls:index/locallySignedCert:LocallySignedCert"
YEAR = 365 * 24


@pytest.fixture
def run(case: Case) -> Run:
    return ran(case.name)


def _leaves(run: Run, case: Case) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Request and certificate of every leaf by its name."""
    prefix = f"{case.cfg.name}-"
    return {
        cert.name.removeprefix(prefix).removesuffix("-cert"): (
            run.only(cert.name.removesuffix("-cert") + "-request").plain,
            cert.plain,
        )
        for cert in run.of(LEAF)
    }


def test_names_of_texts_are_those_of_the_asset_directory(case: Case) -> None:
    assert sorted(pki_texts(case.name)) == pki_names(case.cfg)


def test_every_text_is_of_its_own_resource(case: Case) -> None:
    texts = pki_texts(case.name)
    assert len(set(texts.values())) == len(texts)
    for name, text in texts.items():
        path, _, kind = name.rpartition(".")
        resource = {"crt": "cert", "key": "key", "pub": "key"}[kind]
        assert f"\n{case.cfg.name}-{path.replace('/', '-')}-{resource}\n" in text


def test_authorities_and_the_service_account_key_are_protected() -> None:
    authorities = ("metal-ca", "metal-etcd-ca", "metal-front-proxy-ca")
    kept = {f"{name}-{part}" for name in authorities for part in ("key", "cert")}
    kept.add("metal-service-account-key")
    assert _protected(ran("baremetal")) == kept
    assert load("lab").raw["pki"] == {"protect": False}
    assert _protected(ran("lab")) == set()


def _protected(run: Run) -> set[str]:
    return {each.name for each in run.resources if each.protect}


def test_keys_are_secret_and_elliptic(run: Run) -> None:
    for each in run.of(KEY):
        assert each.inputs["algorithm"] in ("ECDSA", "ED25519"), each.name
        assert each.inputs["algorithm"] == "ED25519" or each.inputs["ecdsaCurve"] == "P256", each.name
    for each in run.of(AUTHORITY, REQUEST):
        assert isinstance(each.inputs["privateKeyPem"], Secret), each.name
    for each in run.of(LEAF):
        assert isinstance(each.inputs["caPrivateKeyPem"], Secret), each.name


def test_authorities_live_ten_years_and_are_not_renewed_by_themselves(run: Run) -> None:
    for each in run.of(AUTHORITY):
        assert each.inputs["isCaCertificate"] is True
        assert each.inputs["validityPeriodHours"] == 10 * YEAR
        assert "earlyRenewalHours" not in each.inputs


def test_leaves_live_a_year_and_are_renewed_a_month_before(run: Run) -> None:
    for each in run.of(LEAF):
        assert each.inputs["validityPeriodHours"] == YEAR
        assert each.inputs["earlyRenewalHours"] == 30 * 24
        assert not each.inputs.get("isCaCertificate")


def test_who_signs(run: Run, case: Case) -> None:
    for name, (_, cert) in _leaves(run, case).items():
        authority = {"etcd": "etcd-ca", "front": "front-proxy-ca"}.get(name.split("-")[0], "ca")
        assert f"\n{case.cfg.name}-{authority}-cert\n" in cert["caCertPem"], name
        assert f"\n{case.cfg.name}-{authority}-key\n" in cert["caPrivateKeyPem"], name


def test_every_request_is_of_its_own_key(run: Run, case: Case) -> None:
    for name, (request, cert) in _leaves(run, case).items():
        assert f"\n{case.cfg.name}-{name}-key\n" in request["privateKeyPem"]
        assert f"\n{case.cfg.name}-{name}-request\n" in cert["certRequestPem"]


def test_for_what(run: Run, case: Case) -> None:
    servers = {"apiserver", "bootstrap-apiserver", *(f"kubelet-serving-{host}" for host in case.cfg.hosts)}
    both = {f"etcd-{kind}-{host}" for kind in ("server", "peer") for host in case.cfg.controllers}
    for name, (request, cert) in _leaves(run, case).items():
        usages = set(cert["allowedUses"]) - {"digital_signature"}
        expected = {"server_auth"} if name in servers else {"client_auth"}
        assert usages == ({"server_auth", "client_auth"} if name in both else expected), name
        named = bool(request.get("dnsNames") or request.get("ipAddresses"))
        assert named == (name in servers | both), name


def test_names_of_the_api_server(run: Run, case: Case) -> None:
    leaves = _leaves(run, case)
    for name in ("apiserver", "bootstrap-apiserver"):
        request, _ = leaves[name]
        assert {*request["dnsNames"], *request["ipAddresses"]} == set(apiserver_sans(case.cfg, case.machines))
        assert request["dnsNames"] == sorted(request["dnsNames"])
        assert request["ipAddresses"] == sorted(request["ipAddresses"])
    names = [leaves[name][0]["subject"]["commonName"] for name in ("apiserver", "bootstrap-apiserver")]
    assert names == ["kube-apiserver", "kube-bootstrap-apiserver"]


def test_names_of_the_baremetal_api_server() -> None:
    """The load balancer's, every controller's, the service's and the pods' own."""
    case = load("baremetal")
    assert set(apiserver_sans(case.cfg, case.machines)) == {
        *("api.example.com", "192.168.7.11", "192.168.7.12", "192.168.7.13", "127.0.0.1", "10.65.0.1"),
        *("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"),
        "kubernetes.default.svc.cluster.internal",
    }


def test_subjects_are_those_that_kubernetes_knows(run: Run, case: Case) -> None:
    subjects = {name: request["subject"] for name, (request, _) in _leaves(run, case).items()}
    assert subjects["controller-manager"] == {"commonName": "system:kube-controller-manager"}
    assert subjects["scheduler"] == {"commonName": "system:kube-scheduler"}
    for host in case.cfg.hosts:
        assert subjects[f"kubelet-client-{host}"] == {
            "commonName": f"system:node:{host}",
            "organization": "system:nodes",
        }
    masters = {name for name, subject in subjects.items() if subject.get("organization") == "system:masters"}
    assert masters == {"super-admin"}


def test_a_worker_can_sign_in_as_itself_and_as_nobody_else(run: Run, case: Case) -> None:
    clients: list[Registered] = [each for each in run.of(LEAF) if "client_auth" in each.plain["allowedUses"]]
    for worker in case.cfg.workers:
        named = [each.name for each in clients if worker in each.name]
        assert named == [f"{case.cfg.name}-kubelet-client-{worker}-cert"]


# -- reading -------------------------------------------------------------------------------------------------


def _read(
    function: Callable[[Machines, Texts], str], *, preview: bool = False, state: Run | None = None
) -> tuple[Run, Registered]:
    """The PKI of `lab`, and a resource whose one input is what the function reads of it."""
    case = load("lab")

    def build() -> None:
        pki = Pki("lab", case.cfg, case.machines, case.machines.api_host, pulumi.ResourceOptions())
        pulumi.CustomResource("test:index:Reader", "reader", {"text": pki.read(function)})

    run = record(build, preview=preview, state=state)
    return run, run.only("reader")


def _pair(_: Machines, texts: Texts) -> str:
    return texts["admin.crt"] + texts["admin.key"]


def test_what_is_read_depends_on_nothing_else() -> None:
    run, reader = _read(_pair)
    assert reader.dependencies == {run.only(name).urn for name in ("lab-admin-cert", "lab-admin-key")}
    texts = pki_texts("lab")
    assert revealed(reader.inputs["text"]) == texts["admin.crt"] + texts["admin.key"]


def test_what_is_read_is_as_secret_as_the_texts() -> None:
    assert isinstance(_read(_pair)[1].inputs["text"], Secret)
    assert _read(lambda _, texts: texts["ca.crt"])[1].inputs["text"] == pki_texts("lab")["ca.crt"]


def test_what_is_read_is_unknown_with_one_of_the_texts_only() -> None:
    state, _ = _read(_pair)
    for name in ("lab-admin-cert", "lab-scheduler-cert", "lab-etcd-ca-cert"):
        _, reader = _read(_pair, preview=True, state=state.without(name))
        assert isinstance(revealed(reader.inputs["text"]), Unknown) == (name == "lab-admin-cert")


@pytest.mark.parametrize(
    "function",
    [
        lambda _, texts: "".join(texts.values()),
        lambda _, texts: "".join(sorted(texts)),
        lambda _, texts: str(len(texts)),
        lambda _, texts: str(dict(texts)),
    ],
)
def test_who_goes_through_the_texts_reads_all_of_them(function: Callable[[Machines, Texts], str]) -> None:
    run, reader = _read(function)
    assert reader.dependencies >= {each.urn for each in run.resources if each.name.endswith("-cert")}
    assert revealed(reader.inputs["text"]) == function(load("lab").machines, pki_texts("lab"))


def test_machines_are_read_as_they_are() -> None:
    def shown(machines: Machines, _: Texts) -> str:
        return repr([machines.api_host, *machines.values()])

    case = load("lab")
    _, reader = _read(shown, preview=True)
    assert reader.inputs["text"] == shown(case.machines, {})


def test_a_text_that_there_is_not_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"kubelet-client-worker-2\.crt"):
        _read(lambda _, texts: texts["kubelet-client-worker-2.crt"])
