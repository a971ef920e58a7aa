"""What there is to order: a small part of DigitalOcean's regions, sizes and images.

Prices are those of its price list in 2026, in USD.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e.digitalocean.account import Account
from tests.e2e.digitalocean.calls import Answer, Call, Json, Route, missing

HOURS_OF_A_MONTH = 672  # DigitalOcean bills a month of 28 days at most

REGIONS = {
    "ams3": "Amsterdam 3",
    "blr1": "Bangalore 1",
    "fra1": "Frankfurt 1",
    "lon1": "London 1",
    "nyc1": "New York 1",
    "nyc3": "New York 3",
    "sfo1": "San Francisco 1",
    "sfo3": "San Francisco 3",
    "sgp1": "Singapore 1",
    "syd1": "Sydney 1",
    "tor1": "Toronto 1",
}
CLOSED_REGIONS = {"sfo1"}  # takes no new droplets
FEATURES = ["backups", "ipv6", "metadata", "install_agent", "storage", "image_transfer"]


@dataclass(frozen=True)
class Size:
    """Of a droplet: memory in MB, disk in GB, transfer in TB, USD a month; regions without it."""

    slug: str
    memory: int
    vcpus: int
    disk: int
    transfer: float
    price_monthly: float
    description: str = "Basic"
    not_in: frozenset[str] = frozenset()

    @property
    def regions(self) -> list[str]:
        return [slug for slug in REGIONS if slug not in CLOSED_REGIONS | self.not_in]


SIZES = {
    size.slug: size
    for size in (
        Size("s-1vcpu-1gb", 1024, 1, 25, 1, 6),
        Size("s-1vcpu-2gb", 2048, 1, 50, 2, 12),
        Size("s-2vcpu-2gb", 2048, 2, 60, 3, 18),
        Size("s-2vcpu-4gb", 4096, 2, 80, 4, 24),
        Size("s-2vcpu-4gb-amd", 4096, 2, 80, 4, 28, "Premium AMD"),
        Size("s-2vcpu-4gb-intel", 4096, 2, 80, 4, 28, "Premium Intel"),
        Size("s-4vcpu-8gb", 8192, 4, 160, 5, 48),
        Size("s-8vcpu-16gb", 16384, 8, 320, 6, 96),
        Size("c-2", 4096, 2, 25, 4, 42, "CPU-Optimized"),
        Size("g-2vcpu-8gb", 8192, 2, 25, 4, 63, "General Purpose"),
        Size("so1_5-2vcpu-16gb", 16384, 2, 450, 4, 163, "Storage-Optimized", frozenset({"blr1", "syd1"})),
    )
}


@dataclass(frozen=True)
class Image:
    """Of a droplet's first disk."""

    id: int
    slug: str
    distribution: str
    name: str


IMAGES = {
    image.id: image
    for image in (
        Image(195932981, "centos-stream-10-x64", "CentOS", "Stream 10 x64"),
        Image(194382907, "debian-12-x64", "Debian", "12 x64"),
        Image(203219871, "debian-13-x64", "Debian", "13 x64"),
        Image(195932997, "fedora-42-x64", "Fedora", "42 x64"),
        Image(195933003, "rockylinux-9-x64", "Rocky Linux", "9 x64"),
        Image(195932969, "ubuntu-22-04-x64", "Ubuntu", "22.04 (LTS) x64"),
        Image(195932973, "ubuntu-24-04-x64", "Ubuntu", "24.04 (LTS) x64"),
    )
}


def find_image(which: str | int) -> Image | None:
    """By id, or by slug in any case."""
    if isinstance(which, int):
        return IMAGES.get(which)
    return next((image for image in IMAGES.values() if image.slug == which.lower()), None)


def show_region(slug: str) -> Json:
    return {
        "name": REGIONS[slug],
        "slug": slug,
        "features": FEATURES,
        "available": slug not in CLOSED_REGIONS,
        "sizes": [size.slug for size in SIZES.values() if slug in size.regions],
    }


def show_size(slug: str) -> Json:
    size = SIZES[slug]
    return {
        "slug": size.slug,
        "memory": size.memory,
        "vcpus": size.vcpus,
        "disk": size.disk,
        "transfer": float(size.transfer),
        "price_monthly": float(size.price_monthly),
        "price_hourly": round(size.price_monthly / HOURS_OF_A_MONTH, 5),
        "regions": size.regions,
        "available": True,
        "description": size.description,
        "disk_info": show_disks(size.disk),
    }


def show_disks(gigabytes: int) -> list[Json]:
    return [{"type": "local", "size": {"amount": gigabytes, "unit": "gib"}}]


def show_image(image_id: int) -> Json:
    image = IMAGES[image_id]
    return {
        "id": image.id,
        "name": image.name,
        "distribution": image.distribution,
        "slug": image.slug,
        "public": True,
        "regions": [*REGIONS],
        "created_at": "2026-03-02T09:14:05Z",
        "type": "base",
        "min_disk_size": 10,
        "size_gigabytes": 1.21,
        "description": f"{image.distribution} {image.name}",
        "tags": [],
        "status": "available",
        "error_message": "",
    }


def _list_regions(_: Account, call: Call) -> Answer:
    return call.listed("regions", [*REGIONS], show_region)


def _list_sizes(_: Account, call: Call) -> Answer:
    return call.listed("sizes", [*SIZES], show_size)


def _list_images(_: Account, call: Call) -> Answer:
    own = call.query.get("private") == "true" or call.query.get("type") == "application"
    return call.listed("images", [] if own or "tag_name" in call.query else [*IMAGES], show_image)


def _get_image(_: Account, call: Call) -> Answer:
    which = call.arguments["image"]
    image = find_image(int(which) if which.isdecimal() else which)
    if image is None:
        raise missing()
    return Answer(body={"image": show_image(image.id)})


ROUTES = (
    Route("GET", "/v2/regions", _list_regions, "regions:read"),
    Route("GET", "/v2/sizes", _list_sizes, "sizes:read"),
    Route("GET", "/v2/images", _list_images, "image:read"),
    Route("GET", "/v2/images/{image}", _get_image, "image:read"),
)
