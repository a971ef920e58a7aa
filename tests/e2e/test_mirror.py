"""The engine, the mirror, its images and the host image, with real containers."""

from __future__ import annotations

import asyncio
import io
import shlex
import tarfile
import time
from collections.abc import Callable, Iterator

import asyncssh
import pytest

from components.hosts.lab import RUN_OPTIONS
from lab import mirror, toolchain
from lab.engine import docker, ensure_engine
from lab.errors import LabError
from lab.hostimage import IMAGE, ensure_host_image
from lab.images import IMAGES, ensure_images
from lab.progress import Progress
from tests.e2e.stacks import remove_hosts

pytestmark = pytest.mark.e2e

MIRROR = f"{mirror.ADDRESS}:{mirror.REGISTRY_PORT}"
ADDRESSES = {"kubepivot-test-host-1": "172.30.255.11", "kubepivot-test-host-2": "172.30.255.12"}
CLUSTER = "mirror"
BOOT_SECONDS = 30
PULL_SECONDS = 60


@pytest.fixture(scope="module")
def machine() -> None:
    """This machine with all that hosts need."""
    for ensure in (ensure_engine, ensure_mirror_and_images, ensure_host_image):
        ensure(Progress())


def ensure_mirror_and_images(progress: Progress) -> None:
    mirror.ensure_mirror(progress)
    ensure_images(progress)


class LabHost:
    """A container of the host image, as the program makes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ADDRESSES[name]
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.login = asyncssh.generate_private_key("ssh-ed25519")
        options = shlex.split(RUN_OPTIONS)
        docker(
            *("run", "--detach", "--name", name, "--hostname", name, *options),
            *("--label", f"kubepivot.cluster={CLUSTER}"),
            *("--network", mirror.NETWORK, "--ip", self.address, IMAGE),
        )

    def exec(self, command: str) -> str:
        return docker("exec", self.name, "sh", "-euc", command)

    def identify(self) -> None:
        """Hand the host its identity."""
        files = {
            "ssh_host_ed25519_key": self.host_key.export_private_key(),
            "ssh_host_ed25519_key.pub": self.host_key.export_public_key(),
            "authorized_keys": self.login.export_public_key(),
        }
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        script = "/usr/local/sbin/host-identity"
        docker("exec", "--interactive", self.name, script, input=archive.getvalue())

    def ssh(self, command: str) -> str:
        return asyncio.run(self._ssh(command))

    async def _ssh(self, command: str) -> str:
        known = asyncssh.import_known_hosts(f"{self.address} {self.host_key.export_public_key().decode()}")
        async with asyncssh.connect(
            self.address, username="root", client_keys=[self.login], known_hosts=known, config=None
        ) as connection:
            done = await connection.run(command, check=True, timeout=BOOT_SECONDS)
        return str(done.stdout).strip()

    def wait_until_running(self) -> None:
        wait_for(lambda: self.exec("systemctl is-system-running --wait") == "running", BOOT_SECONDS)


def wait_for(is_true: Callable[[], bool], seconds: float) -> None:
    """Poll until `is_true`; a LabError counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if is_true():
                return
        except LabError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def host(machine: None) -> Iterator[LabHost]:
    remove_hosts(CLUSTER)  # those of a test run that was killed
    yield LabHost("kubepivot-test-host-1")
    remove_hosts(CLUSTER)


@pytest.fixture(scope="module")
def runtime(host: LabHost, tmp_path_factory: pytest.TempPathFactory) -> LabHost:
    """The host with containerd running, and the mirror named for every registry that the images come from."""
    for name in ("containerd", "containerd-shim-runc-v2", "ctr"):
        docker("cp", str(toolchain.ensure(name, installed=False)), f"{host.name}:/usr/local/bin/{name}")
    certs = tmp_path_factory.mktemp("certs.d")
    for registry in {image.registry for image in IMAGES}:
        url = f"http://{MIRROR}/v2/{registry}"
        (certs / registry).mkdir()
        (certs / registry / "hosts.toml").write_text(
            f'server = "{url}"\n[host."{url}"]\ncapabilities = ["pull", "resolve"]\noverride_path = true\n'
        )
    docker("cp", str(certs), f"{host.name}:/etc/containerd-certs.d")
    host.exec("systemd-run --quiet --unit containerd --property Delegate=yes /usr/local/bin/containerd")
    wait_for(lambda: "Server" in host.exec("ctr version"), BOOT_SECONDS)
    return host


def test_second_run_costs_next_to_nothing(machine: None) -> None:
    start = time.monotonic()
    ensure_mirror_and_images(Progress())
    assert time.monotonic() - start < 0.5


def test_host_boots_and_lets_in_whoever_has_the_key(host: LabHost) -> None:
    host.wait_until_running()
    assert host.exec("systemctl is-active ssh || true") == "inactive", "no key is part of the image"
    host.identify()
    assert host.ssh("hostname") == host.name
    assert host.ssh("systemctl --failed --no-legend") == ""
    host.identify()
    assert host.ssh("systemctl is-system-running") == "running"
    host.login = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        host.ssh("true")
    host.identify()
    assert host.ssh("id -u") == "0"


def test_restart_is_a_reboot_that_keeps_the_identity(host: LabHost) -> None:
    host.identify()
    before = host.ssh("cat /etc/machine-id")
    docker("restart", host.name)
    host.wait_until_running()
    assert host.ssh("cat /etc/machine-id") == before
    assert len(before) == 32


def test_hosts_have_machine_ids_of_their_own_and_identity_can_come_at_once(host: LabHost) -> None:
    other = LabHost("kubepivot-test-host-2")
    try:
        other.identify()  # systemd has hardly begun
        assert other.exec("systemctl is-active ssh") == "active"
        assert other.exec("cat /etc/machine-id") != host.exec("cat /etc/machine-id")
    finally:
        docker("container", "rm", "--force", "--volumes", other.name)


def test_host_fetches_files_by_http_and_changes_none(host: LabHost) -> None:
    file = mirror.files_dir() / "test.example" / "v1" / "tool"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.write_bytes(bytes(range(256)))
        url = f"http://{mirror.ADDRESS}/test.example/v1/tool"
        assert host.exec(f"curl -fsS {url} | od -An -tu1 -v | tr -s ' \\n' ' '").split() == [
            str(number) for number in range(256)
        ]
        assert host.exec(f"curl -s -o /dev/null -w '%{{http_code}}' -T /etc/hostname {url}") == "405"
        assert host.exec(f"curl -s -o /dev/null -w '%{{http_code}}' {url}-not-there") == "404"
    finally:
        file.unlink()
        file.parent.rmdir()
        file.parent.parent.rmdir()


def pull(host: LabHost, image: str) -> None:
    docker(
        *("exec", host.name, "ctr", "--namespace", "k8s.io"),
        *("images", "pull", "--hosts-dir", "/etc/containerd-certs.d", image),
        timeout=PULL_SECONDS,
    )


def test_host_pulls_every_image_by_its_official_name(runtime: LabHost) -> None:
    start = time.monotonic()
    for image in IMAGES:
        pull(runtime, image.name)
    assert time.monotonic() - start < PULL_SECONDS


@pytest.mark.parametrize(
    ("repository", "command", "expected"),
    [
        ("registry.k8s.io/kube-apiserver", "kube-apiserver --version", "Kubernetes {version}"),
        (
            "registry.k8s.io/kube-controller-manager",
            "kube-controller-manager --version",
            "Kubernetes {version}",
        ),
        ("registry.k8s.io/kube-scheduler", "kube-scheduler --version", "Kubernetes {version}"),
        ("registry.k8s.io/kube-proxy", "kube-proxy --version", "Kubernetes {version}"),
        ("registry.k8s.io/kube-proxy", "nft --version", "nftables v1"),
        ("registry.k8s.io/kube-proxy", "conntrack --version", "conntrack v1"),
        ("quay.io/coreos/etcd", "etcd --version", "etcd Version: 3."),
        ("quay.io/coreos/etcd", "etcdutl version", "etcdutl version: 3."),
        ("registry.k8s.io/coredns/coredns", "/coredns -version", "CoreDNS-1."),
        ("ghcr.io/flannel-io/flannel", "/opt/bin/flanneld --version", "{version}"),
        ("ghcr.io/flannel-io/flannel", "iptables --version", "(nf_tables)"),
        ("ghcr.io/flannel-io/flannel-cni-plugin", "cp -v /flannel /tmp/flannel", "/flannel"),
        ("docker.io/library/busybox", "sh -c id", "uid=0(root)"),
        (
            "docker.io/library/python",
            "/usr/local/bin/python3 -c 'import ssl, sys; print(sys.version)'",
            "3.11",
        ),
    ],
)
def test_programs_of_the_images_run(runtime: LabHost, repository: str, command: str, expected: str) -> None:
    name = next(image.name for image in IMAGES if image.name.rsplit(":", 1)[0] == repository)
    pull(runtime, name)
    answer = runtime.exec(f"ctr --namespace k8s.io run --rm {name} test {command} 2>&1")
    assert expected.format(version=name.rsplit(":", 1)[1]) in answer


def test_coredns_binds_port_53_without_being_root(runtime: LabHost) -> None:
    name = next(image.name for image in IMAGES if "coredns" in image.name)
    pull(runtime, name)
    runtime.exec(f"ctr --namespace k8s.io run --detach {name} dns /coredns")
    try:
        find = "for pid in $(pgrep -x coredns); do grep -E '^(Uid|CapEff)' /proc/$pid/status; done"
        wait_for(lambda: "65532" in runtime.exec(find), 10)
        assert "0000000000000400" in runtime.exec(find), "CAP_NET_BIND_SERVICE from the file, and no other"
    finally:
        runtime.exec(
            "ctr --namespace k8s.io task delete --force dns; ctr --namespace k8s.io container delete dns"
        )


def test_pause_ends_when_asked(runtime: LabHost) -> None:
    name = next(image.name for image in IMAGES if "/pause:" in image.name)
    pull(runtime, name)
    runtime.exec(f"ctr --namespace k8s.io run --detach {name} pause")
    runtime.exec("ctr --namespace k8s.io task kill --signal SIGTERM pause")
    wait_for(lambda: "STOPPED" in runtime.exec("ctr --namespace k8s.io task list"), 5)
    runtime.exec("ctr --namespace k8s.io container delete pause")


def test_mirror_stays_while_a_host_needs_it(host: LabHost) -> None:
    mirror.remove_mirror()
    assert host.exec(f"curl -fsS -o /dev/null -w '%{{http_code}}' http://{MIRROR}/v2/") == "200"


def test_image_that_nobody_put_there_is_not_found(runtime: LabHost) -> None:
    with pytest.raises(LabError, match="not found"):
        pull(runtime, "registry.k8s.io/kube-apiserver:v0.0.0")


def test_recipes_hold_no_private_key(host: LabHost) -> None:
    listing = docker("run", "--rm", "--entrypoint", "find", IMAGE, "/etc/ssh", "/root", "-name", "*key*")
    assert listing == ""
    assert docker("run", "--rm", "--entrypoint", "cat", IMAGE, "/etc/machine-id") == ""
