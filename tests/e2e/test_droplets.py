"""Lab hosts as droplets, with real links, filters and balancers, and no cluster on them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import asyncssh
import httpx
import pytest
import yaml

from lab import hostimage, lifecycle, mirror
from lab.engine import docker
from lab.errors import LabError
from lab.progress import Progress
from tests.e2e.digitalocean.containers import Containers
from tests.e2e.digitalocean.machinery import Balancer, Check, Droplet, Forwarding, Rule
from tests.e2e.stacks import eventually

pytestmark = pytest.mark.e2e

NAME = "droplets"
VPC = "vpc-1"
ANYWHERE = ("0.0.0.0/0", "::/0")
OUTSIDER = "172.30.200.99"
RESERVED = "172.30.200.50"
METADATA = "http://169.254.169.254/metadata"
PORT = 8080

UNIT = """
[Service]
ExecStart=/usr/bin/python3 /usr/local/lib/web.py
[Install]
WantedBy=multi-user.target
"""

# A pod: a namespace behind a link of the host, with a program on port 80.
POD = """
ip netns add pod
ip link add pod type veth peer name eth0 netns pod
ip address add 10.2.0.1/24 dev pod
ip link set pod up
ip -n pod address add 10.2.0.5/24 dev eth0
ip -n pod link set eth0 up
ip -n pod route add default via 10.2.0.1
sysctl --quiet --write net.ipv4.ip_forward=1
systemd-run --quiet ip netns exec pod python3 -m http.server --directory /srv 80
"""


@dataclass(frozen=True)
class Cloud:
    """Two droplets in a VPC, and somebody outside of it."""

    machinery: Containers
    first: Droplet
    second: Droplet
    host_key: asyncssh.SSHKey
    login: asyncssh.SSHKey
    outsider: str

    def on(self, droplet: Droplet, command: str) -> str:
        return docker("exec", self.machinery.container(droplet.id), "sh", "-euc", command)

    def fetch(self, url: str, by: Droplet | None = None) -> str:
        """What a droplet, or the outsider, gets from there, and "" if it is nothing."""
        container = self.machinery.container(by.id) if by else self.outsider
        curl = f"curl --silent --insecure --noproxy '*' --max-time 2 '{url}' || true"
        return docker("exec", container, "sh", "-euc", curl)

    def web(self, address: str, by: Droplet | None = None) -> str:
        """The name of the droplet that answers."""
        return self.fetch(f"http://{address}:{PORT}/", by)

    def ssh(self, droplet: Droplet, command: str, host_key: asyncssh.SSHKey) -> str:
        return asyncio.run(self._ssh(droplet, command, host_key))

    async def _ssh(self, droplet: Droplet, command: str, host_key: asyncssh.SSHKey) -> str:
        known = asyncssh.import_known_hosts(f"{droplet.public} {host_key.export_public_key().decode()}")
        async with asyncssh.connect(
            droplet.public, username="root", client_keys=[self.login], known_hosts=known, config=None
        ) as connection:
            done = await connection.run(command, check=True, timeout=30)
        return str(done.stdout).strip()


def allow(port: int, *addresses: str) -> Rule:
    return Rule(protocol="tcp", ports=(port, port), addresses=addresses or ANYWHERE)


@pytest.fixture(scope="module")
def machinery() -> Iterator[Containers]:
    with lifecycle.machine(Progress()):
        machinery = Containers(NAME)
        machinery.remove_all()  # what a test run that was killed has left
        yield machinery
        machinery.remove_all()


@pytest.fixture(scope="module")
def cloud(machinery: Containers) -> Cloud:
    host_key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    login = asyncssh.generate_private_key("ssh-ed25519")
    web = (Path(__file__).parent / "digitalocean" / "web.py").read_text()
    files = [
        {"path": "/usr/local/lib/web.py", "content": web},
        {"path": "/etc/systemd/system/web.service", "content": UNIT},
    ]
    keys = {
        "ecdsa_private": host_key.export_private_key().decode(),
        "ecdsa_public": host_key.export_public_key().decode(),
    }
    first, second = (
        Droplet(
            id=number,
            name=f"droplet-{number}",
            region="fra1",
            public=f"172.30.200.{number}",
            private=f"10.120.0.{number}",
            vpc=VPC,
            authorized_keys=(login.export_public_key().decode(),),
            user_data=f"#cloud-config\n{yaml.safe_dump({'write_files': files, **more})}",
            tags=(),
        )
        for number, more in ((11, {"ssh_keys": keys, "ssh_deletekeys": True}), (12, {}))
    )
    machinery.make_network(VPC, "10.120.0.0/20")
    machinery.make_network(VPC, "10.120.0.0/20")
    for droplet in (first, second):
        begin = time.monotonic()
        machinery.make(droplet)
        print(f"a droplet was made in {time.monotonic() - begin:.1f} s")
        machinery.make(droplet)
    outsider = f"{NAME}-outsider"
    docker(
        *("run", "--detach", "--name", outsider, "--label", f"kubepivot.cluster={NAME}"),
        *("--network", mirror.NETWORK, "--ip", OUTSIDER, "--cap-add", "NET_ADMIN"),
        *("--entrypoint", "sleep", hostimage.IMAGE, "infinity"),
    )
    # Whatever it is told to ask, nothing that is meant for a metadata service gets to the machine's.
    docker("exec", outsider, "ip", "route", "add", "unreachable", "169.254.0.0/16")
    cloud = Cloud(machinery, first, second, host_key, login, outsider)
    for droplet in (first, second):
        cloud.on(droplet, "systemctl is-system-running --wait && systemctl enable --quiet --now web")
        eventually("web serves", 30, partial(cloud.web, droplet.private, droplet))
    print(f"both serve {time.monotonic() - begin:.1f} s after the second one's order")
    return cloud


@pytest.fixture(autouse=True)
def nothing_in_the_way(cloud: Cloud) -> None:
    """Each test begins with two droplets that run and have no firewall."""
    for droplet in (cloud.first, cloud.second):
        cloud.machinery.power(droplet.id, "on")
        cloud.machinery.set_firewall(droplet.id, None, None)
        cloud.machinery.set_reserved(droplet.id, ())


def serves(cloud: Cloud, droplet: Droplet) -> None:
    """Waits until a droplet that has booted serves again."""
    eventually(f"{droplet.name} serves", 30, lambda: cloud.web(droplet.public) == droplet.name)


def test_a_droplet_looks_like_one(cloud: Cloud) -> None:
    first = cloud.first
    assert cloud.on(first, "hostname") == first.name
    links = {link["ifname"]: link for link in json.loads(cloud.on(first, "ip -json -4 address show"))}
    addresses = {name: [each["local"] for each in links[name]["addr_info"]] for name in ("eth0", "eth1")}
    assert addresses == {"eth0": [first.public, "10.19.0.16"], "eth1": [first.private]}
    [route] = json.loads(cloud.on(first, "ip -json route show default"))
    assert route["dev"] == "eth0"
    assert cloud.on(first, "cloud-init status --wait") == "status: done"
    assert cloud.on(first, "systemctl --failed --no-legend") == ""
    assert cloud.web(cloud.second.private, first) == cloud.second.name


def test_the_first_connection_is_pinned_to_the_key_in_the_user_data(cloud: Cloud) -> None:
    assert cloud.ssh(cloud.first, "hostname", cloud.host_key) == cloud.first.name
    assert cloud.on(cloud.first, "ls /etc/ssh/ssh_host_*_key") == "/etc/ssh/ssh_host_ecdsa_key"
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        cloud.ssh(cloud.first, "true", asyncssh.generate_private_key("ecdsa-sha2-nistp256"))
    made = cloud.on(cloud.second, "ls /etc/ssh/ssh_host_*_key").split()
    assert made == [f"/etc/ssh/ssh_host_{kind}_key" for kind in ("ecdsa", "ed25519", "rsa")]


def test_metadata_answers_the_droplet_and_its_pods_and_nobody_else(cloud: Cloud) -> None:
    first = cloud.first
    cloud.machinery.set_firewall(first.id, [], [])
    assert cloud.fetch(f"{METADATA}/v1/id", first) == str(first.id)
    assert cloud.fetch(f"{METADATA}/v1/hostname", first) == first.name
    assert cloud.fetch(f"{METADATA}/v1/user-data", first) == first.user_data.strip()
    assert cloud.fetch(f"{METADATA}/v1/interfaces/private/0/ipv4/address", first) == first.private
    assert cloud.fetch(f"{METADATA}/v1/interfaces/public/0/ipv4/netmask", first) == "255.255.0.0"
    mac = cloud.on(first, "cat /sys/class/net/eth1/address")
    document = json.loads(cloud.fetch(f"{METADATA}/v1.json", first))
    assert document["interfaces"]["private"][0]["mac"] == mac
    status = "curl --silent --output /dev/null --write-out '%{http_code}' --max-time 2"
    assert cloud.on(first, f"{status} {METADATA}/v1") == "301"
    assert cloud.on(first, f"{status} {METADATA}/v1/nothing") == "404"
    cloud.on(first, POD)
    pod = f"ip netns exec pod curl --silent --fail --max-time 2 {METADATA}/v1/region"
    assert cloud.on(first, pod) == "fra1"
    cloud.machinery.set_firewall(first.id, None, None)
    docker("exec", cloud.outsider, "ip", "route", "add", "169.254.169.254", "via", first.public)
    assert cloud.fetch(f"{METADATA}/v1/id") == ""
    docker("exec", cloud.outsider, "ip", "route", "delete", "169.254.169.254")
    cloud.on(first, "ip link delete metadata")
    lost = "! ip route get 169.254.169.254 2>&1"
    assert cloud.on(first, lost) == "RTNETLINK answers: No route to host"
    cloud.machinery.power(first.id, "cycle")
    assert cloud.fetch(f"{METADATA}/v1/id", first) == str(first.id)
    serves(cloud, first)


def test_a_firewall_lets_through_what_a_rule_allows(cloud: Cloud) -> None:
    first, second = cloud.first, cloud.second
    others = "nft list ruleset | sed '/^table inet cloud_firewall {$/,/^}/d'"
    rest = cloud.on(first, others)
    assert rest.startswith("table "), "the engine's, for names"
    assert cloud.web(first.public) == cloud.web(first.private, second) == first.name
    cloud.machinery.set_firewall(first.id, [allow(22)], [allow(PORT, second.private)])
    assert cloud.ssh(first, "hostname", cloud.host_key) == first.name
    assert (
        cloud.web(first.public) == cloud.web(first.public, second) == cloud.web(first.private, second) == ""
    )
    assert cloud.web(first.public, first) == first.name, "its own packets don't come by wire"
    assert cloud.web(second.private, first) == second.name
    assert cloud.web(second.public, first) == "", "outbound"
    cloud.machinery.set_firewall(first.id, [allow(PORT, second.private)], [])
    assert cloud.web(first.public) == ""
    assert cloud.web(first.private, second) == first.name
    assert cloud.web(second.private, first) == ""
    assert cloud.on(first, others) == rest, "no other table is touched"


def test_a_connection_outlives_a_change_of_the_firewall(cloud: Cloud) -> None:
    first = cloud.first
    with httpx.Client(base_url=f"http://{first.public}:{PORT}", trust_env=False, timeout=2) as client:
        assert client.get("/").text == first.name
        [connection] = client._transport._pool.connections  # type: ignore[attr-defined]
        for inbound in ([allow(22)], [allow(22), allow(PORT)], None):
            cloud.machinery.set_firewall(first.id, inbound, inbound)
            assert client.get("/").text == first.name
            assert client._transport._pool.connections == [connection]  # type: ignore[attr-defined]


def test_packets_are_judged_as_they_are_on_the_wire(cloud: Cloud) -> None:
    first = cloud.first
    cloud.on(first, POD)
    cloud.on(
        first,
        "nft add table ip nodeport;"
        "nft 'add chain ip nodeport to { type nat hook prerouting priority dstnat; }';"
        "nft 'add chain ip nodeport from { type nat hook postrouting priority srcnat; }';"
        "nft add rule ip nodeport to tcp dport 30080 dnat to 10.2.0.5:80;"
        "nft add rule ip nodeport from ip saddr 10.2.0.0/24 oifname eth0 masquerade",
    )
    node_port = f"http://{first.public}:30080/"
    eventually("the pod serves", 10, lambda: cloud.fetch(node_port))
    docker("exec", cloud.outsider, "ip", "route", "add", "10.2.0.0/24", "via", first.public)
    assert cloud.fetch("http://10.2.0.5/")
    cloud.machinery.set_firewall(first.id, [allow(80)], None)
    assert cloud.fetch(node_port) == ""
    assert cloud.fetch("http://10.2.0.5/")
    cloud.machinery.set_firewall(first.id, [allow(30080)], None)
    assert cloud.fetch(node_port)
    assert cloud.fetch("http://10.2.0.5/") == ""
    leaves = f"ip netns exec pod curl --silent --max-time 2 http://{cloud.second.public}:{PORT}/ || true"
    assert cloud.on(first, leaves) == cloud.second.name
    cloud.machinery.set_firewall(first.id, None, [allow(22)])
    assert cloud.on(first, leaves) == ""
    cloud.machinery.set_firewall(first.id, None, [allow(PORT, cloud.second.public)])
    assert cloud.on(first, leaves) == cloud.second.name
    assert "nodeport" in cloud.on(first, "nft list tables")
    docker("exec", cloud.outsider, "ip", "route", "delete", "10.2.0.0/24")


@pytest.mark.parametrize("action", ["off", "cycle", "reboot", "shutdown"])
def test_power_actions_keep_all_that_stands_around_a_droplet(cloud: Cloud, action: str) -> None:
    first, machinery = cloud.first, cloud.machinery
    machinery.set_firewall(first.id, [allow(22, "172.30.0.1"), allow(PORT, OUTSIDER)], None)
    machinery.set_reserved(first.id, [RESERVED])
    boot = cloud.on(first, "echo kept > /var/kept; cat /etc/machine-id")
    begin = time.monotonic()
    match action:
        case "shutdown":
            docker("exec", machinery.container(first.id), "systemctl", "poweroff")
            eventually("it is off", 30, lambda: not machinery.is_running(first.id))
        case "off":
            machinery.power(first.id, "off")
            assert not machinery.is_running(first.id)
            assert cloud.web(first.public) == ""
            # What is changed meanwhile counts from the next boot on.
            machinery.set_firewall(first.id, [allow(22, "172.30.0.1"), allow(PORT, OUTSIDER)], None)
        case "cycle" | "reboot":
            machinery.power(first.id, action)
    machinery.power(first.id, "on")
    print(f"{action}: booting after {time.monotonic() - begin:.1f} s")
    assert machinery.is_running(first.id)
    serves(cloud, first)
    print(f"{action}: serves after {time.monotonic() - begin:.1f} s")
    assert cloud.web(RESERVED) == first.name
    assert cloud.web(first.private, cloud.second) == ""
    assert cloud.fetch(f"{METADATA}/v1/id", first) == str(first.id)
    assert cloud.ssh(first, "cat /etc/machine-id", cloud.host_key) == boot
    assert cloud.on(first, "cat /var/kept") == "kept"
    assert cloud.on(first, "ls /etc/ssh/ssh_host_*_key") == "/etc/ssh/ssh_host_ecdsa_key"


def test_a_reserved_address_moves_at_once(cloud: Cloud) -> None:
    def by_machine() -> str:
        return httpx.get(f"http://{RESERVED}:{PORT}/", timeout=1, trust_env=False).text

    for droplet, other in ((cloud.first, cloud.second), (cloud.second, cloud.first)) * 2:
        cloud.machinery.set_reserved(other.id, ())
        cloud.machinery.set_reserved(droplet.id, [RESERVED])
        assert cloud.web(RESERVED) == by_machine() == droplet.name
        cloud.machinery.set_reserved(droplet.id, [RESERVED])
    cloud.machinery.set_reserved(cloud.first.id, ())
    cloud.machinery.set_reserved(cloud.second.id, ())
    assert cloud.web(RESERVED) == ""


BALANCER = Balancer(
    id="lb",
    public="172.30.200.60",
    vpc=VPC,
    forwarding=(Forwarding(port=6443, target=6443), Forwarding(port=80, target=PORT)),
    check=Check(protocol="https", port=6443, path="/readyz", interval=1, timeout=1, healthy=2, unhealthy=2),
    backends={},
    allowed=(),
)


def test_a_balancer_sends_connections_to_who_is_ready(cloud: Cloud) -> None:
    machinery, both = cloud.machinery, {cloud.first.id, cloud.second.id}

    def balancer(*droplets: Droplet, allowed: tuple[str, ...] = ()) -> Balancer:
        backends = {each.id: each.private for each in droplets}
        return replace(BALANCER, backends=backends, allowed=allowed)

    def healthy(expected: set[int]) -> Callable[[], bool]:
        return lambda: machinery.healthy(BALANCER.id) == expected

    url = f"https://{BALANCER.public}:6443/"
    begin = time.monotonic()
    machinery.set_balancer(balancer(cloud.first))
    print(f"the balancer was made in {time.monotonic() - begin:.1f} s")
    assert machinery.healthy(BALANCER.id) == set(), "new ones are down"
    source = machinery.private_address(BALANCER.id)
    cloud.machinery.set_firewall(cloud.first.id, [allow(6443, source), allow(PORT, source)], None)
    eventually("the first is healthy", 10, healthy({cloud.first.id}))
    assert cloud.fetch(url) == cloud.fetch(f"http://{BALANCER.public}/") == cloud.first.name

    with closing(HTTPConnection(BALANCER.public, 80, timeout=5)) as held:
        held.connect()
        held.auto_open = 0  # it is this connection that lasts

        def answer() -> str:
            held.request("GET", "/")
            return held.getresponse().read().decode()

        assert answer() == cloud.first.name
        machinery.set_balancer(balancer(cloud.first, cloud.second))
        assert machinery.healthy(BALANCER.id) == {cloud.first.id}
        eventually("both are healthy", 10, healthy(both))
        assert {cloud.fetch(url) for _ in range(4)} == {cloud.first.name, cloud.second.name}
        machinery.set_balancer(balancer(cloud.first, cloud.second))
        assert machinery.healthy(BALANCER.id) == both
        assert answer() == cloud.first.name

    busy = "pids=$(pidof haproxy); kill -STOP $pids; (sleep 1; kill -CONT $pids) > /dev/null 2>&1 &"
    docker("exec", f"{NAME}-balancer-{BALANCER.id}", "sh", "-euc", busy)
    assert machinery.healthy(BALANCER.id) == both, "a slow answer is waited for"

    cloud.on(cloud.first, "touch /run/unready")
    eventually("the unready one is out", 10, healthy({cloud.second.id}))
    assert {cloud.fetch(url) for _ in range(4)} == {cloud.second.name}
    cloud.on(cloud.first, "rm /run/unready")
    eventually("it is back", 10, healthy(both))

    machinery.set_balancer(balancer(cloud.first, cloud.second, allowed=("172.30.0.1/32",)))
    assert cloud.fetch(url) == ""
    assert httpx.get(f"http://{BALANCER.public}/", trust_env=False, timeout=2).is_success
    machinery.remove_balancer(BALANCER.id)
    machinery.remove_balancer(BALANCER.id)
    assert cloud.fetch(url) == ""


def test_an_order_that_fails_leaves_nothing(cloud: Cloud) -> None:
    taken = replace(cloud.first, id=13, private="10.120.0.13")
    with pytest.raises(LabError, match="Address already in use"):
        cloud.machinery.make(taken)
    with pytest.raises(ValueError, match="runcmd"):
        cloud.machinery.make(replace(taken, user_data="#cloud-config\nruncmd: [reboot]\n"))
    name = cloud.machinery.container(taken.id)
    assert docker("container", "ls", "--all", "--quiet", "--filter", f"name=^{name}$") == ""


def test_removing_all_leaves_nothing(cloud: Cloud) -> None:
    names = [cloud.machinery.container(each.id) for each in (cloud.first, cloud.second)]
    form = '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}'
    volumes = docker("container", "inspect", "--format", form, *names).split()
    assert volumes
    cloud.machinery.remove(cloud.second.id)
    cloud.machinery.remove(cloud.second.id)
    cloud.machinery.remove_all()
    label = ("--all", "--quiet", "--filter", f"label=kubepivot.cluster={NAME}")
    assert docker("container", "ls", *label) == ""
    assert docker("network", "ls", *label[1:]) == ""
    assert not {*volumes} & {*docker("volume", "ls", "--quiet").split()}
    cloud.machinery.remove_all()
