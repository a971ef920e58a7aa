"""Hosts of the lab with a wall clock of their own, for everything that runs on them but `docker exec`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab import apt
from lab.engine import docker

IMAGE = "kubepivot/wallclock:latest"
OFFSET = "/var/lib/wallclock"  # on a volume, as the battery keeps a machine's clock
DAY = 86400

_DOCKERFILE = f"""
FROM kubepivot/host:latest
COPY wallclock /usr/local/sbin/
RUN echo 0 >{OFFSET}
ENTRYPOINT ["/usr/local/sbin/wallclock", "{OFFSET}", "/usr/local/sbin/entrypoint"]
"""


def make_image(scratch: Path) -> None:
    """Makes the image of such hosts from that of the lab's; they start with the time of this machine."""
    apt.ensure_command("gcc", "gcc", "libc6-dev")
    source, program = Path(__file__).with_suffix(".c"), scratch / "wallclock"
    command = ["gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)]
    subprocess.run(command, check=True, timeout=60)
    (scratch / "Dockerfile").write_text(_DOCKERFILE)
    docker("build", "--quiet", "--network", "none", "--tag", IMAGE, str(scratch))


def remove_image() -> None:
    """Removes it, once no host needs it any more."""
    docker("image", "rm", "--force", IMAGE)


def jump(host: str, seconds: int) -> None:
    """Has the host's clock be that far ahead of this machine's from now on, over reboots too."""
    docker("exec", host, "sh", "-ec", f"echo {seconds} >{OFFSET}")
