"""The stack's config: defaults, derived values, loading, and that nothing crashes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import pulumi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.config import ClusterConfig, ConfigError, HostConfig, Taint, durations, parse
from components.config.images import release_images
from components.config.lab import NETWORK, SUBNET, TAKEN
from components.config.releases import LATEST, RELEASES
from components.hosts.machine import configured_machines
from components.pki import apiserver_sans
from lab import mirror
from tests.unit.raw_configs import S3, Raw, baremetal, lab, with_value

pytestmark = pytest.mark.usefixtures("home")


def test_defaults() -> None:
    config = parse(lab(), stack="dev")
    assert (config.name, config.mode, config.asset_directory) == ("dev", "cluster", "assets")
    assert config.kubernetes_version == LATEST
    assert config.network.hosts is None
    assert (config.network.pods, config.network.services) == ("10.2.0.0/16", "10.3.0.0/16")
    assert config.network.domain == "cluster.local"
    assert (config.api.host, config.api.port) == ("", 6443)
    assert config.mirror is None
    assert config.pki.protect
    assert (config.lab.image, config.lab.network) == ("kubepivot/host:latest", "kubepivot")
    assert config.hosts["worker-1"] == HostConfig(role="worker", address="172.30.0.21")
    assert (config.hosts["worker-1"].user, config.hosts["worker-1"].port) == ("root", 22)
    assert config.warnings == ()


def test_derived_values() -> None:
    raw = baremetal()
    raw["hosts"]["alpha"] = {**raw["hosts"]["controller-1"], "address": "192.168.1.9"}
    raw |= {"api": {"host": "api.example.com", "port": "8443"}, "network": {"services": "10.96.0.0/20"}}
    config = parse(raw, stack="dev")
    assert config.controllers == ("alpha", "controller-1")
    assert config.workers == ("worker-1",)
    assert config.bootstrap_controller == "alpha"
    assert config.api_endpoint(config.api.host) == "https://api.example.com:8443"
    assert (config.service_ip, config.dns_ip) == ("10.96.0.1", "10.96.0.10")
    assert config.addresses == {
        "alpha": "192.168.1.9",
        "controller-1": "192.168.1.11",
        "worker-1": "192.168.1.21",
    }


def test_release_goes_with_the_version() -> None:
    release = parse(lab(), stack="dev").release
    assert release is RELEASES[LATEST]
    usual = {
        **{
            name: f"registry.k8s.io/{name}:v{LATEST}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
        },
        "coredns": f"registry.k8s.io/coredns/coredns:v{release.coredns}",
        "flannel": f"ghcr.io/flannel-io/flannel:v{release.flannel}",
        "flannel-cni": f"ghcr.io/flannel-io/flannel-cni-plugin:v{release.flannel_cni}",
        "pod-checkpointer": f"docker.io/library/python:{release.python}",
    }
    assert usual.items() <= release_images(release).items()
    assert release.etcd_image == f"quay.io/coreos/etcd:v{release.etcd}"
    assert release.pause_image == f"registry.k8s.io/pause:{release.pause}"


def test_even_number_of_controllers_is_a_warning() -> None:
    raw = with_value(lab(), "hosts worker-1 role", "controller") | {"api": {"host": "172.30.0.100"}}
    (warning,) = parse(raw, stack="dev").warnings
    assert "kubepivot:hosts has 2 controllers" in warning
    assert "odd number" in warning


def test_one_of_several_controllers_as_endpoint_is_a_warning() -> None:
    raw = lab() | {"api": {"host": "172.30.0.11"}}
    for number in (12, 13):
        raw["hosts"][f"controller-{number}"] = {"role": "controller", "address": f"172.30.0.{number}"}
    (warning,) = parse(raw, stack="dev").warnings
    assert "kubepivot:api.host" in warning
    assert "172.30.0.11" in warning
    assert "load balancer" in warning


def test_taints_and_labels() -> None:
    raw = with_value(lab(), "hosts worker-1 taints", ["example.com/gpu=true:NoSchedule", "old:NoExecute"])
    labels = {
        "topology.kubernetes.io/zone": "a",
        "topology.kubernetes.io/region": "b",
        "node.kubernetes.io/pool": "c",
        "kubelet.kubernetes.io/x": "",
        "sub.node.kubernetes.io/x": "d",
        "example.com/rack": "1.A_b-c",
        "plain": "e",
    }
    host = parse(with_value(raw, "hosts worker-1 labels", labels), stack="dev").hosts["worker-1"]
    assert host.labels == labels
    assert host.taints == (
        Taint(key="example.com/gpu", value="true", effect="NoSchedule"),
        Taint(key="old", effect="NoExecute"),
    )
    assert [str(taint) for taint in host.taints] == ["example.com/gpu=true:NoSchedule", "old:NoExecute"]


@pytest.mark.parametrize(
    ("value", "text"), [("2h", "2h"), (4, "4"), (0.5, "0.5"), (True, "true"), (False, "false"), ("", "")]
)
def test_a_flag_is_text_whatever_pulumi_makes_of_it(value: object, text: str) -> None:
    config = parse(with_value(lab(), "flags kube-apiserver event-ttl", value), stack="dev")
    assert config.flags.of("kube-apiserver") == {"event-ttl": text}
    assert config.flags.of("kube-scheduler") == {}


DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "image",
    [
        *("coredns:1", "a/b:v1.2-x_y", "example.com/a:1", "localhost:5000/a/b-c__d.e:1", "10.0.0.1:5000/a:1"),
        *(f"example.com/kube-proxy:v{LATEST}-fix1", "example.com:5000/kube-proxy:fix"),
        *(f"a/b@{DIGEST}", f"example.com:5000/a/b:1@{DIGEST}"),
    ],
)
def test_an_image_is_used_instead_of_the_releases(image: str) -> None:
    config = parse(with_value(lab(), "images kube-proxy", image), stack="dev")
    assert config.workload_images == {**release_images(config.release), "kube-proxy": image}


def test_the_lab_is_where_the_config_says() -> None:
    assert (NETWORK, str(SUBNET)) == (mirror.NETWORK, mirror.SUBNET)
    # The engine takes the first address for the gateway.
    assert list(TAKEN) == [SUBNET[1], IPv4Address(mirror.ADDRESS)]


@pytest.mark.parametrize(("mode", "network"), [("cluster", "kubepivot-test"), ("render", "kubepivot")])
def test_on_a_network_of_ones_own_a_host_has_any_address(mode: str, network: str) -> None:
    raw = with_value(lab(), "hosts worker-1 address", "192.168.1.1")
    assert parse(raw | {"mode": mode, "lab": {"network": network}}, stack="dev").workers == ("worker-1",)


def test_the_longest_names_have_certificates() -> None:
    raw = with_value(lab(), "network domain", f"{'a.' * 114}aa")
    cfg = parse(
        with_value(raw, f"hosts {'w' * 52}", {"role": "worker", "address": "172.30.0.22"}), stack="dev"
    )
    assert max(map(len, apiserver_sans(cfg, configured_machines(cfg)))) == 253
    assert max(len(f"system:node:{name}") for name in cfg.hosts) == 64


@pytest.mark.parametrize(
    "url",
    ["http://mirror", "https://M.example:8443/a/b-c.d", "http://127.0.0.1:5000", "http://10.9.0.1/v2.x"],
)
def test_a_mirror_is_any_server_that_hosts_can_ask(url: str) -> None:
    found = parse(lab() | {"mirror": {"artifacts": f"{url}/%7E", "images": url}}, stack="dev").mirror
    assert found is not None
    assert (found.artifacts, found.images) == (f"{url}/%7E", url)


def test_snapshots_are_made_unless_told_otherwise_and_stay_on_their_hosts() -> None:
    backup = parse(lab(), stack="dev").backup
    assert (backup.interval, backup.keep, backup.generation, backup.s3) == ("6h", 28, 0, None)
    assert backup.max_size == "10Gi"


@pytest.mark.parametrize(
    ("text", "seconds"), [("6h", 21600), ("90m", 5400), ("1d12h", 129600), ("1h1m1s", 3661), ("300s", 300)]
)
def test_intervals_are_spans_of_time(text: str, seconds: int) -> None:
    assert (
        durations.seconds(parse(with_value(lab(), "backup interval", text), stack="dev").backup.interval)
        == seconds
    )


def test_credentials_of_the_storage_are_in_no_text_of_the_config() -> None:
    config = parse(with_value(lab(), "backup", {"s3": S3}), stack="dev")
    assert config.backup.s3 is not None
    assert config.backup.s3.secret_key.get_secret_value() == S3["secretKey"]
    for key in ("accessKey", "secretKey", "encryptionKey"):
        assert S3[key] not in repr(config)


@pytest.fixture
def pulumi_config(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Sets the config of a stack `dev` as the language host hands it over."""

    def set_config(config: dict[str, str]) -> None:
        monkeypatch.setattr(pulumi, "get_stack", lambda: "dev")
        monkeypatch.setenv("PULUMI_CONFIG", json.dumps(config))

    return set_config


def test_load_reads_everything_of_the_project(pulumi_config: Callable[[dict[str, str]], None]) -> None:
    pulumi_config(
        {
            "kubepivot:platform": "lab",
            "kubepivot:hosts": json.dumps(lab()["hosts"]),
            "kubepivot:api": '{"port":8443}',
            "kubepivot:pki": '{"protect":"false"}',
            "kubernetes:context": "elsewhere",
        }
    )
    config = ClusterConfig.load()
    assert (config.name, config.api.port, config.pki.protect) == ("dev", 8443, False)


def test_load_reports_unknown_keys_and_broken_maps(pulumi_config: Callable[[dict[str, str]], None]) -> None:
    pulumi_config({"kubepivot:platform": "lab", "kubepivot:hosts": "{nonsense", "kubepivot:host": "{}"})
    with pytest.raises(ConfigError) as caught:
        ClusterConfig.load()
    assert [problem.key for problem in caught.value.problems] == ["kubepivot:hosts", "kubepivot:host"]
    assert isinstance(caught.value, pulumi.RunError)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["lab", "baremetal", "controller", "worker", "172.30.0.11", "10.2.0.0/16", "api", "22"]
    ),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ["a", "role", "address", "port", "hosts", "pods", "services", "host", "labels", "taints"]
        ),
        inner,
        max_size=3,
    ),
    max_leaves=8,
)


@pytest.mark.sweep
@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(st.sampled_from(["platform", "hosts", "network", "api", "lab", "mirror", "x"]), VALUES)
)
def test_whatever_stands_there_is_a_config_or_a_readable_error(raw: Raw) -> None:
    try:
        config = parse(raw, stack="dev")
    except ConfigError as error:
        assert error.problems
        assert all(problem.key.startswith("kubepivot:") and problem.mend for problem in error.problems)
    else:
        assert config.controllers


@settings(deadline=None)  # on a busy machine its first run takes longer than the others
@given(st.integers(12, 24).flatmap(lambda prefix: st.tuples(st.integers(0, 2**prefix - 1), st.just(prefix))))
def test_service_addresses_lie_in_their_range(drawn: tuple[int, int]) -> None:
    number, prefix = drawn
    services = IPv4Network((number << (32 - prefix), prefix))
    config = ClusterConfig.model_construct(
        network=parse(lab(), stack="dev").network.model_copy(update={"services": str(services)})
    )
    assert IPv4Address(config.service_ip) == services.network_address + 1
    assert IPv4Address(config.dns_ip) == services.network_address + 10
