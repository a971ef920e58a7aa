"""From a bare machine to a running cluster and back: the order of the lab's pieces."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from lab import images, pins, pulumi, toolchain
from lab.artifacts import artifacts_of, ensure_tree
from lab.cache import cache_dir, in_use, unless_in_use
from lab.engine import docker, engine_state, ensure_engine, stop_engine
from lab.errors import LabError
from lab.hostimage import ensure_host_image
from lab.images import ensure_images, images_of
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
ENGINE: Step = ("container engine", ensure_engine)
S3_CLIENT: Step = ("S3 client for hosts", lambda progress: ensure_images(progress, (images.S3_CLIENT,)))


def machine_steps(release: pins.Release = pins.NEWEST) -> tuple[Step, ...]:
    """Return what makes ready all that hosts of this release need."""
    return (
        ENGINE,
        _files(release),
        ("mirror", ensure_mirror),
        _images(release),
        ("host image", ensure_host_image),
    )


def _files(release: pins.Release) -> Step:
    return "files for hosts", lambda progress: ensure_tree(progress, artifacts_of(release))


def _images(release: pins.Release) -> Step:
    return "images for hosts", lambda progress: ensure_images(progress, images_of(release))


def prepare(steps: tuple[Step, ...], progress: Progress) -> None:
    """Make ready what these steps name; what is ready costs next to nothing."""
    for title, ensure in steps:
        with progress.step(title):
            ensure(progress)


def prepare_release(kubernetes: str, progress: Progress) -> None:
    """Make ready what hosts of one more release need. The mirror must be running; it serves them at once."""
    release = pins.find_release(kubernetes)
    prepare((_files(release), _images(release)), progress)


@contextmanager
def machine(progress: Progress) -> Iterator[None]:
    """Everything that hosts of the newest release need is there meanwhile.

    What no other run needs goes afterwards.
    """
    try:
        with in_use(_machine()):
            prepare((*TOOLS, *machine_steps()), progress)
            yield
    finally:
        if engine_state().status == "running":
            _release_machine(progress)


def up(stack: str) -> None:
    """Make this machine ready and bring the stack up; print its nodes and how to use them."""
    pulumi.check_stack(stack)
    machine = machine_steps(pulumi.release(stack)) if pulumi.has_lab_hosts(stack) else ()
    if machine and pulumi.copies_snapshots(stack):
        machine = (*machine, S3_CLIENT)
    progress = Progress(steps=len(TOOLS) + len(machine) + 1)
    prepare(TOOLS, progress)
    with in_use(_machine()) if machine else nullcontext():
        prepare(machine, progress)
        with progress.step(f"pulumi up of the stack {stack}"):
            pulumi.up(stack, progress)
    if pulumi.kubeconfig_file(stack).exists():
        print(_nodes(stack))
        print(_usage(stack))


def down(stack: str) -> None:
    """Destroy the stack and, if it was the last one, take away what `up` had started. The cache stays."""
    pulumi.check_stack(stack)
    progress = Progress()
    on_this_machine = pulumi.has_lab_hosts(stack)
    if pulumi.exists(stack):
        prepare(TOOLS, progress)
        if on_this_machine:
            prepare((ENGINE,), progress)
        with progress.step(f"pulumi destroy of the stack {stack}"):
            pulumi.destroy(stack, progress)
    if on_this_machine and engine_state().status == "running":
        with progress.step("hosts and volumes"):
            _remove_hosts(pulumi.cluster_name(stack))
        _release_machine(progress)


def _release_machine(progress: Progress) -> None:
    """Take away what `prepare` had started, and no other run or stack needs."""
    with unless_in_use(_machine()) as unused:
        if not unused:
            progress.note("another `make up` is under way: the mirror and its network stay")
            return
        with progress.step("mirror and network, unless another stack's hosts are there"):
            remove_mirror()
        if not docker("container", "ls", "--quiet"):
            with progress.step("container engine, if `up` started it"):
                stop_engine()


def _machine() -> Path:
    """Return what stands for mirror, network and engine in locks: all stacks of the machine share them."""
    return cache_dir() / "machine"


def _remove_hosts(cluster: str) -> None:
    """Remove hosts that the state does not know: an `up` was killed while it made them."""
    mine = docker("container", "ls", "--all", "--quiet", "--filter", f"label=kubepivot.cluster={cluster}")
    if mine:
        docker("container", "rm", "--force", "--volumes", *mine.split())


def _nodes(stack: str) -> str:
    command = ["kubectl", "get", "nodes", "--output", "wide", f"--request-timeout={KUBECTL_SECONDS}s"]
    failed = f"the cluster is up, but `{' '.join(command)}`"
    try:
        done = subprocess.run(
            command,
            env=pulumi.full_environment(stack),
            capture_output=True,
            text=True,
            timeout=2 * KUBECTL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{failed} did not end within {2 * KUBECTL_SECONDS} s", "run again") from error
    if done.returncode:
        raise LabError(f"{failed} failed: {done.stderr.strip()}", "run again")
    return done.stdout


def _usage(stack: str) -> str:
    environment = pulumi.make_command("-s env", stack)
    commands = {
        f'eval "$({environment})"': "pulumi and kubectl for this cluster, in this shell",
        "kubectl get pods -A": "what runs on it",
        pulumi.make_command("down", stack): "end it",
    }
    width = max(map(len, commands))
    return "\n".join(f"{command:<{width}}     {what}" for command, what in commands.items())
