"""From a bare machine to a running cluster and back: the order of the lab's pieces."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from lab import pulumi, toolchain
from lab.artifacts import ensure_tree
from lab.engine import docker, engine_state, ensure_engine, stop_engine
from lab.errors import LabError
from lab.hostimage import ensure_host_image
from lab.images import ensure_images
from lab.mirror import ensure_mirror, remove_mirror
from lab.progress import Progress
from lab.provider_plugins import ensure_plugins

KUBECTL_SECONDS = 30

Step = tuple[str, Callable[[Progress], object]]

TOOLS: tuple[Step, ...] = (
    ("Pulumi", lambda progress: toolchain.ensure("pulumi", progress)),
    ("kubectl", lambda progress: toolchain.ensure("kubectl", progress)),
    ("provider plugins", ensure_plugins),
)
MACHINE: tuple[Step, ...] = (
    ("container engine", ensure_engine),
    ("files for hosts", ensure_tree),
    ("mirror", ensure_mirror),
    ("images for hosts", ensure_images),
    ("host image", ensure_host_image),
)


def prepare(steps: tuple[Step, ...], progress: Progress) -> None:
    """Make ready what these steps name; what is ready costs next to nothing."""
    for title, ensure in steps:
        with progress.step(title):
            ensure(progress)


def up(stack: str) -> None:
    """Make this machine ready and bring the stack up; print its nodes and how to use them."""
    pulumi.check_stack(stack)
    progress = Progress(steps=len(TOOLS) + len(MACHINE) + 1)
    prepare((*TOOLS, *MACHINE), progress)
    with progress.step(f"pulumi up of the stack {stack}"):
        pulumi.up(stack, progress)
    if pulumi.kubeconfig_file(stack).exists():
        print(_nodes(stack))
        print(_usage(stack))


def down(stack: str) -> None:
    """Destroy the stack and, if it was the last one, take away what `up` had started. The cache stays."""
    pulumi.check_stack(stack)
    progress = Progress()
    if pulumi.exists(stack):
        prepare((*TOOLS, ("container engine", ensure_engine)), progress)
        with progress.step(f"pulumi destroy of the stack {stack}"):
            pulumi.destroy(stack, progress)
    if engine_state().status == "running":
        with progress.step("hosts, mirror, network and volumes"):
            _remove_hosts(pulumi.cluster_name(stack))
            remove_mirror()
        if not docker("container", "ls", "--quiet"):
            with progress.step("container engine, if `up` started it"):
                stop_engine()


def _remove_hosts(cluster: str) -> None:
    """Remove hosts that the state does not know: an `up` was killed while it made them."""
    mine = docker("container", "ls", "--all", "--quiet", "--filter", f"label=kubepivot.cluster={cluster}")
    if mine:
        docker("container", "rm", "--force", "--volumes", *mine.split())


def _nodes(stack: str) -> str:
    command = ["kubectl", "get", "nodes", "--output", "wide", f"--request-timeout={KUBECTL_SECONDS}s"]
    done = subprocess.run(
        command,
        env=pulumi.full_environment(stack),
        capture_output=True,
        text=True,
        timeout=2 * KUBECTL_SECONDS,
    )
    if done.returncode:
        raise LabError(
            f"the cluster is up, but `{' '.join(command)}` failed: {done.stderr.strip()}", "run again"
        )
    return done.stdout


def _usage(stack: str) -> str:
    option = "" if stack == "dev" else f" STACK={stack}"
    return f"""\
eval "$(make -s env{option})"     pulumi and kubectl for this cluster, in this shell
kubectl get pods -A{" " * len(option)}          what runs on it
make down{option}                    end it"""
