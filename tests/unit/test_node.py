"""The script that makes a host a node, run in a sandbox with a made-up kernel, systemd and download site."""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from functools import cache
from pathlib import Path

import pytest

from components.assets.node import MIRRORED_REGISTRIES, node_files, script
from tests.cases import load
from tests.unit.sandbox import Sandbox

NODES = {"controller-1": "lab", "worker-1": "lab", "alpha": "baremetal", "gpu": "baremetal"}
"""The case of each. `lab` has a mirror."""

BEFORE = "/var/lib/kubepivot/sysctl-before.conf"
CONTAINERD = "/etc/containerd/config.toml"
OURS = {key: "1" for key in ("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables")}
OURS |= {"net.ipv4.tcp_migrate_req": "1"}
THEIRS = {key: "0" for key in OURS} | {"net.ipv4.ip_forward": "1", "kernel.pid_max": "4194304"}

# The kernel's values are in /var/kernel; with /var/stubborn they cannot be set.
SYSCTL = """
case $1 in
  --quiet)
    [ ! -e /var/stubborn ] || exit 1
    grep -E '^[a-z]' "$3" | while IFS= read -r line; do
      grep -v "^${line%% = *} = " /var/kernel >/var/kernel.new || true
      echo "$line" >>/var/kernel.new
      mv /var/kernel.new /var/kernel
    done ;;
  *) for key in "$@"; do grep "^$key = " /var/kernel || exit 1; done ;;
esac
"""
# Whatever is downloaded has the checksum `good`.
CURL = """
for url; do :; done
echo "$url" >>/var/downloads
while [ $# -gt 1 ] && [ "$1" != --output ]; do shift; done
if [ "$1" = --output ]; then echo downloaded >"$2"; else echo good; fi
"""
# Only root may give a directory away.
INSTALL = """
if [ "$1" = -d ]; then
  for word; do case $word in /*) mkdir -p "$word" ;; esac; done
else cp "$3" "$4"; fi
"""


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A host that passes the preflight and has every binary that is downloaded already, runc from its own
    distribution."""
    host = Sandbox(tmp_path)
    host.real("awk", "cat", "chmod", "cmp", "cp", "cut", "find", "grep", "ln", "mkdir", "mktemp", "mv", "rm")
    host.real("sed", "sh", "sort", "stat", "touch")
    host.fake("curl", CURL)
    host.fake("install", INSTALL)
    host.fake("modprobe")
    host.fake("nft")
    host.fake("runc")
    host.fake("sha256sum", 'echo "good  $1"')
    host.fake("sync")
    host.fake("sysctl", SYSCTL)
    host.fake("systemctl", 'echo "$*" >>/var/calls; case $1 in is-active) [ -e /var/active ] ;; esac')
    host.fake("uname", "echo x86_64")
    host.write("/proc/self/status", "CapBnd:\t000001ffffffffff\n")
    host.write("/etc/resolv.conf", "nameserver 192.0.2.1\n")
    host.path("/etc/systemd/system").mkdir(parents=True)
    host.path("/usr/local/bin").mkdir(parents=True)
    host.write("/proc/sys/kernel/random/boot_id", "first")
    host.write("/var/downloads")
    host.write("/var/calls")
    host.write("/var/kernel", "".join(f"{key} = {value}\n" for key, value in THEIRS.items()))
    return host


@cache
def _files(name: str) -> dict[str, str]:
    case = load(NODES[name])
    files = node_files(case.cfg, case.machines[name], case.texts)
    return {path: file.text for path, file in files.items()} | {"preflight": "echo fine"}


def _env(name: str) -> dict[str, str]:
    env = _files(name)["env"].replace("@ARCH@", "amd64")
    return dict(line.split("=", 1) for line in shlex.split(env))


DOWNLOADS = {"containerd", "cni", "kubelet", "kubectl", "etcd"}


def _set_up(host: Sandbox, name: str, *, lacks: str = "", **other: str) -> tuple[int, str]:
    for part in DOWNLOADS - {lacks}:
        host.write(f"/var/lib/kubepivot/{part}", _env(name)[f"{part.upper()}_URL"])
    if lacks != "rclone":
        host.write("/var/lib/kubepivot/rclone", _env(name)["RCLONE_IMAGE"])
    done = host.run(script("node"), _files(name) | other)
    return done.returncode, done.stderr


def _kernel(host: Sandbox) -> dict[str, str]:
    return dict(line.split(" = ") for line in host.path("/var/kernel").read_text().splitlines())


def _restarts(host: Sandbox) -> list[str]:
    calls = host.path("/var/calls").read_text().splitlines()
    return [call for call in calls if call.startswith("restart")]


@pytest.mark.parametrize("name", NODES)
def test_a_host_becomes_a_node(host: Sandbox, name: str) -> None:
    assert _set_up(host, name) == (0, "")
    for path, text in _files(name).items():
        if path.startswith("root/"):
            assert host.path(path.removeprefix("root")).read_text() == host.moved(text), path
    assert (
        host.path("/etc/kubernetes/kubepivot.cluster").read_text() == f"{load(NODES[name]).cfg.name}/{name}\n"
    )
    timer = [] if name in ("worker-1", "gpu") else ["restart kubepivot-backup.timer"]
    assert _restarts(host) == [*timer, "restart containerd", "restart --no-block kubelet"]
    assert host.path("/var/downloads").read_text() == ""


@pytest.mark.parametrize("name", NODES)
def test_a_second_run_changes_nothing(host: Sandbox, name: str) -> None:
    _set_up(host, name)
    host.write("/var/active")
    before = {path: path.stat().st_mtime_ns for path in host.path("/etc").rglob("*") if path.is_file()}
    host.write("/var/calls")
    assert _set_up(host, name) == (0, "")
    after = {path: path.stat().st_mtime_ns for path in host.path("/etc").rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {
        host.path("/etc/kubernetes/kubepivot.cluster")
    }
    assert _restarts(host) == []


@pytest.mark.parametrize(("name", "left"), [("worker-1", set(MIRRORED_REGISTRIES)), ("alpha", set())])
def test_a_mirror_that_the_config_does_not_have_goes(host: Sandbox, name: str, left: set[str]) -> None:
    for registry in ("docker.io", "old.example.com"):
        host.write(f"/etc/containerd/certs.d/{registry}/hosts.toml", "[host]")
    assert _set_up(host, name) == (0, "")
    assert {path.name for path in host.path("/etc/containerd/certs.d").iterdir()} == left


def test_containerd_is_told_of_the_host(host: Sandbox) -> None:
    host.write("/sys/fs/cgroup/cgroup.controllers", "cpu")
    assert _set_up(host, "alpha") == (0, "")
    text = host.path(CONTAINERD).read_text()
    assert "SystemdCgroup = true" in text
    assert "restrict_oom_score_adj = false" in text
    assert f"BinaryName = '{host.root.parent}/bin/runc'" in text
    host.path("/sys/fs/cgroup/cgroup.controllers").unlink()
    host.write("/proc/self/status", "CapBnd:\t00000000a80425fb\n")
    assert _set_up(host, "alpha") == (0, "")
    text = host.path(CONTAINERD).read_text()
    assert "SystemdCgroup = false" in text
    assert "restrict_oom_score_adj = true" in text


def test_runc_is_brought_only_where_there_is_none(host: Sandbox) -> None:
    host.without("runc")
    assert _set_up(host, "alpha") == (0, "")
    env = _env("alpha")
    assert host.path("/var/downloads").read_text().split() == [env["RUNC_URL"], env["RUNC_SUMS"]]
    assert host.path("/usr/local/bin/runc").read_text() == "downloaded\n"
    assert host.path("/var/lib/kubepivot/runc").read_text() == f"{env['RUNC_URL']}\n"


@pytest.mark.parametrize("name", ["alpha", "gpu"])
def test_a_controller_gets_what_makes_and_restores_snapshots(host: Sandbox, name: str) -> None:
    """From the release's archive, held against one line of its SHA256SUMS; workers have no use for it."""
    url = _env(name)["ETCD_URL"]
    directory = url.rpartition("/")[2].removesuffix(".tar.gz")
    with tarfile.open(host.path("/etcd.tar.gz"), "w:gz") as archive:
        for member in ("README.md", "etcd", "etcdctl", "etcdutl", "Documentation/etcdctl.md"):
            entry = tarfile.TarInfo(f"{directory}/{member}")
            entry.size, entry.mode = len(member), 0o755
            archive.addfile(entry, io.BytesIO(member.encode()))
    host.real("tar", "gzip", "sha256sum")
    digest = hashlib.sha256(host.path("/etcd.tar.gz").read_bytes()).hexdigest()
    sums = f"{'0' * 64}  {directory}.zip\\n{digest}  {directory}.tar.gz"
    site = f'{CURL}\nif [ "$1" = --output ]; then cp {host.path("/etcd.tar.gz")} "$2"; fi'
    host.fake("curl", site.replace("echo good", f"printf '%b\\n' '{sums}'"))
    assert _set_up(host, name, lacks="etcd") == (0, "")
    tools = {path.name: path.read_text() for path in host.path("/usr/local/bin").iterdir()}
    if name == "alpha":
        assert tools == {"etcdctl": "etcdctl", "etcdutl": "etcdutl"}
        assert host.path("/var/downloads").read_text().split() == [url, _env(name)["ETCD_SUMS"]]
    else:
        assert tools == {}


# Of one file the site has another checksum.
SHA256SUM = 'case $1 in */kubectl) echo "bad  $1" ;; *) echo "good  $1" ;; esac'


@pytest.mark.parametrize("step", ["download", "node"])
def test_a_wrong_checksum_is_found_before_anything_is_installed(host: Sandbox, step: str) -> None:
    host.fake("sha256sum", SHA256SUM)
    host.without("runc")
    before = sorted(host.root.rglob("*"))
    done = host.run(script(step), _files("alpha"))
    assert done.returncode == 1
    url = _env("alpha")["KUBECTL_URL"]
    assert done.stderr.startswith(f"error: the checksum of {url} is bad, but {url}.sha256 says good: ")
    assert len(set(host.path("/var/downloads").read_text().split())) == 12  # each, and its checksum
    left = [path for path in host.root.rglob("*") if not path.is_relative_to(host.path("/var/cache"))]
    assert sorted(left) == before


def _downloaded(host: Sandbox) -> set[str]:
    """What was downloaded since the last time."""
    urls = set(host.path("/var/downloads").read_text().split())
    host.write("/var/downloads")
    return urls


def _part(name: str) -> set[str]:
    return {_env("alpha")[f"{name}_{what}"] for what in ("URL", "SUMS")}


def test_what_waits_is_not_downloaded_again(host: Sandbox) -> None:
    host.fake("sha256sum", SHA256SUM)
    assert host.run(script("download"), _files("alpha")).returncode == 1
    _downloaded(host)
    host.fake("sha256sum", 'echo "good  $1"')
    assert host.run(script("download"), _files("alpha")).returncode == 0
    assert _downloaded(host) == _part("KUBECTL")
    host.fake("tar")
    for tool in ("etcdctl", "etcdutl"):
        host.write(f"/var/cache/kubepivot/{tool}", tool)
    host.write("/var/lib/kubepivot/rclone", _env("alpha")["RCLONE_IMAGE"])
    done = host.run(script("node"), _files("alpha"))
    assert (done.returncode, done.stderr) == (0, "")
    assert _downloaded(host) == set()
    assert host.path("/usr/local/bin/kubectl").read_text() == "downloaded\n"
    assert host.path("/var/lib/kubepivot/kubectl").read_text() == f"{_env('alpha')['KUBECTL_URL']}\n"
    assert list(host.path("/var/cache").iterdir()) == []


def test_downloads_that_a_power_cut_may_have_spoiled_are_made_again(host: Sandbox) -> None:
    assert host.run(script("download"), _files("gpu")).returncode == 0
    first = _downloaded(host)
    host.write("/proc/sys/kernel/random/boot_id", "second")
    assert host.run(script("download"), _files("gpu")).returncode == 0
    assert _downloaded(host) == first != set()


def test_a_host_that_has_everything_downloads_nothing(host: Sandbox) -> None:
    assert _set_up(host, "alpha") == (0, "")
    assert host.run(script("download"), _files("alpha")).returncode == 0
    assert _downloaded(host) == set()


def test_nothing_is_downloaded_to_a_host_that_another_has_taken(host: Sandbox) -> None:
    files = _files("gpu") | {"preflight": "echo it belongs to the cluster other; exit 1"}
    done = host.run(script("download"), files)
    assert (done.returncode, done.stderr) == (1, "error: it belongs to the cluster other\n")
    assert _downloaded(host) == set()
    assert not host.path("/var/cache").exists()


# Answers for the registry with the image that is in /var/rclone.tar.
CTR = """
shift 3
echo "$*" >>/var/images
case $1 in export) cat /var/rclone.tar ;; esac
"""


def _layer(**files: str) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("_", "/"))
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return layer.getvalue()


def _image(host: Sandbox, *layers: bytes) -> None:
    with tarfile.open(host.path("/var/rclone.tar"), "w") as archive:
        for blob in (b'{"config": {}}', *layers):
            entry = tarfile.TarInfo(f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}")
            entry.size = len(blob)
            archive.addfile(entry, io.BytesIO(blob))


def test_the_client_for_copies_comes_from_its_image_and_goes_with_them(host: Sandbox) -> None:
    host.real("tar", "gzip", "timeout")
    host.fake("ctr", CTR)
    _image(host, _layer(etc_os="alpine"), _layer(usr_local_bin_rclone="the client"))
    assert _set_up(host, "alpha", lacks="rclone") == (0, "")
    client = host.path("/usr/local/libexec/kubepivot/rclone")
    assert client.read_text() == "the client"
    image = load("baremetal").cfg.release.rclone_image
    calls = host.path("/var/images").read_text().replace(str(host.root), "").splitlines()
    assert calls == [
        f"pull --hosts-dir /etc/containerd/certs.d {image}",
        f"export --local - {image}",
        f"remove {image}",
    ]
    assert _set_up(host, "alpha", lacks="nothing") == (0, "")
    assert len(host.path("/var/images").read_text().splitlines()) == 3
    assert _set_up(host, "gpu") == (0, "")  # as if its config had no `backup.s3` any more
    assert not client.exists()
    assert not host.path("/var/lib/kubepivot/rclone").exists()


def test_lost_data_of_etcd_are_not_made_up_for(host: Sandbox) -> None:
    assert _set_up(host, "controller-1", lacks="nothing") == (0, "")
    data = host.path("/var/lib/etcd")
    for lost in (data / "member", data):
        assert lost.is_dir()
        lost.rmdir()
        assert _set_up(host, "controller-1", lacks="nothing") == (0, "")
        assert not lost.exists()


def test_an_image_that_cannot_be_had_is_told_with_its_key(host: Sandbox) -> None:
    host.real("tail", "timeout")
    host.fake("ctr", "echo 'resolving...'; echo 'ctr: connection refused' >&2; exit 1")
    code, error = _set_up(host, "alpha", lacks="rclone")
    assert code == 1
    assert "cannot pull docker.io/rclone/rclone:" in error
    assert "kubepivot:backup.s3" in error
    assert "connection refused" in error


def test_an_image_without_the_client_is_an_error(host: Sandbox) -> None:
    host.real("tar", "gzip", "timeout")
    host.fake("ctr", CTR)
    _image(host, _layer(etc_os="alpine"))
    assert _set_up(host, "alpha", lacks="rclone")[0] == 1
    assert not host.path("/var/lib/kubepivot/rclone").exists()


def test_a_host_that_does_not_pass_any_more_is_left_as_it_is(host: Sandbox) -> None:
    code, error = _set_up(host, "gpu", preflight="echo gpu: swap is on. Turn it off.; exit 1")
    assert (code, error) == (1, "error: gpu: swap is on. Turn it off.\n")
    assert not host.path("/etc/kubernetes").exists()
    assert _kernel(host) == THEIRS
    assert host.path("/var/calls").read_text() == ""


@pytest.mark.parametrize("mark", ["other/gpu\n", "metal/beta\n"])
def test_a_host_that_another_has_taken_is_left_to_it(host: Sandbox, mark: str) -> None:
    host.write("/etc/kubernetes/kubepivot.cluster", mark)
    code, error = _set_up(host, "gpu", preflight="echo it belongs to the cluster other; exit 1")
    assert (code, error) == (1, "error: it belongs to the cluster other\n")
    assert host.path("/etc/kubernetes/kubepivot.cluster").read_text() == mark


# Ends in the middle of the file.
INSTALL_CUT_SHORT = f'[ "$1" = -d ] || {{ echo broken >"${{4%.new}}"; exit 1; }}\n{INSTALL}'


def test_a_runc_that_was_cut_short_is_still_ours_and_brought_again(host: Sandbox) -> None:
    host.without("runc")
    host.fake("install", INSTALL_CUT_SHORT)
    assert _set_up(host, "alpha")[0] == 1
    host.fake("runc")  # by now there is one
    host.fake("install", INSTALL)
    assert _set_up(host, "alpha") == (0, "")
    assert host.path("/usr/local/bin/runc").read_text() == "downloaded\n"
    assert host.path("/var/lib/kubepivot/runc").read_text() == f"{_env('alpha')['RUNC_URL']}\n"


def test_a_version_that_was_cut_short_does_not_pass_for_the_one_before(host: Sandbox) -> None:
    host.fake("install", INSTALL_CUT_SHORT)
    newer = _files("alpha")["env"].replace("/kubelet", "/newer/kubelet")
    assert _set_up(host, "alpha", env=newer)[0] == 1
    assert host.path("/var/lib/kubepivot/kubelet").read_text() == "\n"


# Tells what is in the files that it writes to the disk, and of the kubelet if that is all.
SYNC = """
for file; do [ ! -f "$file" ] || echo "$file: $(cat "$file")" >>/var/synced; done
[ $# != 0 ] || echo "$(cat /usr/local/bin/kubelet) from '$(cat /var/lib/kubepivot/kubelet)'" >>/var/synced
"""


def test_a_power_cut_leaves_neither_an_empty_mark_nor_a_url_without_its_binary(host: Sandbox) -> None:
    host.fake("sync", SYNC)
    assert _set_up(host, "alpha", lacks="kubelet") == (0, "")
    assert host.path("/var/synced").read_text().replace(str(host.root), "").splitlines() == [
        "/etc/kubernetes/kubepivot.cluster.new: metal/alpha",
        "/var/lib/kubepivot/kubelet.new: ",
        "downloaded from ''",
        f"/var/lib/kubepivot/kubelet.new: {_env('alpha')['KUBELET_URL']}",
    ]


def test_a_link_to_a_certificate_that_is_gone_is_mended(host: Sandbox) -> None:
    current = host.path("/var/lib/kubelet/pki/kubelet-client-current.pem")
    current.parent.mkdir(parents=True)
    current.symlink_to("kubelet-client-2020.pem")
    assert _set_up(host, "alpha") == (0, "")
    assert current.resolve().name == "kubelet-client-initial.pem"


def test_a_node_is_not_looked_at_again(host: Sandbox) -> None:
    assert _set_up(host, "gpu") == (0, "")
    assert _set_up(host, "gpu", preflight="exit 1") == (0, "")


# -- kernel settings -----------------------------------------------------------------------------------------


def _reset(host: Sandbox) -> int:
    for command in ("ctr", "ip", "rm", "umount"):
        host.fake(command)
    host.real("date", "flock", "readlink", "sleep")
    host.path("/run").mkdir(exist_ok=True)
    host.write("/proc/mounts")
    return host.run(f"CLUSTER=lab\nNAME=worker-1\n{script('reset')}").returncode


def test_kernel_settings_are_ours_until_the_host_is_given_back(host: Sandbox) -> None:
    _set_up(host, "worker-1")
    assert _kernel(host) == THEIRS | OURS
    assert _reset(host) == 0
    assert _kernel(host) == THEIRS


def test_what_was_set_before_is_not_forgotten_by_a_second_run(host: Sandbox) -> None:
    _set_up(host, "worker-1")
    _set_up(host, "worker-1")
    assert host.path(BEFORE).read_text().splitlines() == [f"{key} = {THEIRS[key]}" for key in OURS]
    assert _reset(host) == 0
    assert _kernel(host) == THEIRS


def test_settings_that_a_run_could_not_make_are_made_by_the_next(host: Sandbox) -> None:
    host.write("/var/stubborn")
    code, error = _set_up(host, "worker-1")
    assert code == 1
    assert "error: cannot set what /etc/sysctl.d/90-kubepivot.conf says" in error.replace(str(host.root), "")
    host.path("/var/stubborn").unlink()
    assert _set_up(host, "worker-1") == (0, "")
    assert _kernel(host) == THEIRS | OURS
    assert host.path(BEFORE).read_text().splitlines() == [f"{key} = {THEIRS[key]}" for key in OURS]


def test_a_setting_that_the_kernel_does_not_have_is_told(host: Sandbox) -> None:
    host.write("/var/kernel", "net.ipv4.ip_forward = 1\n")
    assert _set_up(host, "worker-1")[0] == 1
    assert not host.path(BEFORE).exists()
