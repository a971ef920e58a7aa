"""Every error of a config names key, value and mend, and no error shows a secret."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.config import ConfigError, parse
from components.config.releases import RELEASES
from tests.unit.raw_configs import HOST_KEY, LEFT_OUT, S3, Raw, baremetal, errors, lab, with_value

pytestmark = pytest.mark.usefixtures("home")


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


def flag_case(flag: str, value: object, mend: str) -> Any:
    quoted = f".{flag}" if "=" not in flag else f'["{flag}"]'
    key = f"flags.kube-apiserver{quoted}"
    return case("flags kube-apiserver", {flag: value}, mend, key=key, shown=f'"{flag}"')


def taint_case(text: object, mend: str) -> Any:
    return host_case("taints", [text], mend, key="hosts.worker-1.taints[0]", shown=str(text))


def s3_case(field: str, value: object, mend: str, *, shown: str | None = None) -> Any:
    s3: dict[str, object] = {**S3, field: value}
    if value is LEFT_OUT:
        del s3[field]
        shown = "(not set)"
    shown = str(value) if shown is None else shown
    return case("backup s3", s3, mend, key=f"backup.s3.{field}", shown=shown)


def in_hosts() -> Raw:
    return lab() | {"network": {"hosts": "172.30.0.0/24"}}


LONG_DOMAIN = f"{'a.' * 115}a"
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
        case("platform", "cloud", "use 'lab', 'baremetal' or 'digitalocean'"),
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
        # Shape
        case("network", "10.0.0.0/8", "write a map of keys", shown="(a single value)"),
        case("network", None, "write a map of keys", shown="(nothing)"),
        case("hosts worker-1", None, "write a map of keys", shown="(nothing)"),
        case("backup s3 endpoint", None, "write it as text", shown="(not set)"),
        case("hosts", ["10.0.0.1"], "write a map of keys", shown="(a list)"),
        case("hosts worker-1", "10.0.0.1", "write a map of keys", shown="(a single value)"),
        case("hosts worker-1 labels", "a=b", "write a map of keys", shown="(a single value)"),
        # Hosts
        case("hosts", LEFT_OUT, "required"),
        case("hosts", {}, "at least one host", shown="(empty)"),
        case("hosts controller-1 role", "worker", "no host is a controller", key="hosts", shown="(a map)"),
        case("hosts worker-1 role", "controller", "load balancer", key="api.host", shown="(not set)"),
        case("hosts worker_1", WORKER, DNS_LABEL, shown="worker_1"),
        case("hosts Worker-1", WORKER, DNS_LABEL, shown="Worker-1"),
        case(f"hosts {'w' * 53}", WORKER, "use at most 52 lower-case letters", shown="w" * 53),
        host_case("role", LEFT_OUT, "required"),
        host_case("role", "node", "use 'controller' or 'worker'"),
        host_case("address", LEFT_OUT, "required, for example"),
        host_case("address", "172.30.0.300", "use an IPv4 address"),
        host_case("address", "fd00::1", "use an IPv4 address"),
        host_case("address", "127.0.0.1", "by which the other hosts reach"),
        host_case("address", "255.255.255.255", "by which the other hosts reach"),
        host_case("address", "192.0.0.8", "this is protocol assignments, 192.0.0.0/24"),
        host_case("address", "172.30.0.1", "the gateway of the lab has it"),
        host_case("address", "172.30.0.2", "the mirror of the lab has it"),
        *(
            host_case("address", address, "in the lab's network kubepivot, 172.30.0.0/16")
            for address in ("192.168.1.21", "172.30.0.0", "172.30.255.255")
        ),
        host_case("address", "172.30.0.11", "host controller-1 has the same address"),
        host_case("port", "ssh", PORT, base=baremetal),
        host_case("port", 65536, PORT, base=baremetal),
        *(
            case(path, value, "use a whole number from", base=baremetal, shown=shown or f'"{value}"')
            for path in ("api port", "hosts worker-1 port", "backup keep", "recovery generation")
            for value, shown in (
                *((True, "true"), (8443.0, "8443.0"), (8443.5, "8443.5"), ("", ""), ("0x10", "")),
                *((" 443 ", '"443"'), ("1_023", ""), ("+443", ""), ("0443", ""), ("\uff14\u0664", "")),
            )
        ),
        host_case("user", "", "must not be empty", base=baremetal, shown='""'),
        host_case("user", "admin ", "use a login name of letters", base=baremetal, shown="admin"),
        *(
            host_case("user", user, "use a login name of letters", base=baremetal)
            for user in ("the admin", "-oProxyCommand=x", "root@host", "ädmin")
        ),
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
        host_case("key", "~/.ssh/id_locked_pem", "encrypted with a passphrase", base=baremetal),
        host_case("key", "~/.ssh/id_ed25519_pkcs8", "in OpenSSH's own form, for ssh-add", base=baremetal),
        host_case("key", "~/.ssh/id_bitcoin", "SSH takes no key of this kind", base=baremetal),
        host_case("key", "~/.ssh/id_torn", "damaged", base=baremetal),
        host_case("key", "hunter2", "not a private key", base=baremetal, shown="(secret)"),
        host_case("hostKey", LEFT_OUT, "ssh-keyscan", base=baremetal),
        host_case(
            "hostKey", f"a.example {HOST_KEY}", "without the host's name", base=baremetal, shown="a.ex"
        ),
        host_case("hostKey", HOST_KEY[:-8], "ssh-keyscan", base=baremetal, shown="ssh-ed25519 AAAA"),
        host_case("hostKey", "SHA256:abc", "ssh-keyscan", base=baremetal),
        *(
            host_case("hostKey", f"{kind} AAAA", "ssh-keyscan -t ed25519,ecdsa", base=baremetal, shown=kind)
            for kind in ("ssh-rsa", "ssh-dss", "ssh-ed25519-cert-v01@openssh.com")
        ),
        # Labels and taints
        label_case("node-role.kubernetes.io/worker", "", "may not set this label", shown="node-role."),
        label_case("kubernetes.io/x", "a", "your own domain", shown="kubernetes.io/x"),
        label_case("foo.k8s.io/x", "a", "your own domain", shown="foo.k8s.io/x"),
        label_case("node-role.kubernetes.io/control-plane", "", "host's role", shown="node-role."),
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
        case(
            "network hosts", "172.30.0.8/30", "first or last", key="hosts.controller-1.address", shown=".11"
        ),
        host_case("address", "172.30.0.0", "first or last", base=in_hosts),
        host_case("address", "172.30.0.255", "first or last", base=in_hosts),
        case("network pods", "127.64.0.0/16", "loopback, 127.0.0.0/8"),
        case("network pods", "0.0.0.0/0", "this network, 0.0.0.0/8"),
        case("network services", "239.1.0.0/16", "multicast, 224.0.0.0/4"),
        case("network services", "169.254.0.0/16", "link-local, 169.254.0.0/16"),
        case("network pods", "192.0.0.0/16", "protocol assignments, 192.0.0.0/24"),
        case("network services", "192.0.0.0/24", "protocol assignments, 192.0.0.0/24"),
        case("network domain", "Cluster_Local", "DNS name"),
        case("network domain", LONG_DOMAIN, "a DNS name of at most 230 characters", shown="a.a.a."),
        case("api port", "0", PORT),
        case("api port", 443, "kube-apiserver is not root: use a port from 1024"),
        case("api port", "2379", "etcd uses it on every controller"),
        case("api port", 30000, "among the node ports of services, 30000-32767"),
        case("api port", "32767", "among the node ports of services, 30000-32767"),
        *(
            case("flags kube-apiserver service-node-port-range", given, mend, key="api.port", shown="6443")
            for given, mend in (
                ("6000-7000", "among the node ports of services, 6000-7000"),
                ("6400+43", "among the node ports of services, 6400+43"),
                (6443, "among the node ports of services, 6443"),
            )
        ),
        *(
            case("flags kube-apiserver service-node-port-range", given, f"hosts use {used}; choose other")
            for given, used in (
                ("2000-3000", "2379 (etcd), 2380 (etcd), 2381 (etcd)"),
                ("10257-10300", "10257 (kube-controller-manager), 10259 (kube-scheduler)"),
                ("10200+50", "10248 (the kubelet), 10249 (kube-proxy), 10250 (the kubelet)"),
                (8472, "8472 (flannel's VXLAN)"),
                ("1-100", "22 (the SSH server of host controller-1)"),
            )
        ),
        *(
            case("flags kube-apiserver service-node-port-range", given, "use the first and the last port")
            for given in ("0-100", "30000-65536", "32767-30000", "30000 to 32767", "")
        ),
        host_case(
            "port",
            30022,
            "of the node ports of services, 30000-32767, hosts use 30022 (the SSH server of host worker-1)",
            base=baremetal,
            key="flags.kube-apiserver.service-node-port-range",
            shown="(not set)",
        ),
        case(
            "hosts controller-1 port", 6443, "SSH server of host controller-1", base=baremetal, key="api.port"
        ),
        *(
            case("api host", host, f"this is {kind}; use an address or a name by which all hosts")
            for host, kind in (
                ("127.0.0.1", "loopback, 127.0.0.0/8"),
                ("0.0.0.0", "this network, 0.0.0.0/8"),
                ("169.254.1.1", "link-local, 169.254.0.0/16"),
                ("224.0.0.1", "multicast, 224.0.0.0/4"),
                ("255.255.255.255", "broadcast, 255.255.255.255/32"),
                ("localhost", "every host's own name"),
                ("api.localhost", "every host's own name"),
                ("localhost.localdomain", "every host's own name"),
            )
        ),
        case("api host", "10.2.0.5", "lies in kubepivot:network.pods"),
        case("api host", "172.30.0.21", "worker worker-1 has this address, and no API server"),
        case("api host", "172.30.0.255", "first or last", base=in_hosts),
        case("api host", "https://api:6443", "without scheme and without port"),
        case("api host", "10.0.0.300", "IPv4 address or a DNS name"),
        case("mirror artifacts", "http://m", "required", key="mirror.images", shown="(not set)"),
        case("mirror artifacts", "http://10.2.3.4:8080", "lies in kubepivot:network.pods", shown="10.2.3.4"),
        case(
            "mirror images", "http://10.3.3.4/images", "lies in kubepivot:network.services", shown="10.3.3.4"
        ),
        case("mirror artifacts", "mirror:80", URL),
        case("mirror images", "ftp://m", URL),
        case("mirror images", "http://m:99999", URL),
        case("mirror images", "http://m?a=b", "without user, query and fragment"),
        case("mirror images", "http://m#a", "without user, query and fragment"),
        case("mirror images", "http://user@m", "without user, query and fragment", shown="http://***@m"),
        *(
            case("mirror images", f"http://{rest}", URL, shown=shown or f"http://{rest}")
            for rest, shown in (
                *(("", ""), ("m:0", ""), ("10.0.0.300", ""), ("-m", ""), ("m/a b", ""), ("m/$(x)", "")),
                *(
                    ("m/a/../b", ""),
                    ("m//a", ""),
                    ('m"]\n[host."http://x', "(secret)"),
                    ('m/"a', ""),
                    ("m/{a}", ""),
                ),
            )
        ),
        case("mirror artifacts", "http://m/%zz", URL),
        *(
            case("mirror artifacts", f"http://{address}:80", f"this is {kind}; use an address or a name by")
            for address, kind in (
                ("0.0.0.0", "this network, 0.0.0.0/8"),
                ("224.0.0.1", "multicast, 224.0.0.0/4"),
                ("255.255.255.255", "broadcast, 255.255.255.255/32"),
            )
        ),
        *(
            case("mirror images", f"http://m/{path}", "a path as images have it")
            for path in ("Proxy", "a%20b", "a/-b", "a:b", "v2/A")
        ),
        # The lab
        *(
            case("lab image", image, "use an image reference with a tag or a digest", shown=f'"{image}"')
            for image in ("--privileged", "", "a b:1", "kubepivot/host")
        ),
        *(
            case("lab network", network, "use the name of a container network", shown=f'"{network}"')
            for network in ("", "--privileged", "container:x", "a b")
        ),
        *(
            case("lab network", network, "the container engine's own")
            for network in ("host", "none", "bridge")
        ),
        # Flags
        flag_case("--v", "4", "without dashes in front"),
        flag_case("-v", "4", "without dashes in front"),
        flag_case("v=4", "4", "without a value"),
        flag_case("permit_port_sharing", "false", "without dashes in front"),
        flag_case("Audit", "x", "for example audit-log-maxage"),
        case("flags kube-scheduler v", ["4"], "write the flag's value as text", shown="(a list)"),
        case("flags kube-scheduler v", None, "write the flag's value as text", shown="(not set)"),
        case("flags kube-scheduler", "v=4", "write a map of keys", shown="(a single value)"),
        case(
            "flags etcd",
            {},
            "known are kube-apiserver, kube-controller-manager, kube-scheduler",
            shown="etcd",
        ),
        case("flags apiserver", {}, "did you mean kube-apiserver?", shown="apiserver"),
        # Images
        *(
            case(
                "images coredns",
                image,
                "use an image reference with a tag or a digest",
                shown=f'"{image[:80]}',
            )
            for image in (
                *("", "coredns", "a/b", "a:b:c", "a:", "A/b:1", "https://a/b:1", "a b:1", "a/b@sha256:12"),
                *(":1", "a//b:1", "-a/b:1", "a/b:1\u0660", "localhost:/a:1"),
                *("a:99999/b:1", "a.example:0/b:1", f"a:{'9' * 5000}/b:1"),
            )
        ),
        case("images coredns", 7, "in quotes, for example", shown="7"),
        case("images etcd", "a:1", "known are kube-apiserver, kube-controller", shown="etcd"),
        case("images kubeProxy", "a:1", "did you mean kube-proxy?", shown="kubeProxy"),
        # Backups
        case("backup interval", "4m59s", "use at least 5m"),
        case("backup interval", "6 hours", "for example 6h, 90m or 1d12h"),
        case("backup interval", "", "for example 6h, 90m or 1d12h", shown='""'),
        case("backup interval", "\uff15m", "for example 6h, 90m or 1d12h"),
        case("backup interval", "\u0665m", "for example 6h, 90m or 1d12h"),
        case("backup interval", 6, "in quotes"),
        case("backup maxSize", "1023Mi", "use 1Gi to 10Ti"),
        case("backup maxSize", "10GB", "for example 512Mi or 2Gi"),
        case("etcd quota", "63Mi", "use 64Mi to 8Gi"),
        case("etcd quota", "9Gi", "use 64Mi to 8Gi"),
        case("etcd quota", "2147483648", "for example 512Mi or 2Gi"),
        case("etcd quota", 2147483648, "in quotes"),
        case("backup keep", 0, "use a whole number from 1 to 1000"),
        case("backup keep", "all", "use a whole number from 1 to 1000"),
        case("backup generation", -1, "use a whole number from 0 to 1000000"),
        case("backup s3", "s3://backups", "write a map of keys", shown="(a single value)"),
        s3_case("endpoint", LEFT_OUT, "required, for example"),
        s3_case("endpoint", "s3.example.com", URL),
        s3_case("endpoint", "https://10.3.0.7:9000", "lies in kubepivot:network.services", shown="10.3.0.7"),
        s3_case("bucket", "My_Bucket", "use 3 to 63 lower-case letters"),
        s3_case("bucket", "s3://backups", "use 3 to 63 lower-case letters"),
        s3_case("prefix", "/kubernetes", "with / between but not around them"),
        s3_case("prefix", "a/../b", "with / between but not around them"),
        s3_case("region", "eu-central-1\nX=y", "use the region's name", shown="(secret)"),
        s3_case("region", "", "use the region's name", shown='""'),
        s3_case("accessKey", LEFT_OUT, "required, for example"),
        s3_case("secretKey", "hunter2\n", "without spaces and line breaks", shown="(secret)"),
        s3_case("secretKey", "", "without spaces and line breaks", shown="(secret)"),
        s3_case("encryptionKey", "hunter2", "use at least 20 letters", shown="(secret)"),
        s3_case("secret_key", "hunter2", "did you mean secretKey?", shown="secret_key"),
    ],
)
def test_an_error_names_key_value_and_mend(
    base: Callable[[], Raw], path: str, value: object, key: str, shown: str, mend: str
) -> None:
    error = errors(with_value(base(), path, value))
    found = [str(problem) for problem in error.problems if problem.key == key]
    assert any(shown in line and mend in line for line in found), str(error)
    assert str(error).splitlines()[1:] == [f"  {problem}" for problem in error.problems]


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
