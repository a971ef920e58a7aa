"""An account at the imitation with droplets that are real, and stacks that know of it as a user's do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx

from lab import hostimage, mirror
from lab.engine import docker
from tests.e2e.digitalocean.account import Delays, Droplet
from tests.e2e.digitalocean.containers import Containers
from tests.e2e.digitalocean.server import Api
from tests.e2e.stacks import MIRROR, Checkout, Stack, eventually

__all__ = ["Cloud", "droplets_config", "on_droplets"]

TOKEN = "dop_v1_of_the_scenarios"
# Where this machine's own connections to the lab's network come from.
ADMIN = "172.30.0.1/32"
REGION = "fra1"
ACTION_SECONDS = 60


class Cloud:
    """The account of a scenario, empty but for the default VPC that a region has."""

    def __init__(self, name: str, api: Api, machinery: Containers) -> None:
        self._name, self.api, self._machinery = name, api, machinery

    @classmethod
    @contextmanager
    def of(
        cls,
        checkout: Checkout,
        name: str,
        subnet: int,
        *,
        reserved_addresses: Sequence[str] = (),
        delays: Delays | None = None,
    ) -> Iterator[Cloud]:
        """One whose public addresses are the upper half of 172.30.<subnet>.0/24, and which the checkout's
        stacks use from then on.
        """
        machinery = Containers(name)
        machinery.remove_all()  # what a test run that was killed has left
        try:
            with Api(
                machinery,
                token=TOKEN,
                public_network=f"172.30.{subnet}.128/25",
                reserved_addresses=reserved_addresses,
                # Of two accounts at a time each has its own: the engine makes no two networks of one range.
                generated_vpcs=f"10.{96 + subnet // 16}.{subnet % 16 * 16}.0/20",
                default_vpcs=[REGION],
                delays=delays,
            ) as api:
                checkout.environment |= {"DIGITALOCEAN_TOKEN": TOKEN, "DIGITALOCEAN_API_URL": api.endpoint}
                yield cls(name, api, machinery)
        finally:
            machinery.remove_all()

    @classmethod
    def of_lab(
        cls, checkout: Checkout, name: str, config: Mapping[str, Any]
    ) -> AbstractContextManager[Cloud]:
        """One for a cluster of the name: `on_droplets` of a lab's config has its API where the lab has it."""
        return cls.of(checkout, name, _subnet(config), reserved_addresses=[_controller(config)])

    def ids(self, name: str) -> list[int]:
        """The droplets of a name."""
        with self.api.account.lock:
            return [each.id for each in self.api.account.droplets.values() if each.name == name]

    def container(self, name: str) -> str:
        """The container that is the only droplet of a name."""
        (droplet,) = self.ids(name)
        return self._machinery.container(droplet)

    def on(self, name: str, command: str) -> str:
        """What root gets to see on a droplet."""
        return docker("exec", self.container(name), "sh", "-euc", command)

    def public(self, name: str) -> str:
        """The public address of the only droplet of a name."""
        return self._droplet(name).public

    def private(self, name: str) -> str:
        """Its address in the VPC."""
        return self._droplet(name).private

    def _droplet(self, name: str) -> Droplet:
        (droplet,) = self.ids(name)
        with self.api.account.lock:
            return self.api.account.droplets[droplet]

    def act(self, name: str, kind: str) -> None:
        """Does what a person does in the control panel, and waits until it is done."""
        (droplet,) = self.ids(name)
        with self._client() as client:
            path = f"/v2/droplets/{droplet}/actions"
            action = client.post(path, json={"type": kind}).raise_for_status().json()["action"]["id"]

            def done() -> bool:
                found = client.get(f"/v2/actions/{action}").raise_for_status().json()["action"]
                return bool(found["completed_at"])

            eventually(f"{kind} of {name}", ACTION_SECONDS, done)

    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=self.api.endpoint, headers=headers, trust_env=False)

    def outsider(self, address: str) -> str:
        """A machine on the public network that no firewall knows."""
        name = f"{self._name}-outsider"
        docker(
            *("run", "--detach", "--name", name, "--label", f"kubepivot.cluster={self._name}"),
            *("--network", mirror.NETWORK, "--ip", address),
            *("--entrypoint", "sleep", hostimage.IMAGE, "infinity"),
        )
        return name

    def connects(self, address: str, port: int, container: str = "") -> bool:
        """Whether a connection can be opened, from this machine or from a container."""
        ask = f"import socket; socket.create_connection(({address!r}, {port}), 2).close()"
        inside = ["docker", "exec", container] if container else []
        done = subprocess.run([*inside, "python3", "-c", ask], capture_output=True, text=True, timeout=30)
        known = ("TimeoutError", "ConnectionRefusedError", "timed out")
        assert done.returncode == 0 or any(each in done.stderr for each in known), done.stderr
        return done.returncode == 0

    def healthy(self) -> set[str]:
        """The names of the droplets to which the only balancer passes connections."""
        with self.api.account.lock:
            (balancer,) = self.api.account.balancers
            names = {each.id: each.name for each in self.api.account.droplets.values()}
        return {names[each] for each in self._machinery.healthy(balancer)}

    def has_one_of_everything(self, stack: Stack) -> None:
        """What the API has is what the state has, and nothing twice."""
        kinds = {
            "Droplet": "droplets",
            "Firewall": "firewalls",
            "LoadBalancer": "load_balancers",
            "ReservedIp": "reserved_ips",
            "SshKey": "ssh_keys",
            "Tag": "tags",
            "Vpc": "vpcs",
        }
        known: dict[str, int] = {}
        for resource in stack.state().values():
            kind = resource["type"].rpartition(":")[2]
            if resource["type"].startswith("digitalocean:") and kind in kinds:
                known[kinds[kind]] = known.get(kinds[kind], 0) + 1
        there = self.api.everything()
        there["tags"] = [tag for tag in there.get("tags", ()) if tag.startswith(f"{stack.name}-")]
        assert {noun: len(names) for noun, names in there.items()} == known, there


def droplets_config(vpc: int, *, workers: int = 1, **section: Any) -> dict[str, Any]:
    """One controller and workers, in 10.<vpc>.0.0/20, which this machine reaches."""
    hosts: dict[str, dict[str, Any]] = {"controller-1": {"role": "controller"}}
    for number in range(workers):
        hosts[f"worker-{number + 1}"] = {"role": "worker", "size": "s-2vcpu-2gb"}
    return {
        "platform": "digitalocean",
        "digitalOcean": {**_section(vpc), **section},
        "hosts": hosts,
        "mirror": MIRROR,
        "pki": {"protect": False},
    }


def on_droplets(config: Mapping[str, Any]) -> dict[str, Any]:
    """A lab's config for droplets: all the same but for what is made for them, as their addresses are."""
    hosts = {name: _without(host, "address") for name, host in config["hosts"].items()}
    return {
        **config,
        "platform": "digitalocean",
        "digitalOcean": _section(150 + _subnet(config)),
        "hosts": hosts,
        "network": _without(config["network"], "hosts"),
    }


def _section(vpc: int) -> dict[str, Any]:
    return {"region": REGION, "adminCidrs": [ADMIN], "vpcCidr": f"10.{vpc}.0.0/20", "protect": False}


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _controller(config: Mapping[str, Any]) -> str:
    """The address of a lab's only controller."""
    (address,) = [host["address"] for host in config["hosts"].values() if host["role"] == "controller"]
    return str(address)


def _subnet(config: Mapping[str, Any]) -> int:
    return int(_controller(config).split(".")[2])
