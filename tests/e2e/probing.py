"""Clients that never stop asking, to count what they lose."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.stacks import Stack, eventually

SCRIPT = Path(__file__).with_name("prober.py")


def credentials(stack: Stack, user: str = "admin") -> dict[str, str] | None:
    """What a user logs in with, from the state: it is there before the cluster is.

    The cluster's roles let the administrator do everything, and the scheduler look around from the first
    moment; a kube-apiserver that has not read them yet refuses both, and only `system:masters` would not
    notice.
    """
    state, name = stack.state(), stack.name
    wanted = {
        "ca": (f"{name}-ca-cert", "certPem"),
        "cert": (f"{name}-{user}-cert", "certPem"),
        "key": (f"{name}-{user}-key", "privateKeyPem"),
    }
    if not all(resource in state for resource, _ in wanted.values()):
        return None
    found = {key: state[resource]["outputs"][output] for key, (resource, output) in wanted.items()}
    return {
        key: json.loads(value["plaintext"]) if isinstance(value, dict) else value
        for key, value in found.items()
    }


def ready(endpoint: str, ca: str) -> bool:
    """Whether an apiserver answers, and says that it is ready."""
    context = ssl.create_default_context(cadata=ca)
    try:
        return httpx.get(f"{endpoint}/readyz", verify=context, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def wait_until_ready(endpoint: str, ca: str, seconds: float) -> None:
    """Returns with the first `/readyz`."""
    eventually(f"{endpoint}/readyz", seconds, lambda: ready(endpoint, ca))


@dataclass(frozen=True)
class Prober:
    """A client, running until it is stopped or its block is left, by a test that failed too."""

    process: subprocess.Popen[str]

    @classmethod
    def start(
        cls,
        known: dict[str, str],
        host: str,
        port: int,
        *,
        rate: int = 50,
        inside: str = "",
        through: Sequence[str] = (),
    ) -> Prober:
        """Starts a client here or, with `inside`, in a host's container, there perhaps `through` a command
        that enters a pod.
        """
        arguments = [host, str(port), str(rate)]
        command = [sys.executable, str(SCRIPT), *arguments]
        if inside:
            script = ["python3", "-c", SCRIPT.read_text(), *arguments]
            command = ["docker", "exec", "--interactive", inside, *through, *script]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        process.stdin.write(json.dumps(known) + "\n")
        process.stdin.flush()
        return cls(process)

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()

    def stop(self) -> dict[str, Any]:
        """Ends the client and returns its counts."""
        output, _ = self.process.communicate(timeout=60)
        summary: dict[str, Any] = json.loads(output)
        return summary
