"""The image of a lab host: Debian that boots in a container and lets the program in by SSH."""

from __future__ import annotations

from lab.debian import recipe_image
from lab.engine import docker
from lab.progress import Progress

IMAGE = "kubepivot/host:latest"


def ensure_host_image(progress: Progress) -> str:
    """Have `kubepivot/host:<digest of its recipe>`, also as `kubepivot/host:latest`; return the former.

    It holds no identity: a host gets its machine id when it first boots, its SSH host key and
    authorized_keys from `/usr/local/sbin/host-identity`. Until then sshd does not run.
    """
    image = recipe_image("host", progress)
    docker("tag", image, IMAGE)
    return image
