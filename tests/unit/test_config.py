"""The stack's config: defaults, derived values, every error, secrets, and the documents made from it."""

from __future__ import annotations

import copy
import json
import traceback
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from components import durations, reference
from components.config import ClusterConfig, ConfigError, HostConfig, Taint, parse
from components.versions import LATEST, RELEASES

Raw = dict[str, Any]

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIArwvbnKlP9VYIeKDcJ3CdSTHv2dbmbL5SL3bd0uNiDd"
LEFT_OUT = object()


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory with keys of every kind."""
    home = tmp_path_factory.mktemp("home")
    ssh = home / ".ssh"
    ssh.mkdir()
    key = ed25519.Ed25519PrivateKey.generate()
    (ssh / "id_ed25519").write_bytes(_private(key))
    (ssh / "id_ed25519.pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    (ssh / "id_pkcs8").write_bytes(_private(key, serialization.PrivateFormat.PKCS8))
    (ssh / "id_ecdsa").write_bytes(_private(ec.generate_private_key(ec.SECP256R1())))
    (ssh / "id_rsa").write_bytes(
        _private(rsa.generate_private_key(65537, 2048), serialization.PrivateFormat.TraditionalOpenSSL)
    )
    locked = serialization.BestAvailableEncryption(b"passphrase")
    (ssh / "id_locked").write_bytes(_private(key, serialization.PrivateFormat.PKCS8, locked))
    (ssh / "id_torn").write_bytes(_private(key)[:120] + b"\n-----END OPENSSH PRIVATE KEY-----\n")
    (ssh / "binary").write_bytes(bytes(range(256)))
    return home


@pytest.fixture(autouse=True)
def home(keys: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory that `~` in a path means."""
    monkeypatch.setenv("HOME", str(keys))
    return keys


def _private(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    form: serialization.PrivateFormat = serialization.PrivateFormat.OpenSSH,
    encryption: serialization.KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, encryption or serialization.NoEncryption())


def lab() -> Raw:
    return {
        "platform": "lab",
        "hosts": {
            "controller-1": {"role": "controller", "address": "172.30.0.11"},
            "worker-1": {"role": "worker", "address": "172.30.0.21"},
        },
    }


def baremetal() -> Raw:
    login = {"key": "~/.ssh/id_ed25519", "hostKey": HOST_KEY}
    return {
        "platform": "baremetal",
        "hosts": {
            "controller-1": {"role": "controller", "address": "192.168.1.11", **login},
            "worker-1": {"role": "worker", "address": "192.168.1.21", **login},
        },
    }


def with_value(raw: Raw, path: str, value: object) -> Raw:
    """The config with another value at a path of keys joined by spaces, or without it."""
    raw = copy.deepcopy(raw)
    *parents, last = path.split()
    part = raw
    for parent in parents:
        part = part.setdefault(parent, {})
    if value is LEFT_OUT:
        del part[last]
    else:
        part[last] = value
    return raw


def errors(raw: Raw) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(raw, stack="dev")
    return caught.value


def test_defaults() -> None:
    config = parse(lab(), stack="dev")
    assert (config.name, config.mode, config.asset_directory) == ("dev", "cluster", "assets")
    assert config.kubernetes_version == LATEST
    assert config.network.hosts is None
    assert (config.network.pods, config.network.services) == ("10.2.0.0/16", "10.3.0.0/16")
    assert config.network.domain == "cluster.local"
    assert (config.api.host, config.api.port) == ("172.30.0.11", 6443)
    assert config.mirror is None
    assert config.pki.protect
    assert (config.lab.image, config.lab.network) == ("kubepivot/host:latest", "kubepivot")
    assert config.hosts["worker-1"] == HostConfig(role="worker", address="172.30.0.21")
    assert (config.hosts["worker-1"].user, config.hosts["worker-1"].port) == ("root", 22)
    assert config.warnings == ()


def test_derived_values() -> None:
    raw = baremetal()
    raw["hosts"]["alpha"] = {**raw["hosts"]["controller-1"], "address": "192.168.1.9"}
    raw |= {"api": {"host": "api.example.com", "port": "443"}, "network": {"services": "10.96.0.0/20"}}
    config = parse(raw, stack="dev")
    assert config.controllers == ("alpha", "controller-1")
    assert config.workers == ("worker-1",)
    assert config.bootstrap_controller == "alpha"
    assert config.api_endpoint == "https://api.example.com:443"
    assert (config.service_ip, config.dns_ip) == ("10.96.0.1", "10.96.0.10")
    assert config.apiserver_sans == (
        "10.96.0.1",
        "127.0.0.1",
        "192.168.1.11",
        "192.168.1.9",
        "api.example.com",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    )


def test_release_goes_with_the_version() -> None:
    release = parse(lab(), stack="dev").release
    assert release is RELEASES[LATEST]
    assert release.kubernetes_image("kube-apiserver") == f"registry.k8s.io/kube-apiserver:v{LATEST}"
    assert release.etcd_image.startswith(f"registry.k8s.io/etcd:{release.etcd}-")
    assert release.coredns_image == f"registry.k8s.io/coredns/coredns:v{release.coredns}"
    assert release.pause_image == f"registry.k8s.io/pause:{release.pause}"
    assert release.flannel_image == f"ghcr.io/flannel-io/flannel:v{release.flannel}"
    assert release.flannel_cni_image == f"ghcr.io/flannel-io/flannel-cni-plugin:v{release.flannel_cni}"


def test_even_number_of_controllers_is_a_warning() -> None:
    raw = with_value(lab(), "hosts worker-1 role", "controller") | {"api": {"host": "172.30.0.100"}}
    (warning,) = parse(raw, stack="dev").warnings
    assert "kubepivot:hosts has 2 controllers" in warning
    assert "odd number" in warning


def test_snapshots_are_made_unless_told_otherwise_and_stay_on_their_hosts() -> None:
    backup = parse(lab(), stack="dev").backup
    assert (backup.interval, backup.keep, backup.generation, backup.s3) == ("6h", 28, 0, None)


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


def case(
    path: str, value: object, mend: str, *, base: Callable[[], Raw] = lab, key: str = "", shown: str = ""
) -> Any:
    """A wrong value and what its message must say; without `key` and `shown`, path and value themselves."""
    if not shown:
        shown = "(not set)" if value is LEFT_OUT else str(value)
    key = key or ".".join(path.split())
    return pytest.param(base, path, value, f"kubepivot:{key}", shown, mend, id=f"{path}: {shown} ({mend})")


def host_case(field: str, value: object, mend: str, **rest: Any) -> Any:
    return case(f"hosts worker-1 {field}", value, mend, **rest)


def label_case(key: str, value: object, mend: str, *, shown: str) -> Any:
    quoted = f'["{key}"]' if "/" in key else f".{key}"
    return host_case("labels", {key: value}, mend, key=f"hosts.worker-1.labels{quoted}", shown=shown)


def taint_case(text: object, mend: str) -> Any:
    return host_case("taints", [text], mend, key="hosts.worker-1.taints[0]", shown=str(text))


S3 = {
    "endpoint": "https://s3.example.com",
    "bucket": "backups",
    "accessKey": "AKIAIOSFODNN7EXAMPLE",
    "secretKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "encryptionKey": "correct horse battery staple".replace(" ", "-"),
}


def s3_case(field: str, value: object, mend: str, *, shown: str | None = None) -> Any:
    s3: dict[str, object] = {**S3, field: value}
    if value is LEFT_OUT:
        del s3[field]
        shown = "(not set)"
    shown = str(value) if shown is None else shown
    return case("backup s3", s3, mend, key=f"backup.s3.{field}", shown=shown)


PORT = "use a whole number from 1 to 65535"
CIDR = "use an IPv4 range in CIDR form"
URL = "use an http:// or https:// URL"
DNS_LABEL = "lower-case letters, digits and hyphens"
WORKER = {"role": "worker", "address": "172.30.0.22"}
LOCKED = "~/.ssh/id_locked"


@pytest.mark.parametrize(
    ("base", "path", "value", "key", "shown", "mend"),
    [
        # Top level
        case("platform", LEFT_OUT, "required"),
        case("platform", "cloud", "use 'lab' or 'baremetal'"),
        case("mode", "rendr", "use 'cluster' or 'render'"),
        case("assetDirectory", "", "must not be empty", shown='""'),
        case("name", "My_Cluster", DNS_LABEL),
        case("name", "a" * 41, "at most 40"),
        case("kubernetesVersion", "1.20.0", f"not supported; use one of {LATEST}"),
        case("kubernetesVersion", 1.36, "in quotes"),
        case("pki protect", "perhaps", "true or false"),
        case("lab image", "x", "for platform lab only", base=baremetal, key="lab", shown="(a map)"),
        # Unknown keys
        case("kubernetesversion", "1", "did you mean kubernetesVersion?", shown="kubernetesversion"),
        case("asset_directory", "x", "did you mean assetDirectory?", shown="asset_directory"),
        case("hosts worker-1 adress", "1.2.3.4", "did you mean address?", shown="adress"),
        case("network podz", "x", "did you mean pods?", shown="podz"),
        case("api prot", 1, "did you mean port?", shown="prot"),
        case("mirror image", "x", "did you mean images?", shown="image"),
        case("pki xyz", "x", "known are protect", shown="xyz"),
        case("lab imag", "x", "did you mean image?", shown="imag"),
        # Shape
        case("network", "10.0.0.0/8", "write a map of keys"),
        case("hosts", ["10.0.0.1"], "write a map of keys", shown="(a list)"),
        case("hosts worker-1", "10.0.0.1", "write a map of keys"),
        # Hosts
        case("hosts", LEFT_OUT, "required"),
        case("hosts", {}, "at least one host", shown="(empty)"),
        case("hosts controller-1 role", "worker", "no host is a controller", key="hosts", shown="(a map)"),
        case("hosts worker-1 role", "controller", "load balancer", key="api.host", shown="(not set)"),
        case("hosts worker_1", WORKER, DNS_LABEL, shown="worker_1"),
        case("hosts Worker-1", WORKER, "differs from worker-1 in case only; rename", shown="Worker-1"),
        host_case("role", LEFT_OUT, "required"),
        host_case("role", "node", "use 'controller' or 'worker'"),
        host_case("address", LEFT_OUT, "required, for example"),
        host_case("address", "172.30.0.300", "use an IPv4 address"),
        host_case("address", "fd00::1", "use an IPv4 address"),
        host_case("address", "127.0.0.1", "by which the other hosts reach"),
        host_case("address", "172.30.0.11", "host controller-1 has the same address and port"),
        host_case("port", "ssh", PORT, base=baremetal),
        host_case("port", 65536, PORT, base=baremetal),
        host_case("user", "", "must not be empty", base=baremetal, shown='""'),
        # SSH in the lab and on bare metal
        host_case("key", "~/.ssh/id_ed25519", "leave it out"),
        host_case("hostKey", HOST_KEY, "leave it out", shown=HOST_KEY[:40]),
        host_case("user", "root", "leave it out"),
        host_case("port", 22, "leave it out"),
        host_case("key", LEFT_OUT, "path of the private key", base=baremetal),
        host_case("key", "~/.ssh/none", "no such file", base=baremetal),
        host_case("key", "~/.ssh", "cannot be read", base=baremetal),
        host_case("key", "~nobody-here/key", "cannot be read", base=baremetal),
        host_case("key", "~/.ssh/binary", "not a private key", base=baremetal),
        host_case("key", "~/.ssh/id_ed25519.pub", "this is a public key", base=baremetal),
        host_case("key", LOCKED, "encrypted with a passphrase", base=baremetal),
        host_case("key", "~/.ssh/id_torn", "damaged", base=baremetal),
        host_case("key", "hunter2", "not a private key", base=baremetal, shown="(secret)"),
        host_case("hostKey", LEFT_OUT, "ssh-keyscan", base=baremetal),
        host_case(
            "hostKey", f"a.example {HOST_KEY}", "without the host's name", base=baremetal, shown="a.ex"
        ),
        host_case("hostKey", HOST_KEY[:-8], "ssh-keyscan", base=baremetal, shown="ssh-ed25519 AAAA"),
        host_case("hostKey", "SHA256:abc", "ssh-keyscan", base=baremetal),
        # Labels and taints
        label_case("node-role.kubernetes.io/worker", "", "may not set this label", shown="node-role."),
        label_case("kubernetes.io/x", "a", "your own domain", shown="kubernetes.io/x"),
        label_case("foo.k8s.io/x", "a", "your own domain", shown="foo.k8s.io/x"),
        label_case("node.kubernetes.io/controller", "", "host's role", shown="node.kubernetes.io/controller"),
        label_case("-bad", "a", "[domain/]name", shown="-bad"),
        label_case("Bad_/x", "a", "domain is a DNS name", shown="Bad_/x"),
        label_case("a", "b c", "at most 63 letters", shown="b c"),
        label_case("a", True, "in quotes", shown="true"),
        taint_case("a=b", "key[=value]:Effect"),
        taint_case("a:Never", "effects NoSchedule, PreferNoSchedule, NoExecute"),
        taint_case("=b:NoExecute", "[domain/]name"),
        taint_case("a=b/c:NoExecute", "at most 63 letters"),
        taint_case(1, "key[=value]:Effect"),
        host_case("taints", "a:NoExecute", "write a list"),
        host_case("taints", ["a=b:NoExecute", "a:NoExecute"], "twice; leave one out", shown="(a list)"),
        # Addresses
        case("network pods", "10.2.0.0", CIDR),
        case("network services", "fd00::/108", CIDR),
        case("network pods", "10.2.3.0/16", "first address: 10.2.0.0/16"),
        case("network hosts", "172.30.0.1/24", "first address: 172.30.0.0/24"),
        case("network pods", "10.2.0.0/25", "at least a /23"),
        case("network pods", "10.2.0.0/24", "at least a /23"),
        case("network services", "10.3.0.0/25", "from /12 to /24"),
        case("network services", "10.0.0.0/8", "from /12 to /24"),
        case("network services", "10.2.128.0/20", "overlaps kubepivot:network.pods, 10.2.0.0/16"),
        case(
            "network hosts",
            "10.0.0.0/8",
            "overlaps kubepivot:network.hosts",
            key="network.pods",
            shown="10.2.",
        ),
        case("network pods", "172.30.0.0/16", "pods", key="hosts.worker-1.address", shown="172.30.0.21"),
        host_case("address", "10.3.0.5", "lies in kubepivot:network.services"),
        case("api host", "10.3.0.1", "lies in kubepivot:network.services"),
        case("network hosts", "172.30.0.0/28", "outside", key="hosts.worker-1.address", shown="172.30.0.21"),
        case("network domain", "Cluster_Local", "DNS name"),
        # Backups
        case("backup interval", "4m59s", "use at least 5m"),
        case("backup interval", "6 hours", "for example 6h, 90m or 1d12h"),
        case("backup interval", "", "for example 6h, 90m or 1d12h", shown='""'),
        case("backup interval", 6, "in quotes"),
        case("backup keep", 0, "use a whole number from 1 to 1000"),
        case("backup keep", "all", "use a whole number from 1 to 1000"),
        case("backup generation", -1, "use a whole number from 0 to 1000000"),
        case("backup s3", "s3://backups", "write a map of keys"),
        s3_case("endpoint", LEFT_OUT, "required, for example"),
        s3_case("endpoint", "s3.example.com", URL),
        s3_case("bucket", "My_Bucket", "use 3 to 63 lower-case letters"),
        s3_case("bucket", "s3://backups", "use 3 to 63 lower-case letters"),
        s3_case("prefix", "/kubernetes", "with / between but not around them"),
        s3_case("prefix", "a/../b", "with / between but not around them"),
        s3_case("accessKey", LEFT_OUT, "required, for example"),
        s3_case("secretKey", "hunter2\n", "without spaces and line breaks", shown="(secret)"),
        s3_case("secretKey", "", "without spaces and line breaks", shown="(secret)"),
        s3_case("encryptionKey", "hunter2", "use at least 20 letters", shown="(secret)"),
        s3_case("secret_key", "hunter2", "did you mean secretKey?", shown="secret_key"),
        case("api port", "0", PORT),
        case("api host", "https://api:6443", "without scheme and without port"),
        case("api host", "10.0.0.300", "IPv4 address or a DNS name"),
        case("mirror artifacts", "http://m", "required", key="mirror.images", shown="(not set)"),
        case("mirror artifacts", "mirror:80", URL),
        case("mirror images", "ftp://m", URL),
        case("mirror images", "http://m:99999", URL),
        case("mirror images", "http://m?a=b", "without user, query and fragment"),
    ],
)
def test_an_error_names_key_value_and_mend(
    base: Callable[[], Raw], path: str, value: object, key: str, shown: str, mend: str
) -> None:
    error = errors(with_value(base(), path, value))
    found = [str(problem) for problem in error.problems if problem.key == key]
    assert any(shown in line and mend in line for line in found), str(error)
    assert str(error).splitlines()[1:] == [f"  {problem}" for problem in error.problems]


def test_all_problems_come_at_once() -> None:
    raw = lab() | {"platfrom": "lab", "network": {"pods": "10.3.0.0/16"}, "api": {"port": 0}}
    raw["hosts"]["worker-1"] |= {"role": "node", "address": "10.3.0.5"}
    raw["hosts"]["worker-2"] = {"role": "worker", "address": "10.3.0.5"}
    error = errors(raw)
    assert [problem.key for problem in error.problems] == [
        "kubepivot:hosts.worker-1.role",
        "kubepivot:api.port",
        "kubepivot:platfrom",
        "kubepivot:network.services",
        "kubepivot:hosts.worker-1.address",
        "kubepivot:hosts.worker-1.address",
        "kubepivot:hosts.worker-2.address",
        "kubepivot:hosts.worker-2.address",
        "kubepivot:hosts.worker-2.address",
    ]
    assert str(error).startswith("the stack's config has 9 problems:\n")


def test_a_wrong_value_brings_no_follow_up_error() -> None:
    assert [
        problem.key for problem in errors(with_value(lab(), "hosts controller-1 role", "x")).problems
    ] == ["kubepivot:hosts.controller-1.role"]
    raw = with_value(lab(), "hosts controller-1 address", "x")
    assert [problem.key for problem in errors(raw).problems] == ["kubepivot:hosts.controller-1.address"]


def test_the_default_name_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r'kubepivot:name = "My\.Stack": use at most 40'):
        parse(lab(), stack="My.Stack")


def test_same_address_on_another_port_is_another_host() -> None:
    raw = with_value(baremetal(), "hosts worker-1 address", "192.168.1.11")
    assert parse(with_value(raw, "hosts worker-1 port", 2222), stack="dev").hosts["worker-1"].port == 2222


@pytest.mark.parametrize("name", ["id_ed25519", "id_pkcs8", "id_ecdsa", "id_rsa"])
def test_a_private_key_is_a_path_or_its_text(home: Path, name: str) -> None:
    text = (home / ".ssh" / name).read_text()
    for value in (f"~/.ssh/{name}", str(home / ".ssh" / name), text, text.rstrip("\n")):
        key = parse(with_value(baremetal(), "hosts worker-1 key", value), stack="dev").hosts["worker-1"].key
        assert key is not None
        assert key.get_secret_value() == text


def test_a_host_key_loses_its_comment() -> None:
    raw = with_value(baremetal(), "hosts worker-1 hostKey", f" {HOST_KEY}  root@worker-1\n")
    assert parse(raw, stack="dev").hosts["worker-1"].host_key == HOST_KEY


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

    message = str(errors(with_value(baremetal(), "hosts worker-1 key", locked)))
    assert locked.splitlines()[1][:20] not in message
    url = str(errors(with_value(lab(), "mirror images", "http://user:hunter2@m")))
    assert "hunter2" not in url
    assert "http://***@m" in url


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
            "kubepivot:api": '{"port":443}',
            "kubepivot:pki": '{"protect":"false"}',
            "kubernetes:context": "elsewhere",
        }
    )
    config = ClusterConfig.load()
    assert (config.name, config.api_endpoint, config.pki.protect) == ("dev", "https://172.30.0.11:443", False)


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


@given(st.integers(12, 24).flatmap(lambda prefix: st.tuples(st.integers(0, 2**prefix - 1), st.just(prefix))))
def test_service_addresses_lie_in_their_range(drawn: tuple[int, int]) -> None:
    number, prefix = drawn
    services = IPv4Network((number << (32 - prefix), prefix))
    config = ClusterConfig.model_construct(
        network=parse(lab(), stack="dev").network.model_copy(update={"services": str(services)})
    )
    assert IPv4Address(config.service_ip) == services.network_address + 1
    assert IPv4Address(config.dns_ip) == services.network_address + 10


@pytest.mark.parametrize("path", reference.files(), ids=lambda path: path.name)
def test_generated_documents_are_fresh(path: Path) -> None:
    assert path.read_text() == reference.files()[path], "run: python -m components.reference"


def test_the_reference_has_its_example_and_the_example_parses() -> None:
    document = next(text for path, text in reference.files().items() if path.suffix == ".md")
    fenced = document.split("```yaml\n")[1].split("```")[0]
    raw = {key.removeprefix("kubepivot:"): value for key, value in yaml.safe_load(fenced)["config"].items()}
    config = parse(raw, stack="other")
    assert config.name == "prod"
    assert config.warnings == ()
    assert (config.controllers, config.workers) == (("controller-1",), ("worker-1",))


def field_examples() -> Iterator[tuple[str, object]]:
    schema = next(json.loads(text) for path, text in reference.files().items() if path.suffix == ".json")
    top = schema["properties"]["config"]["properties"]
    yield from _examples(schema, {key.removeprefix("kubepivot:"): field for key, field in top.items()}, "")


def _examples(
    schema: dict[str, Any], fields: dict[str, dict[str, Any]], path: str
) -> Iterator[tuple[str, object]]:
    for key, field in fields.items():
        section_name = field.get("$ref") or field.get("additionalProperties", {}).get("$ref")
        if section_name:
            section = schema["$defs"][section_name.rpartition("/")[2]]
            yield from _examples(
                schema, section["properties"], f"{path}{key} worker-1 " if key == "hosts" else f"{path}{key} "
            )
        else:
            yield f"{path}{key}", field["examples"][0]


@pytest.mark.parametrize(("path", "example"), field_examples())
def test_every_example_of_the_reference_parses(path: str, example: object) -> None:
    raw = lab() if path.startswith("lab") else baremetal()
    if path.startswith("mirror"):
        raw["mirror"] = {"artifacts": "http://mirror:8080", "images": "http://mirror:5000"}
    if path.startswith("backup s3"):
        raw["backup"] = {"s3": S3}
    if path == "hosts worker-1 role":
        raw["api"] = {"host": "api.example.com"}
    parse(with_value(raw, path, example), stack="dev")


def test_the_schema_knows_every_key() -> None:
    schema = next(json.loads(text) for path, text in reference.files().items() if path.suffix == ".json")
    keys = {str(field.alias) for field in ClusterConfig.model_fields.values()}
    config = schema["properties"]["config"]
    assert set(config["properties"]) == {f"kubepivot:{key}" for key in keys}
    assert config["required"] == ["kubepivot:platform", "kubepivot:hosts"]
    assert all(not section["additionalProperties"] for section in (config, *schema["$defs"].values()))
    assert set(schema["$defs"]["HostConfig"]["properties"]) == {
        str(field.alias) for field in HostConfig.model_fields.values()
    }
