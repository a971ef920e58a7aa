"""The local mirror: one container with the official sites' files (HTTP) and an image registry."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from lab.cache import cache_dir, locked
from lab.debian import recipe_image
from lab.engine import docker
from lab.errors import LabError
from lab.progress import Progress

NETWORK = "kubepivot"
SUBNET = "172.30.0.0/16"
CONTAINER = "kubepivot-mirror"
ADDRESS = "172.30.0.2"
REGISTRY_PORT = 5000
LABEL = "kubepivot"
RECIPE_LABEL = "kubepivot.recipe"
START_SECONDS = 30


def files_dir() -> Path:
    """Return the directory that the mirror serves as http://172.30.0.2/, laid out as <host>/<path>."""
    return cache_dir() / "mirror" / "www"


def registry_dir() -> Path:
    """Return the directory with the registry's images."""
    return cache_dir() / "mirror" / "registry"


def ensure_network() -> None:
    """Have the Docker network that hosts and mirror share."""
    if not docker("network", "ls", "--quiet", "--filter", f"name=^{NETWORK}$"):
        try:
            docker("network", "create", "--subnet", SUBNET, "--label", LABEL, NETWORK)
        except LabError as error:
            if "overlaps" not in str(error):
                raise
            raise LabError(
                f"another network of this machine has addresses of the lab's, {SUBNET}: {error}",
                "find it with `docker network ls` or `ip route`, then remove it or give it other addresses",
            ) from error
    subnet = docker("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", NETWORK)
    if subnet != SUBNET:
        raise LabError(
            f"the Docker network {NETWORK} has the subnet {subnet}, not {SUBNET}",
            f"remove it (`docker network rm {NETWORK}`), then run again",
        )


def ensure_mirror(progress: Progress) -> None:
    """Have the mirror running on the hosts' network, its content in the cache.

    Outside of that network, this machine alone reaches the registry, at its loopback address.
    """
    with locked(cache_dir() / "mirror"):
        ensure_network()
        _ensure_container(progress)


def push_address() -> str:
    """Return where this machine writes to the registry, as address:port. A restart changes it."""
    return docker("container", "port", CONTAINER, str(REGISTRY_PORT)).splitlines()[0]


def remove_mirror() -> None:
    """End the mirror and remove the network, unless a host is still on it: another stack's.

    What it serves stays in the cache.
    """
    attached = docker("container", "ls", "--all", "--filter", f"network={NETWORK}", "--format", "{{.Names}}")
    if set(attached.split()) - {CONTAINER}:
        return
    if docker("container", "ls", "--all", "--quiet", "--filter", f"name=^{CONTAINER}$"):
        docker("rm", "--force", "--volumes", CONTAINER)
    if docker("network", "ls", "--quiet", "--filter", f"name=^{NETWORK}$"):
        docker("network", "rm", NETWORK)


def _ensure_container(progress: Progress) -> None:
    image = recipe_image("mirror", progress)
    made_of = f"{image} {files_dir()}"  # a mirror of another cache serves other files
    state = docker(
        *("container", "ls", "--all", "--filter", f"name=^{CONTAINER}$"),
        *("--format", f'{{{{.State}}}} {{{{.Label "{RECIPE_LABEL}"}}}}'),
    )
    if state == f"running {made_of}":
        return
    with progress.step("start the mirror"):
        if state:
            docker("rm", "--force", "--volumes", CONTAINER)
        for directory in (files_dir(), registry_dir()):
            directory.mkdir(parents=True, exist_ok=True)
        docker(
            *("run", "--detach", "--name", CONTAINER, "--hostname", CONTAINER, "--restart", "unless-stopped"),
            *("--label", LABEL, "--label", f"{RECIPE_LABEL}={made_of}"),
            *("--network", NETWORK, "--ip", ADDRESS, "--publish", f"127.0.0.1::{REGISTRY_PORT}"),
            *("--volume", f"{files_dir()}:/srv/www:ro", "--volume", f"{registry_dir()}:/srv/registry"),
            image,
        )
        _wait_until_serving()


def _wait_until_serving() -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            # No proxy: it has another loopback.
            httpx.get(f"http://{push_address()}/v2/", timeout=5, trust_env=False).raise_for_status()
            return
        except (httpx.HTTPError, LabError) as error:
            if time.monotonic() > deadline:
                raise LabError(
                    f"the mirror does not serve {START_SECONDS} s after its start: {error}",
                    f"see `docker logs {CONTAINER}`",
                ) from error
        time.sleep(0.05)
