"""The script that makes a host a node, run in a sandbox."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from components.assets.controlplane import FORMER_UID, UID
from components.assets.node import MIRRORED_REGISTRIES
from tests.cases import load
from tests.sweeps import swept
from tests.unit.new_host import (
    INSTALL,
    NODES,
    OURS,
    THEIRS,
    arrange,
    env_of,
    files_of,
    install,
    reset,
    set_up,
)
from tests.unit.sandbox import Sandbox

BEFORE = "/var/lib/kubepivot/sysctl-before.conf"
CONTAINERD = "/etc/containerd/config.toml"


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    return arrange(Sandbox(tmp_path))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sandbox]:
    """The host that has become the node of that name."""

    @cache
    def made(name: str) -> Sandbox:
        host = arrange(Sandbox(tmp_path_factory.mktemp(name)))
        assert set_up(host, name) == (0, "")
        return host

    return made


@pytest.fixture
def node(nodes: Callable[[str], Sandbox], tmp_path: Path) -> Callable[[str], Sandbox]:
    """That one, for one test."""
    return lambda name: nodes(name).copied(tmp_path)


def _kernel(host: Sandbox) -> dict[str, str]:
    return dict(line.split(" = ") for line in host.path("/var/kernel").read_text().splitlines())


def _calls(host: Sandbox, verb: str) -> list[str]:
    calls = host.path("/var/calls").read_text().splitlines()
    return [call for call in calls if call.startswith(verb)]


def _restarts(host: Sandbox) -> list[str]:
    return _calls(host, "restart")


@pytest.mark.parametrize("name", swept(NODES))
def test_a_host_becomes_a_node(node: Callable[[str], Sandbox], name: str) -> None:
    host = node(name)
    for path, text in files_of(name).items():
        if path.startswith("root/"):
            assert host.path(path.removeprefix("root")).read_text() == host.moved(text), path
    assert (
        host.path("/etc/kubernetes/kubepivot.cluster").read_text() == f"{load(NODES[name]).cfg.name}/{name}\n"
    )
    timer = [] if name in ("worker-1", "gpu") else ["restart kubepivot-backup.timer"]
    assert _restarts(host) == [
        "restart kubepivot-node.service",
        *timer,
        *("restart containerd", "restart kubelet"),
    ]
    more = " kubepivot-backup.timer kubepivot-checkpoints" if timer else ""
    assert _calls(host, "enable") == [f"enable --quiet containerd kubelet kubepivot-node.service{more}"]
    assert host.path("/var/downloads").read_text() == ""


def test_of_containerd_a_host_gets_what_it_runs(host: Sandbox) -> None:
    """Their names are on record. What else is in the archive is left there: nobody has to list it first."""
    assert install(host, "gpu") == (0, "")
    programs = {path.name for path in host.path("/usr/local/bin").iterdir()}
    assert programs == {"containerd", "containerd-shim-runc-v2", "ctr", "kubelet"}


@pytest.mark.parametrize("name", swept(NODES))
def test_a_second_run_changes_nothing(node: Callable[[str], Sandbox], name: str) -> None:
    host = node(name)
    host.write("/var/active")
    before = {path: path.stat().st_mtime_ns for path in host.path("/etc").rglob("*") if path.is_file()}
    host.write("/var/calls")
    assert set_up(host, name) == (0, "")
    after = {path: path.stat().st_mtime_ns for path in host.path("/etc").rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {
        host.path("/etc/kubernetes/kubepivot.cluster")
    }
    assert _restarts(host) == []


@pytest.mark.parametrize(("name", "left"), [("worker-1", set(MIRRORED_REGISTRIES)), ("alpha", set())])
def test_a_mirror_that_the_config_does_not_have_goes(host: Sandbox, name: str, left: set[str]) -> None:
    for registry in ("docker.io", "old.example.com"):
        host.write(f"/etc/containerd/certs.d/{registry}/hosts.toml", "[host]")
    assert set_up(host, name) == (0, "")
    assert {path.name for path in host.path("/etc/containerd/certs.d").iterdir()} == left


def test_containerd_is_told_of_the_host(host: Sandbox) -> None:
    host.write("/sys/fs/cgroup/cgroup.controllers", "cpu")
    assert set_up(host, "alpha") == (0, "")
    text = host.path(CONTAINERD).read_text()
    assert "SystemdCgroup = true" in text
    assert "restrict_oom_score_adj = false" in text
    assert f"BinaryName = '{host.root.parent}/bin/runc'" in text
    host.path("/sys/fs/cgroup/cgroup.controllers").unlink()
    host.write("/proc/self/status", "CapBnd:\t00000000a80425fb\n")
    assert set_up(host, "alpha") == (0, "")
    text = host.path(CONTAINERD).read_text()
    assert "SystemdCgroup = false" in text
    assert "restrict_oom_score_adj = true" in text


@pytest.mark.parametrize(
    ("route", "server"),
    [
        ("default via 192.0.2.9 dev eth0", "192.0.2.9"),
        ("default dev eth0 scope link", "192.168.7.11"),
        ("", "192.168.7.11"),
    ],
)
def test_without_a_name_server_there_is_one_to_ask(host: Sandbox, route: str, server: str) -> None:
    """CoreDNS does not start with an empty list, such as a closed network has."""
    host.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
    host.fake("ip", f'[ "$*" = "route show default" ] && echo "{route}"')
    assert set_up(host, "alpha") == (0, "")
    assert host.path("/etc/kubernetes/resolv.conf").read_text() == f"nameserver {server}\n"


def test_lost_data_of_etcd_are_not_made_up_for(node: Callable[[str], Sandbox]) -> None:
    host = node("controller-1")
    data = host.path("/var/lib/etcd")
    for lost in (data / "member", data):
        assert lost.is_dir()
        lost.rmdir()
        assert set_up(host, "controller-1", lacks="nothing") == (0, "")
        assert not lost.exists()


def test_a_host_that_does_not_pass_any_more_is_left_as_it_is(host: Sandbox) -> None:
    code, error = set_up(host, "gpu", preflight="echo gpu: swap is on. Turn it off.; exit 1")
    assert (code, error) == (1, "error: gpu: swap is on. Turn it off.\n")
    assert not host.path("/etc/kubernetes").exists()
    assert _kernel(host) == THEIRS
    assert host.path("/var/calls").read_text() == ""


@pytest.mark.parametrize("mark", ["other/gpu\n", "metal/beta\n"])
def test_a_host_that_another_has_taken_is_left_to_it(host: Sandbox, mark: str) -> None:
    host.write("/etc/kubernetes/kubepivot.cluster", mark)
    code, error = set_up(host, "gpu", preflight="echo it belongs to the cluster other; exit 1")
    assert (code, error) == (1, "error: it belongs to the cluster other\n")
    assert host.path("/etc/kubernetes/kubepivot.cluster").read_text() == mark


# Ends in the middle of the file.
INSTALL_CUT_SHORT = f'[ "$1" = -d ] || {{ echo broken >"${{4%.new}}"; exit 1; }}\n{INSTALL}'


def test_a_runc_that_was_cut_short_is_still_ours_and_brought_again(host: Sandbox) -> None:
    host.without("runc")
    host.fake("install", INSTALL_CUT_SHORT)
    assert set_up(host, "alpha")[0] == 1
    host.fake("runc")  # by now there is one
    host.fake("install", INSTALL)
    assert set_up(host, "alpha") == (0, "")
    assert host.path("/usr/local/bin/runc").read_text() == "downloaded\n"
    assert host.path("/var/lib/kubepivot/runc").read_text() == f"{env_of('alpha')['RUNC_URL']}\n"


def test_a_version_that_was_cut_short_does_not_pass_for_the_one_before(host: Sandbox) -> None:
    host.fake("install", INSTALL_CUT_SHORT)
    newer = files_of("alpha")["env"].replace("/kubelet", "/newer/kubelet")
    assert set_up(host, "alpha", env=newer)[0] == 1
    assert host.path("/var/lib/kubepivot/kubelet").read_text() == "\n"


# Tells what is in the files that it writes to the disk, and names binaries.
SYNC = """
for file; do
  case $file in
    */sysctl-before.conf.new) ;;
    */kubepivot.made.new | */kubepivot.cluster.new | */kubepivot/[a-z]*.new)
      echo "$file: $(head -n 1 "$file")" >>/var/synced ;;
    bridge.new | bin/containerd.new | */bin/kubelet.new) echo "$file" >>/var/synced ;;
  esac
done
"""


def test_a_power_cut_leaves_neither_an_empty_mark_nor_a_url_without_its_binary(host: Sandbox) -> None:
    """The record is on the disk before the mark, and that before anything else is made."""
    host.real("head")
    host.fake("sync", SYNC)
    assert install(host, "gpu") == (0, "")
    synced = host.path("/var/synced").read_text().replace(str(host.root), "").splitlines()
    parts = {part: env_of("gpu")[f"{part.upper()}_URL"] for part in ("cni", "containerd", "kubelet")}
    swapped = [*parts][1:]
    assert synced == [
        "/etc/kubernetes/kubepivot.made.new: tree /etc/cni/net.d",
        "/etc/kubernetes/kubepivot.cluster.new: metal/gpu",
        "/var/lib/kubepivot/cni.new: ",
        "bridge.new",
        f"/var/lib/kubepivot/cni.new: {parts['cni']}",
        *(f"/var/lib/kubepivot/{part}.new: " for part in swapped),
        "bin/containerd.new",
        "/usr/local/bin/kubelet.new",
        *(f"/var/lib/kubepivot/{part}.new: {parts[part]}" for part in swapped),
        "/var/lib/kubepivot/last-change.new: none",
    ]


@pytest.mark.parametrize(
    ("torn", "part", "file"),
    [
        ("containerd", "containerd", "/usr/local/bin/containerd"),
        ("cni-plugins", "cni", "/opt/cni/bin/bridge"),
    ],
)
def test_what_cannot_be_unpacked_leaves_what_runs_whole(
    host: Sandbox, torn: str, part: str, file: str
) -> None:
    """On a full disk: without containerd the node would start nothing any more."""
    assert install(host, "gpu") == (0, "")
    host.write(file, "older")
    host.write(f"/var/lib/kubepivot/{part}", "https://example.com/older")
    host.path("/var/lib/kubepivot/last-change").unlink()
    code, said = install(host, "gpu", torn=torn)
    assert (code, host.path(file).read_text()) == (1, "older")
    assert f"error: cannot unpack {part} into " in said
    # Else it counts as verified.
    host.path(f"/var/cache/kubepivot/{part}.url").unlink()
    shutil.rmtree(host.path("/var/lib/kubepivot/stage"), ignore_errors=True)
    assert install(host, "gpu") == (0, "")
    assert host.path(file).read_text() != "older"
    assert not list(host.path(file).parent.glob("*.new"))


def test_a_link_to_a_certificate_that_is_gone_is_mended(host: Sandbox) -> None:
    current = host.path("/var/lib/kubelet/pki/kubelet-client-current.pem")
    current.parent.mkdir(parents=True)
    current.symlink_to("kubelet-client-2020.pem")
    assert set_up(host, "alpha") == (0, "")
    assert current.resolve().name == "kubelet-client-initial.pem"


def test_a_renewed_certificate_takes_over_from_the_kubelets_own(node: Callable[[str], Sandbox]) -> None:
    """Its own may have ended while the host was off."""
    host = node("gpu")
    current = host.path("/var/lib/kubelet/pki/kubelet-client-current.pem")
    current.unlink()
    current.symlink_to("kubelet-client-2026.pem")
    host.write("/var/lib/kubelet/pki/kubelet-client-2026.pem", "the kubelet's own")
    host.write("/var/active")
    assert set_up(host, "gpu") == (0, "")
    assert current.resolve().name == "kubelet-client-2026.pem"
    host.write("/var/calls")
    renewed = {"root/var/lib/kubelet/pki/kubelet-client-initial.pem": "renewed"}
    assert set_up(host, "gpu", **renewed) == (0, "")
    assert current.resolve().read_text() == "renewed"
    assert _restarts(host) == ["restart kubelet"]


def test_the_token_of_before_goes(host: Sandbox) -> None:
    host.write("/etc/kubernetes/bootstrap.kubeconfig", "a token")
    assert set_up(host, "gpu") == (0, "")
    assert not host.path("/etc/kubernetes/bootstrap.kubeconfig").exists()


@pytest.mark.parametrize("older", [True, False])
def test_a_cluster_keeps_the_user_that_it_was_made_with(host: Sandbox, older: bool) -> None:
    """Beside a kube-apiserver of another user one can't listen, and another etcd takes most of a minute."""
    host.write("/etc/kubernetes/pki/etcd/server.key", "of before")
    host.fake("chown", 'echo "$*" >>/var/chowned')
    former = os.getuid() if older else os.getuid() + 1
    env = files_of("controller-1")["env"].replace(f"FORMER_UID={FORMER_UID}", f"FORMER_UID={former}")
    assert set_up(host, "controller-1", env=env) == (0, "")
    pod = yaml.safe_load(host.path("/etc/kubernetes/manifests/etcd.yaml").read_text())
    security = pod["spec"]["securityContext"]
    assert security["runAsUser"] == security["runAsGroup"] == (former if older else UID)
    chowned = host.path("/var/chowned")
    assert chowned.exists() == older
    assert not older or chowned.read_text().startswith(f"-R {former}:{former} root")


def test_a_node_is_not_looked_at_again(node: Callable[[str], Sandbox]) -> None:
    host = node("gpu")
    assert set_up(host, "gpu", preflight="exit 1") == (0, "")


# -- kernel settings -----------------------------------------------------------------------------------------


def test_kernel_settings_are_ours_until_the_host_is_given_back(node: Callable[[str], Sandbox]) -> None:
    host = node("worker-1")
    assert _kernel(host) == THEIRS | OURS
    assert reset(host, "worker-1") == (0, "")
    assert _kernel(host) == THEIRS


def test_what_was_set_before_is_not_forgotten_by_a_second_run(node: Callable[[str], Sandbox]) -> None:
    host = node("worker-1")
    set_up(host, "worker-1")
    assert host.path(BEFORE).read_text().splitlines() == [f"{key} = {THEIRS[key]}" for key in OURS]
    assert reset(host, "worker-1") == (0, "")
    assert _kernel(host) == THEIRS


def test_settings_that_a_run_could_not_make_are_made_by_the_next(host: Sandbox) -> None:
    host.write("/var/stubborn")
    code, error = set_up(host, "worker-1")
    assert code == 1
    assert "error: cannot set what /etc/sysctl.d/90-kubepivot.conf says" in error.replace(str(host.root), "")
    host.path("/var/stubborn").unlink()
    assert set_up(host, "worker-1") == (0, "")
    assert _kernel(host) == THEIRS | OURS
    assert host.path(BEFORE).read_text().splitlines() == [f"{key} = {THEIRS[key]}" for key in OURS]


def test_a_setting_that_the_kernel_does_not_have_is_told(host: Sandbox) -> None:
    host.write("/var/kernel", "net.ipv4.ip_forward = 1\n")
    assert set_up(host, "worker-1")[0] == 1
    assert not host.path(BEFORE).exists()
