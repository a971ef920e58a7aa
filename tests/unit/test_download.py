"""What a host downloads to become a node, from sites and from an image: the scripts, run in a sandbox."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from components.assets.templates import script
from tests.cases import load
from tests.unit.new_host import CURL, MARK, NODES, arrange, env_of, files_of, set_up
from tests.unit.sandbox import Sandbox


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    return arrange(Sandbox(tmp_path))


def test_runc_is_brought_only_where_there_is_none(host: Sandbox) -> None:
    host.without("runc")
    assert set_up(host, "alpha") == (0, "")
    env = env_of("alpha")
    assert host.path("/var/downloads").read_text().split() == [env["RUNC_URL"], env["RUNC_SUMS"]]
    assert host.path("/usr/local/bin/runc").read_text() == "downloaded\n"
    assert host.path("/var/lib/kubepivot/runc").read_text() == f"{env['RUNC_URL']}\n"


@pytest.mark.parametrize("name", ["alpha", "gpu"])
def test_a_controller_gets_what_makes_and_restores_snapshots(host: Sandbox, name: str) -> None:
    """From the release's archive, held against one line of its SHA256SUMS; workers have no use for it."""
    url = env_of(name)["ETCD_URL"]
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
    assert set_up(host, name, lacks="etcd") == (0, "")
    tools = {path.name: path.read_text() for path in host.path("/usr/local/bin").iterdir()}
    if name == "alpha":
        assert tools == {"etcdctl": "etcdctl", "etcdutl": "etcdutl"}
        assert host.path("/var/downloads").read_text().split() == [url, env_of(name)["ETCD_SUMS"]]
    else:
        assert tools == {}


# Of one file the site has another checksum.
SHA256SUM = 'case $1 in */kubectl) echo "bad  $1" ;; *) echo "good  $1" ;; esac'


@pytest.mark.parametrize("step", ["download", "node"])
def test_a_wrong_checksum_is_found_before_anything_is_installed(host: Sandbox, step: str) -> None:
    host.fake("sha256sum", SHA256SUM)
    host.without("runc")
    before = sorted(host.root.rglob("*"))
    done = host.run(script(step), files_of("alpha"))
    assert done.returncode == 1
    url = env_of("alpha")["KUBECTL_URL"]
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
    return {env_of("alpha")[f"{name}_{what}"] for what in ("URL", "SUMS")}


# Something, wherever it is told to.
UNPACK = """
while [ "$1" != --directory ]; do shift; done
echo unpacked >"$2/unpacked.new"
echo unpacked.new
"""


def test_what_waits_is_not_downloaded_again(host: Sandbox) -> None:
    host.fake("sha256sum", SHA256SUM)
    assert host.run(script("download"), files_of("alpha")).returncode == 1
    _downloaded(host)
    host.fake("sha256sum", 'echo "good  $1"')
    assert host.run(script("download"), files_of("alpha")).returncode == 0
    assert _downloaded(host) == _part("KUBECTL")
    host.fake("tar", UNPACK)
    for tool in ("etcdctl", "etcdutl"):
        host.write(f"/var/cache/kubepivot/{tool}", tool)
    host.write("/var/lib/kubepivot/rclone", env_of("alpha")["RCLONE_IMAGE"])
    host.write(MARK, "metal/alpha\n")
    done = host.run(script("node"), files_of("alpha"))
    assert (done.returncode, done.stderr) == (0, "")
    assert _downloaded(host) == set()
    assert host.path("/usr/local/bin/kubectl").read_text() == "downloaded\n"
    assert host.path("/var/lib/kubepivot/kubectl").read_text() == f"{env_of('alpha')['KUBECTL_URL']}\n"
    assert list(host.path("/var/cache").iterdir()) == []


def test_downloads_that_a_power_cut_may_have_spoiled_are_made_again(host: Sandbox) -> None:
    assert host.run(script("download"), files_of("gpu")).returncode == 0
    first = _downloaded(host)
    host.write("/proc/sys/kernel/random/boot_id", "second")
    assert host.run(script("download"), files_of("gpu")).returncode == 0
    assert _downloaded(host) == first != set()


def test_a_host_that_has_everything_downloads_nothing(host: Sandbox) -> None:
    assert set_up(host, "alpha") == (0, "")
    assert host.run(script("download"), files_of("alpha")).returncode == 0
    assert _downloaded(host) == set()


def test_nothing_is_downloaded_to_a_host_that_another_has_taken(host: Sandbox) -> None:
    files = files_of("gpu") | {"preflight": "echo it belongs to the cluster other; exit 1"}
    done = host.run(script("download"), files)
    assert (done.returncode, done.stderr) == (1, "error: it belongs to the cluster other\n")
    assert _downloaded(host) == set()
    assert not host.path("/var/cache").exists()


# -- room for it ---------------------------------------------------------------------------------------------


def _disks(host: Sandbox, **free: int) -> None:
    """Gives the directories of these names disks of their own, with so many MiB; all else has room."""
    of = "".join(f"*/{name.replace('_', '/')}*) {{}} ;; " for name in free)
    numbers = of.format(*(f"echo {number}" for number in range(2, 9)))
    stat = shutil.which("stat")
    host.fake(
        "stat", f'case "$*" in *"-c %d "*) case $4 in {numbers} *) echo 1 ;; esac ;; *) {stat} "$@" ;; esac'
    )
    sizes = of.format(*(f"echo {size}" for size in free.values()))
    host.fake("df", f"echo Avail; case $3 in {sizes} *) echo 20000 ;; esac")
    for name in free:
        host.path(f"/{name.replace('_', '/')}").mkdir(parents=True, exist_ok=True)


def _needs(host: Sandbox, name: str, *has: str) -> str:
    """The error of a host that is this one already, and has those parts."""
    host.write(MARK, f"{load(NODES[name]).cfg.name}/{name}\n")
    for part in has:
        host.write(f"/var/lib/kubepivot/{part}", env_of(name)[f"{part.upper()}_URL"])
    return host.run(script("download"), files_of(name)).stderr.replace(str(host.root), "")


ROOM = {
    "downloads": (
        {"var_cache": 99},
        ("containerd", "cni"),
        "/var/cache/kubepivot: 99 MiB are free, and 100 are needed",
    ),
    "binaries": ({"usr": 99}, ("containerd", "cni"), "/usr/local/bin: 99 MiB are free, and 100 are needed"),
    "plugins": ({"opt": 99}, ("containerd", "kubelet"), "/opt/cni/bin: 99 MiB are free, and 100 are needed"),
    "images": (
        {"var_lib_containerd": 499},
        ("containerd", "cni"),
        "/var/lib/containerd: 499 MiB are free, and 500 are needed",
    ),
    "what waits on another disk than the downloads": (
        {"var_lib_kubepivot": 99},
        ("containerd", "cni"),
        "/var/lib/kubepivot: 99 MiB are free, and 100 are needed",
    ),
    "together on one disk": (
        {"var": 749},
        ("cni",),
        "/var/cache/kubepivot, /var/lib/containerd: 749 MiB are free, and 750 are needed",
    ),
}


@pytest.mark.parametrize("what", ROOM)
def test_without_room_nothing_is_downloaded(host: Sandbox, what: str) -> None:
    free, has, told = ROOM[what]
    _disks(host, **free)
    assert _needs(host, "gpu", *has) == (
        f"error: gpu has no room for what it is to get: {told}; make space there, then run 'pulumi up' "
        "again. Nothing was changed\n"
    )
    assert _downloaded(host) == set()
    _disks(host, **{name: size + 1 for name, size in free.items()})
    assert _needs(host, "gpu", *has) == ""
    assert _downloaded(host) != set()


def test_every_disk_without_room_is_told(host: Sandbox) -> None:
    _disks(host, usr=1, opt=2)
    said = _needs(host, "alpha")
    assert "/usr/local/bin: 1 MiB are free, and 430 are needed" in said
    assert "/opt/cni/bin: 2 MiB are free, and 100 are needed" in said


def test_a_host_that_has_everything_needs_no_room(host: Sandbox) -> None:
    _disks(host, usr=0, opt=0, var=0)
    assert _needs(host, "gpu", "containerd", "cni", "kubelet") == ""


def test_what_was_downloaded_has_had_its_room(host: Sandbox) -> None:
    assert _needs(host, "gpu") == ""
    _disks(host, usr=0, opt=0, var=0)
    assert _needs(host, "gpu") == ""


# -- the client for copies -----------------------------------------------------------------------------------

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
    assert set_up(host, "alpha", lacks="rclone") == (0, "")
    client = host.path("/usr/local/libexec/kubepivot/rclone")
    assert client.read_text() == "the client"
    image = load("baremetal").cfg.release.rclone_image
    calls = host.path("/var/images").read_text().replace(str(host.root), "").splitlines()
    assert calls == [
        f"pull --hosts-dir /etc/containerd/certs.d {image}",
        f"export --local - {image}",
        f"remove {image}",
    ]
    assert set_up(host, "alpha", lacks="nothing") == (0, "")
    assert len(host.path("/var/images").read_text().splitlines()) == 3
    without_s3 = re.sub(r"(?m)^RCLONE_IMAGE=.*$", "RCLONE_IMAGE=", files_of("alpha")["env"])
    assert set_up(host, "alpha", env=without_s3) == (0, "")
    assert not client.exists()
    assert not host.path("/var/lib/kubepivot/rclone").exists()


def test_an_image_that_cannot_be_had_is_told_with_its_key(host: Sandbox) -> None:
    host.real("tail", "timeout")
    host.fake("ctr", "echo 'resolving...'; echo 'ctr: connection refused' >&2; exit 1")
    code, error = set_up(host, "alpha", lacks="rclone")
    assert code == 1
    assert "cannot pull docker.io/rclone/rclone:" in error
    assert "kubepivot:backup.s3" in error
    assert "connection refused" in error


def test_a_client_that_is_cut_short_is_an_error(host: Sandbox) -> None:
    """As on a full disk."""
    host.real("tar", "gzip", "timeout")
    host.fake("ctr", CTR)
    layer = _layer(usr_local_bin_rclone="the client" * 1000)
    _image(host, layer[: len(layer) - 12])
    assert set_up(host, "alpha", lacks="rclone")[0] != 0
    assert not host.path("/usr/local/libexec/kubepivot/rclone").exists()
    assert not host.path("/var/lib/kubepivot/rclone").exists()


def test_an_image_without_the_client_is_an_error(host: Sandbox) -> None:
    host.real("tar", "gzip", "timeout")
    host.fake("ctr", CTR)
    _image(host, _layer(etc_os="alpine"))
    assert set_up(host, "alpha", lacks="rclone")[0] == 1
    assert not host.path("/var/lib/kubepivot/rclone").exists()
