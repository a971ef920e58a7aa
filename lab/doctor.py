"""What this machine has, what `up` would download or build, and what is in its way. Changes nothing."""

from __future__ import annotations

import gzip
import ipaddress
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import apt, artifacts, pins, provider_plugins, toolchain
from lab.cache import cache_dir
from lab.engine import EngineState, can_pull, docker, engine_state
from lab.images import IMAGES
from lab.mirror import NETWORK, SUBNET
from lab.toolchain.download import Sites
from lab.toolchain.gotoolchain import find_go, module_proxy
from lab.toolchain.tools import BUNDLES, PLUGINS, Bundle

PROC = Path("/proc")
SYS_MODULE = Path("/sys/module")
MODULES = Path("/lib/modules")

GB = 1 << 30
BUILD_GB = 20  # the Go caches alone take 8
DISK_GB = 5  # for images and hosts
MEMORY_GB = 4
KERNEL_FEATURES = {
    "overlay": "OVERLAY_FS",
    "br_netfilter": "BRIDGE_NETFILTER",
    "nf_tables": "NF_TABLES",
    "vxlan": "VXLAN",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. With a `mend` it is wrong, and `up` would fail on it."""

    topic: str
    text: str
    mend: str = ""


def report(sites: Sites = toolchain.SITES) -> int:
    """Print every finding; return 1 if something is wrong, else 0."""
    wrong = 0
    for finding in examine(sites):
        print(f"{'✗' if finding.mend else '✓'} {finding.topic:<26} {finding.text}")
        if finding.mend:
            wrong += 1
            print(f"  {'mend:':<26} {finding.mend}")
    print(f"\n{wrong} to mend" if wrong else "\nnothing is in the way of `make up`")
    return 1 if wrong else 0


def examine(sites: Sites) -> Iterator[Finding]:
    """Look at everything that `up` needs, cheapest first."""
    yield _python()
    yield _memory()
    yield from _kernel()
    engine = engine_state()
    yield _engine(engine)
    yield _addresses(engine)
    to_build = []
    for bundle in BUNDLES:
        source = toolchain.source(bundle, sites=sites)
        yield Finding(topic=bundle.name, text=f"{bundle.version} {_WAYS[source]}")
        if source == "build":
            to_build.append(bundle)
    for name, version in pins.PLUGINS.items():
        way = provider_plugins.plugin_source(name, sites=sites)
        yield Finding(topic=f"plugin {name}", text=f"{version} {_WAYS[way]}")
        if way == "build":
            to_build.append(PLUGINS[name])
    yield _disk(BUILD_GB if to_build else DISK_GB)
    if to_build:
        yield from _building(to_build, sites)
    if not can_pull("docker.io"):
        yield _command("mmdebstrap", "install it (a package of most distributions)")
    for artifact in artifacts.ARTIFACTS:
        state = "in the mirror" if artifacts.is_ready(artifact) else "would be put into the mirror"
        yield Finding(topic=f"file {artifact.bundle.name}", text=state)
    for registry in sorted({image.registry for image in IMAGES}):
        text = "reachable" if can_pull(registry) else "not reachable: images would be made of the binaries"
        yield Finding(topic=registry, text=text)


_WAYS = {
    "installed": "installed",
    "cached": "in the cache",
    "download": "would be downloaded",
    "build": "would be built from Go modules when it is needed",
    "stand-in": "a stand-in serves: the official one is not installed and not to be had from here",
}


def _python() -> Finding:
    return Finding(topic="python", text=f"{platform.python_version()} at {sys.executable}")


def _disk(wanted: int) -> Finding:
    free = shutil.disk_usage(_existing(cache_dir())).free / GB
    mend = "" if free >= wanted else f"free {wanted} GB there, or set XDG_CACHE_HOME to a larger disk"
    return Finding(topic="disk", text=f"{free:.0f} GB free for {cache_dir()}", mend=mend)


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _memory() -> Finding:
    found = re.search(r"^MemTotal:\s+(\d+) kB", (PROC / "meminfo").read_text(), re.MULTILINE)
    assert found is not None  # every Linux has it
    total = int(found[1]) * 1024 / GB
    mend = "" if total >= MEMORY_GB * 0.9 else f"use a machine with {MEMORY_GB} GB or more"
    return Finding(topic="memory", text=f"{total:.0f} GB", mend=mend)


def _kernel() -> Iterator[Finding]:
    release = platform.release()
    modules = MODULES / release
    known = _kernel_config(release)
    listed = "".join(
        file.read_text() for file in (modules / "modules.builtin", modules / "modules.dep") if file.exists()
    )
    for name, option in KERNEL_FEATURES.items():
        there = (SYS_MODULE / name).exists() or re.search(rf"/{name}\.ko\b", listed)
        if there or re.search(rf"^CONFIG_{option}=[ym]$", known, re.MULTILINE):
            yield Finding(topic=f"kernel {name}", text="there")
        elif known or listed:
            mend = f"boot a kernel with CONFIG_{option}, or install the package with this kernel's modules"
            yield Finding(topic=f"kernel {name}", text=f"not in {release}", mend=mend)
        else:
            yield Finding(topic=f"kernel {name}", text=f"not known: {release} does not say what it has")


def _kernel_config(release: str) -> str:
    if (packed := PROC / "config.gz").exists():
        return gzip.decompress(packed.read_bytes()).decode()
    plain = Path(f"/boot/config-{release}")
    return plain.read_text() if plain.exists() else ""


def _engine(state: EngineState) -> Finding:
    text = {
        "running": f"Docker {state.version} is running",
        "stopped": "Docker is installed and would be started",
        "missing": "Docker would be installed (docker.io)",
        "unusable": state.detail,
    }[state.status]
    return Finding(topic="container engine", text=text, mend=state.mend)


def _addresses(engine: EngineState) -> Finding:
    """Look for a route into the lab's range that is not the lab's own."""
    subnet = ipaddress.ip_network(SUBNET)
    own = ""
    if engine.status == "running" and docker("network", "ls", "--quiet", "--filter", f"name=^{NETWORK}$"):
        own = "br-" + docker("network", "inspect", "--format", "{{.Id}}", NETWORK)[:12]
    for line in (PROC / "net/route").read_text().splitlines()[1:]:
        interface, destination, _, _, _, _, _, mask = line.split()[:8]
        network = ipaddress.ip_network((_address(destination), _address(mask).bit_count()))
        if network.prefixlen and network.overlaps(subnet) and interface != own:
            return Finding(
                topic="addresses",
                text=f"{network} is routed to {interface}, and the lab's hosts are in {subnet}",
                mend=f"take {interface} down, or give it other addresses",
            )
    return Finding(topic="addresses", text=f"{subnet} is free or the lab's own")


def _address(hexadecimal: str) -> int:
    return int.from_bytes(bytes.fromhex(hexadecimal), "little")


def _building(to_build: Iterable[Bundle], sites: Sites) -> Iterator[Finding]:
    """What a build needs."""
    go, proxy = find_go(), module_proxy()
    if proxy is None:
        mend = "" if go else "install Go from https://go.dev/dl, or set GOPROXY to a module proxy"
        yield Finding(topic="go", text=str(go or "not there, and GOPROXY names no module proxy"), mend=mend)
    else:
        mend = "set GOPROXY to a module proxy that this machine reaches" if sites.unreachable(proxy) else ""
        how = f"{go}; modules come from {proxy}" if go else f"{pins.GO} would be downloaded from {proxy}"
        yield Finding(topic="go", text=how, mend=mend)
    if any(build.cgo for bundle in to_build for build in bundle.builds.values()):
        yield _command("gcc", "install a C compiler with its C library's headers")


def _command(name: str, mend: str) -> Finding:
    """Look for a program that `up` installs where it may."""
    if shutil.which(name):
        return Finding(topic=name, text="there")
    if apt.can_install():
        return Finding(topic=name, text="would be installed")
    return Finding(topic=name, text="not on PATH", mend=mend)
