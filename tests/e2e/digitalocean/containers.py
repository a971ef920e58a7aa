"""Lab hosts as droplets: containers on this machine, with the links, filters and services of a cloud."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Literal

from components.archive import File, pack
from components.hosts.lab import RUN_OPTIONS
from lab import hostimage, mirror
from lab.debian import recipe_image
from lab.engine import docker
from lab.errors import LabError
from lab.progress import Progress
from tests.e2e.digitalocean import haproxy, nftables
from tests.e2e.digitalocean.cloudinit import CloudConfig, first_boot_files
from tests.e2e.digitalocean.machinery import Balancer, Droplet, Machinery, Rule

__all__ = ["Containers"]

DEADLINE = 60.0
PROGRAMS = Path(__file__).with_name("droplet")

# The region's network for anchor addresses, by which reserved addresses reach a real droplet.
ANCHORS = IPv4Network("10.19.0.0/16")


class Containers(Machinery):
    """Makes droplets, VPCs and balancers on this machine, which has to be ready for lab hosts.

    A droplet is a container of the host image: eth0 has the public address, on the lab's Docker network, and
    eth1 the private one, on a Docker network per VPC. The last quarter of a VPC is for balancers, and its
    first address is the machine's. A balancer is a container with HAProxy; its image is made if need be.
    All carry `prefix` in their names and as the label of a cluster. The container of a droplet `<prefix>-…`
    has the droplet's name, as a lab host's has. Errors are LabError.
    """

    def __init__(self, prefix: str, *, image: str = hostimage.IMAGE, network: str = mirror.NETWORK) -> None:
        self._prefix, self._image, self._public = prefix, image, network
        self._label = f"kubepivot.cluster={prefix}"
        self._balancer_image = recipe_image("balancer", Progress())
        self._locks: dict[str, threading.Lock] = {}
        self._named: dict[int, str] = {}
        self._naming = threading.Lock()

    def remove_all(self) -> None:
        """Removes everything with this prefix, also what an earlier run left."""
        label = ("--filter", f"label={self._label}")
        if containers := docker("container", "ls", "--all", "--quiet", *label):
            docker("container", "rm", "--force", "--volumes", *containers.split())
        if networks := docker("network", "ls", "--quiet", *label):
            docker("network", "rm", *networks.split())

    def container(self, droplet: int) -> str:
        """The name of a droplet's container."""
        return self._named.get(droplet, f"{self._prefix}-droplet-{droplet}")

    def private_address(self, balancer: str) -> str:
        """The address in its VPC from which a balancer connects to droplets."""
        networks = json.loads(_inspect(self._balancer(balancer), "{{json .NetworkSettings.Networks}}"))
        [address] = [each["IPAddress"] for name, each in networks.items() if name != self._public]
        return str(address)

    def make_network(self, vpc: str, ip_range: str) -> None:
        name = self._network(vpc)
        if docker("network", "ls", "--quiet", "--filter", f"name=^{name}$"):
            return
        dynamic = [*IPv4Network(ip_range).subnets(prefixlen_diff=2)][-1]
        docker(
            *("network", "create", "--internal", "--label", self._label),
            *("--subnet", ip_range, "--ip-range", str(dynamic), name),
        )

    def remove_network(self, vpc: str) -> None:
        if docker("network", "ls", "--quiet", "--filter", f"name=^{self._network(vpc)}$"):
            docker("network", "rm", self._network(vpc))

    def make(self, droplet: Droplet) -> None:
        name = self._name(droplet)
        with self._lock(name):
            if not _exists(name):
                config = CloudConfig.parse(droplet.user_data)
                files = {
                    **_programs(),
                    **first_boot_files(config, droplet.authorized_keys),
                    **self._surroundings(droplet),
                }
                self._create(
                    *(name, droplet.public, droplet.vpc, droplet.private),
                    *("--hostname", droplet.name, *shlex.split(RUN_OPTIONS)),
                    *("--entrypoint", "/etc/droplet/boot", self._image),
                    files=files,
                )
            _wait_until_booted(name)

    def power(self, droplet: int, action: Literal["on", "off", "cycle", "reboot"]) -> None:
        name = self.container(droplet)
        with self._lock(name):
            match action:
                case "reboot" if _running(name):
                    docker("restart", name)
                case "off" | "cycle" if _running(name):
                    docker("kill", name)
            if action in ("on", "cycle"):
                docker("start", name)
            if _running(name):
                _wait_until_booted(name)

    def is_running(self, droplet: int) -> bool:
        return _running(self.container(droplet))

    def remove(self, droplet: int) -> None:
        self._remove(self.container(droplet))
        with self._naming:
            self._named.pop(droplet, None)

    def set_firewall(
        self, droplet: int, inbound: Sequence[Rule] | None, outbound: Sequence[Rule] | None
    ) -> None:
        files = {"/etc/droplet/firewall.nft": File(nftables.ruleset(inbound, outbound))}
        self._change(droplet, files, "nft", "-f", "/etc/droplet/firewall.nft")

    def set_reserved(self, droplet: int, addresses: Collection[str]) -> None:
        files = {"/etc/droplet/reserved": File("".join(f"{address}\n" for address in addresses))}
        self._change(droplet, files, "python3", "/etc/droplet/reserved.py")

    def set_balancer(self, balancer: Balancer) -> None:
        name = self._balancer(balancer.id)
        with self._lock(name):
            version = hashlib.sha256(repr(balancer).encode()).hexdigest()[:16]
            exists = _exists(name)
            shown = _ask(name, "show servers state") if exists else ""
            files = {
                "/etc/haproxy/haproxy.cfg": File(haproxy.configuration(balancer, version), mode=0o600),
                haproxy.STATE: File(haproxy.server_state(balancer, shown), mode=0o600),
            }
            if exists:
                _put(name, files)
                docker("kill", "--signal", "USR2", name)
            else:
                self._create(name, balancer.public, balancer.vpc, "", self._balancer_image, files=files)
            _wait_until(name, lambda: haproxy.description(_ask(name, "show info")) == version)

    def remove_balancer(self, balancer: str) -> None:
        self._remove(self._balancer(balancer))

    def healthy(self, balancer: str) -> set[int]:
        return haproxy.up(_ask(self._balancer(balancer), "show stat"))

    def _name(self, droplet: Droplet) -> str:
        """Names the container. Droplets may have equal names: the first one has it."""
        with self._naming:
            free = droplet.name not in self._named.values() and not _exists(droplet.name)
            if free and droplet.id not in self._named and droplet.name.startswith(f"{self._prefix}-"):
                self._named[droplet.id] = droplet.name
        return self.container(droplet.id)

    def _balancer(self, balancer: str) -> str:
        return f"{self._prefix}-balancer-{balancer}"

    def _network(self, vpc: str) -> str:
        # Engines name a container's links in the order of its networks' names: eth0 is the public one.
        return f"{self._public}-{self._prefix}-vpc-{vpc}"

    def _lock(self, name: str) -> threading.Lock:
        return self._locks.setdefault(name, threading.Lock())

    def _create(
        self, name: str, public: str, vpc: str, private: str, *options: str, files: Mapping[str, File]
    ) -> None:
        """Starts a container on both networks with these files in it, or leaves none."""
        address = ("--ip", private) if private else ()
        try:
            docker(
                *("create", "--name", name, "--label", self._label),
                *("--network", self._public, "--ip", public, *options),
            )
            docker("network", "connect", *address, self._network(vpc), name)
            _put(name, files)
            docker("start", name)
        except BaseException:
            self._remove(name)
            raise

    def _remove(self, name: str) -> None:
        if _exists(name):
            docker("container", "rm", "--force", "--volumes", name)

    def _change(self, droplet: int, files: Mapping[str, File], *command: str) -> None:
        """Places files that the next boot reads, and runs what reads them if the droplet is on."""
        name = self.container(droplet)
        with self._lock(name):
            _put(name, files)
            try:
                docker("exec", name, *command)
            except LabError:
                if _running(name):
                    raise

    def _surroundings(self, droplet: Droplet) -> dict[str, File]:
        """What a droplet is told of itself; firewall and reserved addresses come later."""
        anchor = ANCHORS[5 + droplet.id % (ANCHORS.num_addresses - 10)]
        addresses = {"public": droplet.public, "private": droplet.private, "anchor": str(anchor)}
        lines = [f"{name}={shlex.quote(address)}\n" for name, address in addresses.items()]
        return {
            "/etc/droplet/addresses": File("".join(lines)),
            "/etc/droplet/firewall.nft": File(nftables.ruleset(None, None)),
            "/etc/droplet/reserved": File(""),
            "/etc/droplet/metadata.json": File(json.dumps(self._metadata(droplet, anchor)), mode=0o600),
        }

    def _metadata(self, droplet: Droplet, anchor: IPv4Address) -> dict[str, Any]:
        private = _address(droplet.private, _subnet(self._network(droplet.vpc)))
        public = _address(droplet.public, _subnet(self._public))
        user_data = {"user_data": droplet.user_data} if droplet.user_data else {}
        return {
            "droplet_id": droplet.id,
            "hostname": droplet.name,
            **user_data,
            "public_keys": [key.strip() for key in droplet.authorized_keys],
            "region": droplet.region,
            "interfaces": {
                "private": [{"ipv4": private, "type": "private"}],
                "public": [{"ipv4": public, "anchor_ipv4": _address(str(anchor), ANCHORS), "type": "public"}],
            },
        }


def _programs() -> dict[str, File]:
    """The programs of a droplet, and settings of sshd other than the host image's."""
    text = {path.name: path.read_text() for path in PROGRAMS.iterdir() if path.is_file()}
    return {
        "/etc/droplet/boot": File(text["boot"], mode=0o755),
        "/etc/droplet/metadata.py": File(text["metadata.py"]),
        "/etc/droplet/reserved.py": File(text["reserved.py"]),
        "/usr/bin/cloud-init": File(text["cloud-init"], mode=0o755),
        "/etc/ssh/sshd_config.d/kubepivot.conf": File(text["sshd.conf"]),
        "/etc/systemd/system/ssh.service.d/kubepivot.conf": File(text["ssh.service.conf"]),
    }


def _address(address: str, network: IPv4Network) -> dict[str, str]:
    return {"ip_address": address, "netmask": str(network.netmask), "gateway": str(network[1])}


def _subnet(network: str) -> IPv4Network:
    form = "{{range .IPAM.Config}}{{.Subnet}}{{end}}"
    return IPv4Network(docker("network", "inspect", "--format", form, network))


def _exists(name: str) -> bool:
    return bool(docker("container", "ls", "--all", "--quiet", "--filter", f"name=^{name}$"))


def _inspect(name: str, form: str) -> str:
    return docker("container", "inspect", "--format", form, name)


def _running(name: str) -> bool:
    return _inspect(name, "{{.State.Running}}") == "true"


def _put(name: str, files: Mapping[str, File]) -> None:
    docker("cp", "-", f"{name}:/", input=pack(files, compress=False))


def _ask(name: str, command: str) -> str:
    """HAProxy's answer on its socket. LabError if it gave none, as when it ends for a reload."""
    # Of itself socat waits for half a second, and says that all went well.
    socat = ("socat", f"-t{DEADLINE:.0f}", "-", haproxy.SOCKET)
    answer = docker("exec", "--interactive", name, *socat, input=f"{command}\n".encode())
    if not answer:
        raise LabError(f"HAProxy in {name} did not answer {command!r}", f"see `docker logs {name}`")
    return answer


def _wait_until_booted(name: str) -> None:
    """Returns when all that stands around the droplet is there, and its own init begins."""
    _wait_until(name, lambda: docker("exec", name, "cat", "/proc/1/comm") == "systemd")


def _wait_until(name: str, ready: Callable[[], bool]) -> None:
    """Polls while the container runs; a LabError counts as not yet."""
    deadline = time.monotonic() + DEADLINE
    while True:
        problem = None
        try:
            if ready():
                return
        except LabError as error:
            problem = error
        if time.monotonic() > deadline or not _running(name):
            raise LabError(
                f"the container {name} was not ready within {DEADLINE:.0f} s, or ended:\n{_log(name)}",
                f"see `docker logs {name}`",
            ) from problem
        time.sleep(0.05)


def _log(name: str) -> str:
    command = ["docker", "logs", "--tail", "20", name]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE, check=True
    ).stdout
