"""`python -m lab`: what the Makefile's targets call."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import signal
import subprocess
import sys

from lab import doctor, lifecycle, pins, pulumi
from lab.errors import LabError
from lab.progress import Progress

INTERRUPTED = 130  # the shell's code for an end by SIGINT

VERBS = {
    "up": "bring the stack up on this machine",
    "down": "destroy the stack and what `up` started",
    "preview": "show what `up` would change in the stack",
    "kubeconfig": "print the stack's kubeconfig",
    "env": "print the stack's environment for a shell's eval",
    "doctor": "say what this machine has and lacks; changes nothing",
    "toolchain": "make Pulumi, its plugins and kubectl ready",
    "mirror": "make engine, mirror, images and host image ready",
}


def main() -> int:
    """Run one verb and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lab")
    parser.add_argument(
        "verb", choices=VERBS, help="; ".join(f"{verb}: {text}" for verb, text in VERBS.items())
    )
    parser.add_argument("--stack", default="dev", help="the stack; its file is Pulumi.<stack>.yaml")
    parser.add_argument(
        "--release", default=pins.NEWEST.kubernetes, help="the Kubernetes release that `mirror` makes ready"
    )
    arguments = parser.parse_args()
    try:
        return _run(arguments.verb, arguments.stack, arguments.release)
    except LabError as error:
        return _failed(str(error), error.mend)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _failed(str(error), "free disk space, then run again" if full else "mend that, then run again")
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", None) or ""
        return _failed(f"{error} {said}".strip(), "mend that, then run again")
    except KeyboardInterrupt:
        print("\nstopped: run again, it continues", file=sys.stderr)
        return INTERRUPTED


def _failed(what: str, mend: str) -> int:
    print(f"\nerror: {what}\nmend:  {mend}", file=sys.stderr)
    return 1


def _run(verb: str, stack: str, release: str) -> int:
    match verb:
        case "up":
            lifecycle.up(stack)
        case "down":
            lifecycle.down(stack)
        case "preview":
            pulumi.check_stack(stack)
            lifecycle.prepare(lifecycle.TOOLS, Progress(steps=len(lifecycle.TOOLS)))
            return pulumi.preview(stack)
        case "kubeconfig":
            print(pulumi.read_kubeconfig(stack), end="")
        case "env":
            _print_environment(stack)
        case "doctor":
            return doctor.report()
        case "toolchain":
            lifecycle.prepare(lifecycle.TOOLS, Progress(steps=len(lifecycle.TOOLS)))
        case "mirror":
            steps = lifecycle.machine_steps(pins.find_release(release))
            lifecycle.prepare(steps, Progress(steps=len(steps)))
    return 0


def _print_environment(stack: str) -> None:
    """Print the environment; all that it needs is ready then. Only what takes time is shown, on stderr."""
    pulumi.check_stack(stack)
    progress = Progress()
    for _, ensure in lifecycle.TOOLS:
        ensure(progress)
    if pulumi.FOREIGN_PASSPHRASE in os.environ:
        print(f"unset {pulumi.FOREIGN_PASSPHRASE}")
    for name, value in pulumi.environment(stack).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    # Ended from outside, by CI's time limit say, it ends what it has started, as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
