"""Errors of the config of hosts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.raw_configs import HOST_KEY, LEFT_OUT, Raw, baremetal
from tests.unit.wrong_configs import (
    DNS_LABEL,
    LOCKED,
    PORT,
    WORKER,
    WRONG,
    case,
    check,
    host_case,
    label_case,
    taint_case,
)

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize(
    WRONG,
    [
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
    ],
)
def test_an_error_names_key_value_and_mend(
    base: Callable[[], Raw], path: str, value: object, key: str, shown: str, mend: str
) -> None:
    check(base, path, value, key, shown, mend)
