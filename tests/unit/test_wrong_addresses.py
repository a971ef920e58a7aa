"""Errors of the config of addresses and ports, and of the lab that has them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.raw_configs import Raw, baremetal
from tests.unit.wrong_configs import (
    CIDR,
    LONG_DOMAIN,
    PORT,
    URL,
    WRONG,
    case,
    check,
    host_case,
    in_hosts,
)

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize(
    WRONG,
    [
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
    ],
)
def test_an_error_names_key_value_and_mend(
    base: Callable[[], Raw], path: str, value: object, key: str, shown: str, mend: str
) -> None:
    check(base, path, value, key, shown, mend)
