"""A cluster by kubepivot, on machines that exist already."""

from __future__ import annotations

from typing import Any

from bench.availability import Login
from tests.e2e.hosts import Box
from tests.e2e.probing import credentials
from tests.e2e.stacks import MIRROR, Checkout, Stack

UP_SECONDS = 900


class KubepivotCluster:
    """All that its user does is to change the stack's config and to run `pulumi up`."""

    def __init__(self, checkout: Checkout, cluster: str, boxes: dict[str, Box], version: str) -> None:
        self._hosts = {name: box.config(_role(name)) for name, box in boxes.items()}
        self._endpoint = f"https://{boxes['controller-1'].address}:6443"
        self._settings: dict[str, Any] = {"kubernetesVersion": version}
        self._stack = Stack(checkout, cluster, self._config())
        # As `make` has it. A plan is looked at before it is carried out; it also compiles the program.
        self._stack.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._stack.pulumi("preview")

    def create(self) -> None:
        """The first `pulumi up`."""
        self._up()

    def login(self) -> Login:
        """Of the administrator, from the state."""
        pair = credentials(self._stack)
        assert pair is not None
        return Login(endpoint=self._endpoint, pair=pair)

    def change_flag(self, flag: str, value: str) -> None:
        """Of kube-apiserver."""
        self._settings["flags"] = {"kube-apiserver": {flag: value}}
        self._up()

    def upgrade(self, version: str) -> None:
        """With drains, as by default."""
        self._settings["kubernetesVersion"] = version
        self._up()

    def add_worker(self, name: str, box: Box) -> None:
        """One host more in the config."""
        self._hosts[name] = box.config("worker")
        self._up()

    def _config(self) -> dict[str, Any]:
        return {
            "platform": "baremetal",
            "hosts": self._hosts,
            "mirror": MIRROR,
            "pki": {"protect": False},
            **self._settings,
        }

    def _up(self) -> None:
        self._stack.configure(self._config())
        self._stack.pulumi("up", "--yes", "--skip-preview", timeout=UP_SECONDS)


def _role(name: str) -> str:
    return name.partition("-")[0]
