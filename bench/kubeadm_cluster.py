"""A cluster by kubeadm, each thing done as its documentation has it."""

from __future__ import annotations

import base64
import shlex
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from bench.availability import Login
from bench.kubeadm import KUBELET_UNIT, SETTINGS, configuration
from lab import pins, toolchain
from lab.artifacts import artifacts_of
from lab.engine import docker
from lab.progress import Progress
from tests.e2e.hosts import Box
from tests.e2e.stacks import MIRROR

HERE = Path(__file__).parent
FLANNEL = HERE / "flannel.yaml"
NODE = HERE / "node.sh"
SECONDS = 600
# What it holds against a container: swap, the cgroup version, the kernel's config.
CONTAINER = "--ignore-preflight-errors=all"
KUBECTL = "kubectl --kubeconfig=/etc/kubernetes/admin.conf"


class KubeadmCluster:
    """Made and upgraded by the kubeadm of each version.

    The first one is on the hosts beforehand. `versions` are all that it will run, in order. `settings` is an
    archive of the configuration that every host needs, whoever makes a node of it.
    """

    def __init__(
        self, boxes: dict[str, Box], versions: Sequence[str], settings: bytes, progress: Progress
    ) -> None:
        self._controller = boxes["controller-1"]
        self._workers = [box for name, box in boxes.items() if name != "controller-1"]
        self._version, self._settings = versions[0], settings
        self._programs = {
            version: toolchain.ensure(
                "kubeadm", progress, release=pins.find_release(version), installed=False
            )
            for version in versions
        }
        for box in boxes.values():
            self._give_unit(box)
            self._give_program(box)

    def create(self) -> None:
        """All hosts are made ready at once, then the controller, then its workers at once."""
        boxes = [self._controller, *self._workers]
        _together(self._install, boxes)
        _run(self._controller, f"kubeadm init --config=/dev/stdin {CONTAINER}", self._configuration({}))
        _run(self._controller, f"{KUBECTL} apply --filename=-", flannel())
        self._join(self._workers)

    def login(self) -> Login:
        """Of the administrator whom `kubeadm init` made."""
        return login(_run(self._controller, "cat /etc/kubernetes/admin.conf"))

    def change_flag(self, flag: str, value: str) -> None:
        """Of kube-apiserver. Ends when one that has it is ready."""
        config = self._configuration({flag: value})
        for phase in ("upload-config kubeadm", "control-plane apiserver"):
            _run(self._controller, f"kubeadm init phase {phase} --config=/dev/stdin", config)
        # In brackets, or the pattern would find the shell that looks for it.
        _run(
            self._controller,
            f"until pgrep --full 'kube-apiserve[r] .*--{flag}={value}' >/dev/null &&"
            " curl --silent --fail --insecure --max-time 1 --output /dev/null https://127.0.0.1:6443/readyz;"
            " do sleep 0.2; done",
        )

    def upgrade(self, version: str) -> None:
        """The control plane, then node after node."""
        self._version = version
        for box in (self._controller, *self._workers):
            self._give_program(box)
        _run(self._controller, f"kubeadm upgrade apply v{version} --yes {CONTAINER}")
        self._renew(self._controller)
        for box in self._workers:
            _run(box, f"kubeadm upgrade node {CONTAINER}")
            self._renew(box)

    def add_worker(self, name: str, box: Box) -> None:
        """As the first ones."""
        self._workers.append(box)
        self._give_unit(box)
        self._give_program(box)
        self._install(box)
        self._join([box])

    def _give_program(self, box: Box) -> None:
        docker("cp", str(self._programs[self._version]), f"{box.container}:/usr/local/bin/kubeadm")

    def _give_unit(self, box: Box) -> None:
        docker("cp", str(KUBELET_UNIT), f"{box.container}:/etc/systemd/system/kubelet.service")

    def _install(self, box: Box) -> None:
        docker(
            *("exec", "--interactive", box.container, "tar", "--extract", "--directory=/"),
            input=self._settings,
        )
        _run(box, "sh -es", self._script("install", controller=box is self._controller))

    def _join(self, boxes: Iterable[Box]) -> None:
        join = _run(self._controller, "kubeadm token create --print-join-command")
        _together(lambda box: _run(box, f"{join} {CONTAINER}"), boxes)

    def _renew(self, box: Box) -> None:
        """Drains the node, gives it its kubelet, and lets pods come back."""
        self._ask(f"drain {box.name} --ignore-daemonsets --delete-emptydir-data --force")
        _run(box, "sh -es", self._script("renew", controller=box is self._controller))
        self._ask(f"uncordon {box.name}")

    def _ask(self, command: str) -> None:
        """Again until it is done, as a user would: a kubelet of another minor starts kube-apiserver anew."""
        _run(self._controller, f"until {KUBECTL} {command}; do sleep 0.5; done")

    def _configuration(self, flags: dict[str, str]) -> str:
        return configuration(self._controller.address, self._version, flags)

    def _script(self, what: str, *, controller: bool) -> str:
        """`what` is a function of the script."""
        urls = {
            _variable(name): f"{MIRROR['artifacts']}/{artifact.path}"
            for artifact in artifacts_of(pins.find_release(self._version))
            for name in [artifact.bundle.name]
        }
        if not controller:
            urls["KUBECTL"] = ""
        variables = "".join(f"{name}={shlex.quote(url)}\n" for name, url in urls.items())
        return f"{variables}{NODE.read_text()}{what}\n"


def _variable(name: str) -> str:
    return name.replace("-", "_").upper()


def flannel() -> str:
    """flannel's objects, of the lab's version."""
    values = {"@FLANNEL@": pins.FLANNEL, "@PLUGIN@": pins.FLANNEL_CNI_IMAGE}
    text = FLANNEL.read_text()
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def login(kubeconfig: str) -> Login:
    """What a kubeconfig of kubeadm's has in it."""
    found = yaml.safe_load(kubeconfig)
    cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
    pair = {
        "ca": cluster["certificate-authority-data"],
        "cert": user["client-certificate-data"],
        "key": user["client-key-data"],
    }
    return Login(
        endpoint=cluster["server"],
        pair={name: base64.b64decode(text).decode() for name, text in pair.items()},
    )


def settings_of(container: str) -> bytes:
    """An archive of that configuration, from a host where it is."""
    command = ["docker", "exec", container, "tar", "--create", "--directory=/", *SETTINGS]
    return subprocess.run(command, check=True, capture_output=True, timeout=SECONDS).stdout


def _together(work: Callable[[Box], object], boxes: Iterable[Box]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(work, boxes))


def _run(box: Box, command: str, stdin: str = "") -> str:
    return docker(
        *("exec", "--interactive", box.container, "sh", "-ec", command), input=stdin.encode(), timeout=SECONDS
    )
