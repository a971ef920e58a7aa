"""What the node's script records of a host, and that a reset removes that and nothing else: both are run
here, one after the other, in a sandbox."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.assets.claims import claims_script
from components.assets.node import node_files
from tests.cases import load
from tests.sweeps import swept
from tests.unit.new_host import MARK, NODES, RECORD, arrange, files_of, install, reset, set_up
from tests.unit.sandbox import Sandbox

LOCK = "/run/kubepivot.lock"

# By the kubelet, containerd, flannel and the CNI plugins.
MADE_BY_WHAT_RUNS = [
    *("/var/lib/kubelet/pods/1/volumes/x", "/var/lib/containerd/io/blobs", "/opt/cni/bin/flannel"),
    *("/opt/containerd/bin", "/opt/containerd/lib", "/etc/cni/net.d/10-flannel.conflist"),
    *("/var/lib/cni/networks/cbr0/10.2.0.2", "/var/log/pods/x/0.log", "/var/log/containers/x.log"),
    *(
        "/run/flannel/subnet.env",
        "/run/containerd/x",
        "/run/nri",
        "/etc/kubernetes/checkpoints/secrets/ca.key",
    ),
    *("/usr/libexec/kubernetes/kubelet-plugins/volume/exec", "/usr/local/bin/kubelet.new"),
]

# None of these is in the way of a worker.
FOREIGN = [
    *("/var/lib/etcd/member/wal", "/usr/local/bin/kubectl", "/usr/local/bin/etcdctl", "/usr/local/bin/other"),
    *("/opt/containerd/bin/theirs", "/opt/cni/theirs/x", "/etc/cni/theirs", "/usr/local/libexec/theirs"),
    *("/usr/libexec/kubernetes/kubelet-plugins/volume/exec/driver/driver", "/etc/sysctl.d/theirs.conf"),
]


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    host = arrange(Sandbox(tmp_path))
    host.path("/run").mkdir()
    host.write(LOCK)
    return host


def _run_pods(host: Sandbox) -> None:
    for path in MADE_BY_WHAT_RUNS:
        if path.rpartition("/")[2] in ("bin", "lib", "nri", "exec"):
            host.path(path).mkdir(parents=True, exist_ok=True)
        else:
            host.write(path, "made by what runs")


def _all(host: Sandbox) -> list[Path]:
    """All that is on the host but what the fakes write."""
    fakes = ("calls", "downloads", "kernel")
    return sorted(
        path for path in host.root.rglob("*") if path.name not in fakes and "site" not in path.parts
    )


@pytest.mark.parametrize("name", ["lab", "baremetal"])
def test_what_a_node_step_places_is_looked_for_before(name: str) -> None:
    """By a preflight, which refuses a host where it is taken."""
    case = load(name)
    for machine in case.machines.values():
        text = f"nl=''\nROLE={machine.role}\n{claims_script()}\necho $files\necho $trees"
        done = subprocess.run(
            ["sh", "-eu"], input=text, capture_output=True, text=True, timeout=10, check=True
        )
        files, trees = (set(line.split()) for line in done.stdout.splitlines())
        found = node_files(case.cfg, machine, case.machines, case.texts)
        placed = [path.removeprefix("root") for path in found if path.startswith("root/")]
        assert placed
        for path in placed:
            assert path in files or any(path.startswith(f"{tree}/") for tree in trees), path


@pytest.mark.parametrize("name", swept(["controller-1", "worker-1", "gpu"]))
def test_a_host_is_given_back_as_it_was(host: Sandbox, name: str) -> None:
    before = _all(host)
    assert install(host, name) == (0, "")
    _run_pods(host)
    if NODES[name] == "lab" and name.startswith("controller"):
        host.write("/var/lib/etcd/member/wal")
    assert reset(host, name) == (0, "")
    assert [path for path in _all(host) if path != host.path("/var/cache")] == before


def test_what_was_there_before_stays(host: Sandbox) -> None:
    for path in FOREIGN:
        host.write(path, "theirs")
    for path in ("/etc/containerd", "/var/lib/cni", "/var/log/pods", "/etc/kubernetes"):
        host.path(path).mkdir(parents=True)
    before = _all(host)
    assert install(host, "worker-1") == (0, "")
    _run_pods(host)
    assert reset(host, "worker-1") == (0, "")
    assert [path for path in _all(host) if path != host.path("/var/cache")] == before
    assert {host.path(path).read_text() for path in FOREIGN} == {"theirs"}


def test_links_to_another_disk_are_emptied_and_stay(host: Sandbox) -> None:
    disk = host.path("/disk")
    for name in ("kubelet", "containerd", "etcd"):
        (disk / name / "lost+found").mkdir(parents=True)
        host.path("/var/lib").mkdir(exist_ok=True)
        host.path(f"/var/lib/{name}").symlink_to(disk / name)
    host.write(
        "/proc/mounts", f"/dev/sdb {disk}/kubelet ext4 rw 0 0\n/dev/sdc {disk}/containerd ext4 rw 0 0\n"
    )
    (disk / "etcd/lost+found").rmdir()
    assert install(host, "controller-1") == (0, "")
    _run_pods(host)
    host.write("/var/lib/kubelet/pods/1/ca.key")
    assert reset(host, "controller-1") == (0, "")
    assert [path for path in disk.rglob("*") if path.is_file()] == []
    assert sorted(path.name for path in disk.glob("*/*")) == ["lost+found", "lost+found"]
    assert all(host.path(f"/var/lib/{name}").is_symlink() for name in ("kubelet", "containerd", "etcd"))
    assert not host.path(MARK).exists()


def test_what_was_moved_to_another_disk_after_the_installation_goes_with_its_link(host: Sandbox) -> None:
    assert install(host, "worker-1") == (0, "")
    moved = host.path("/disk/kubelet")
    moved.parent.mkdir()
    host.path("/var/lib/kubelet").rename(moved)
    host.path("/var/lib/kubelet").symlink_to(moved)
    (moved / "key").touch()
    assert reset(host, "worker-1") == (0, "")
    assert not host.path("/var/lib/kubelet").is_symlink()
    assert list(moved.iterdir()) == []


def test_a_link_to_a_disk_that_is_away_is_no_success(host: Sandbox) -> None:
    (host.path("/disk/kubelet")).mkdir(parents=True)
    host.path("/var/lib").mkdir(exist_ok=True)
    host.path("/var/lib/kubelet").symlink_to(host.path("/disk/kubelet"))
    assert install(host, "worker-1") == (0, "")
    host.path("/disk/kubelet").rename(host.path("/disk/away"))
    code, error = reset(host, "worker-1")
    assert code == 1
    assert "which is not there" in error and "mount its disk" in error
    assert host.path(MARK).exists() and host.path(RECORD).exists()
    host.path("/disk/away").rename(host.path("/disk/kubelet"))
    assert reset(host, "worker-1") == (0, "")


def test_nothing_is_made_before_it_is_recorded(host: Sandbox) -> None:
    before = _all(host)
    host.fake("sync", "exit 1")  # the power fails
    assert install(host, "gpu")[0] == 1
    made = {
        path for path in _all(host) if path not in before and not path.is_relative_to(host.path("/var/cache"))
    }
    assert made == {host.path("/etc/kubernetes"), host.path(f"{RECORD}.new")}
    host.fake("sync")
    assert install(host, "gpu") == (0, "")
    for path in (path for path in _all(host) if path not in before and path.is_file()):
        claims = [line.split()[1] for line in host.path(RECORD).read_text().splitlines()]
        assert any(str(path) == claim or str(path).startswith(f"{claim}/") for claim in claims), path


def test_a_record_without_a_mark_gives_nobody_anything(host: Sandbox) -> None:
    """Its installation never began, and by now the host may be another's."""
    host.write(RECORD, f"tree {host.path('/etc/kubernetes')}\ntree {host.path('/var/lib/kubelet')}\n")
    host.write("/var/lib/kubelet/theirs")
    assert reset(host, "gpu") == (0, "")
    assert host.path("/var/lib/kubelet/theirs").exists()
    assert not host.path("/etc/kubernetes").exists()
    host.write(RECORD, f"tree {host.path('/var/lib/cni')}\n")
    host.path("/var/lib/cni").mkdir()
    host.path("/var/lib/kubelet/theirs").unlink()
    assert install(host, "gpu") == (0, "")
    assert f"content {host.path('/var/lib/cni')}\n" in host.path(RECORD).read_text()


def test_what_comes_to_be_in_the_way_is_not_overwritten(host: Sandbox) -> None:
    assert install(host, "gpu") == (0, "")
    new = {**files_of("gpu"), "root/etc/systemd/system/kubepivot-new.service": "[Unit]"}
    theirs = "/etc/systemd/system/kubepivot-new.service"
    host.write(theirs, "theirs")
    code, error = set_up(host, "gpu", **new)
    assert (code, error) == (
        1,
        f"error: {host.path(theirs)} is there already and was not put there by kubepivot: move it away\n",
    )
    host.path(theirs).unlink()
    assert set_up(host, "gpu", **new) == (0, "")
    assert f"file {host.path(theirs)}\n" in host.path(RECORD).read_text()
    assert reset(host, "gpu") == (0, "")
    assert not host.path(theirs).exists()


@pytest.mark.parametrize("renewed", swept([True, False]), ids=["up and reset", "reset"])
@pytest.mark.parametrize("name", swept(["controller-1", "worker-1"]))
def test_a_node_without_a_record_is_carried_over(host: Sandbox, name: str, renewed: bool) -> None:
    """It was installed before there was one."""
    theirs = ["/etc/containerd/conf.d/theirs.toml", "/var/lib/cni/theirs", "/opt/containerd/bin/theirs"]
    theirs += ["/usr/local/bin/theirs", "/opt/cni/theirs"]
    theirs += ["/var/lib/etcd/theirs", "/usr/local/bin/kubectl"] if name == "worker-1" else []
    for path in theirs:
        host.write(path, "theirs")
    before = _all(host)
    host.path("/var/lib/kubelet").symlink_to(host.path("/disk"))
    host.path("/disk").mkdir()
    mark = f"lab/{name}\n"
    host.write(MARK, mark)
    assert install(host, name) == (0, "")
    host.path(RECORD).unlink()
    _run_pods(host)
    if renewed:
        assert install(host, name) == (0, "")
        assert host.path(RECORD).exists()
    assert reset(host, name) == (0, "")
    assert list(host.path("/disk").iterdir()) == []
    assert host.path("/var/lib/kubelet").is_symlink()
    # The system's own directories, which others share: whether they were there before nobody knows.
    shared = ("/var/cache", "/var/log", "/etc/sysctl.d", "/etc/modules-load.d", "/usr/libexec")
    left = {path for path in _all(host) if path not in before}
    assert left <= {host.path(path) for path in ("/disk", "/var/lib/kubelet", *shared)}
    assert [path for path in before if not path.exists()] == []
