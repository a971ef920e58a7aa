"""How a running etcd is swapped: the script, run in a sandbox whose kubelet starts what the manifest says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from components.assets.etcd import swap_files
from components.assets.templates import script
from tests.cases import load
from tests.sweeps import swept
from tests.unit.sandbox import Sandbox

MANIFEST, CONFIG = "/etc/kubernetes/manifests/etcd.yaml", "/etc/kubernetes/etcd.conf.yml"
UNPROVEN, FORMER = "/var/lib/kubepivot/etcd-unproven", "/var/lib/kubepivot/etcd-former"

# The running container is in /var/container, and the next one starts when that is killed; with /var/broken
# only from the manifest of before. /var/images has what is there.
CTR = """
echo "$*" >>/var/calls
case "$*" in
  *"tasks list") echo TASK PID STATUS; [ ! -e /var/container ] || echo "$(cat /var/container) 1 RUNNING" ;;
  *"containers list"*) echo first; echo second; echo third ;;
  *"containers info first") echo '    "io.kubernetes.pod.uid": "uid-of-before",' ;;
  *"images list"*) for name; do :; done; grep -xF "${name#name==}" /var/images || true ;;
  *"images pull"*)
    for name; do :; done
    [ ! -e /var/unreachable ] || { echo no such host; exit 1; }
    echo "$name" >>/var/images ;;
  *"kill --signal SIGKILL first") echo second >/var/container ;;
  *"kill --signal SIGKILL second") echo third >/var/container ;;
esac
"""
ETCDCTL = """
case "$*" in
  *"endpoint status --cluster") [ ! -e /var/member-down ] || exit 1 ;;
  *"endpoint health"*) [ ! -e /var/alarm ] || exit 1 ;;
  *"endpoint status"*)
    case $(cat /var/container) in second) version=$(cat /var/after) ;; *) version=$(cat /var/before) ;; esac
    echo '[{"Status":{"version":"'$version'","storageVersion":"'$(cat /var/storage)'"}}]' ;;
  *"downgrade enable"*)
    for minor; do :; done
    echo "enable $minor" >>/var/calls
    [ ! -e /var/refused ] || { cat /var/refused; exit 1; }
    echo $minor.0 >/var/storage ;;
esac
"""
CURL = """
for url; do :; done
case "$*" in
  *:2381/readyz)
    [ ! -e /var/slow ] || exit 28
    [ ! -e /var/down ] || exit 7
    [ -e /var/broken ] && ! grep -qE 'first|third' /var/container || exit 0
    grep -q etcd:before /etc/kubernetes/manifests/etcd.yaml && echo third >/var/container ;;
  *http://*:2379) exit 7 ;;
  *DELETE*) echo "$*" >/var/deleted ;;
  */pods/etcd-controller-1)
    if [ -e /var/deleted ]; then image=$(sed -n 's/^.* image: //p' /etc/kubernetes/manifests/etcd.yaml)
    else image=example.com/etcd:before; fi
    printf '{"spec": {"containers": [{"name": "etcd",\n "image": "%s"}]}}' "$image" ;;
  *) [ ! -e /var/no-api ] ;;
esac
"""


def files() -> dict[str, str]:
    case = load("lab")
    return {
        path: file.text
        for path, file in swap_files(case.cfg, case.machines["controller-1"], case.machines).items()
    }


IMAGE = load("lab").cfg.release.etcd_image
VERSION = load("lab").cfg.release.etcd
NEW_MANIFEST, NEW_CONFIG = files()[f"root{MANIFEST}"], files()[f"root{CONFIG}"]
BEFORE = NEW_MANIFEST.replace(IMAGE, "example.com/etcd:before")


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A controller whose etcd is of another version of the same minor."""
    host = Sandbox(tmp_path)
    host.real(
        "awk", "cat", "chmod", "cmp", "cp", "cut", "find", "grep", "ls", "mkdir", "mv", "rm", "sed", "sort"
    )
    host.real("stat", "tail", "timeout", "tr")
    host.fake("sync")
    host.fake("sleep")
    host.fake("date", "read -r now </var/now; now=$((now + 20)); echo $now >/var/now; echo $now")
    host.fake("ctr", CTR)
    host.fake("systemctl", 'echo "$*" >>/var/calls; [ "$1" != is-active ] || [ ! -e /var/stopped ]')
    host.fake("etcdutl", "cat /var/data")
    host.fake("etcdctl", ETCDCTL)
    host.fake("curl", CURL)
    host.write("/etc/kubernetes/node.env", "API=https://api\nTHROUGH=\n")
    host.write(MANIFEST, host.moved(BEFORE))
    host.write(CONFIG, host.moved(NEW_CONFIG))
    for path, text in {
        "/var/now": "0\n",
        "/var/container": "first",
        "/var/images": "",
        "/var/calls": "",
        "/var/before": f"{VERSION}-before",
        "/var/after": VERSION,
        "/var/storage": f"{VERSION.rpartition('.')[0]}.0",
        "/var/lib/kubepivot/mark": "",
        "/var/log/pods/kube-system_etcd-controller-1_x/etcd/0.log": "bad flag\n",
    }.items():
        host.write(path, text)
    return host


def swap(host: Sandbox, **other: str) -> subprocess.CompletedProcess[str]:
    return host.run(script("etcd"), files() | other)


def calls(host: Sandbox) -> list[str]:
    """What was changed in containerd and etcd."""
    words = ("pull", "kill", "enable")
    said = host.path("/var/calls").read_text().splitlines()
    return [each.rpartition(" signal")[2] for each in said if any(word in each for word in words)]


def placed(host: Sandbox) -> tuple[str, str | None]:
    """Image and uid of the pod that the kubelet is to run."""
    pod = yaml.safe_load(host.path(MANIFEST).read_text())
    return pod["spec"]["containers"][0]["image"], pod["metadata"].get("uid")


def is_proven(host: Sandbox) -> bool:
    return not host.path(UNPROVEN).exists() and not host.path(FORMER).exists()


KILL = "--namespace k8s.io tasks kill --signal"
PULL = f"--namespace k8s.io images pull --hosts-dir /etc/containerd/certs.d {IMAGE}"


def test_another_image_is_there_before_the_container_ends_and_the_pod_stays(host: Sandbox) -> None:
    done = swap(host)
    assert (done.returncode, done.stderr) == (0, "")
    assert [each.replace(str(host.root), "") for each in calls(host)] == [PULL, f"{KILL} SIGKILL first"]
    assert placed(host) == (IMAGE, "uid-of-before")
    deleted = host.path("/var/deleted").read_text()
    assert "https://api/api/v1/namespaces/kube-system/pods/etcd-controller-1" in deleted
    assert is_proven(host)


def test_what_is_in_use_is_left_alone(host: Sandbox) -> None:
    swap(host)
    host.write("/var/calls")
    host.path("/var/deleted").unlink()
    assert swap(host).returncode == 0
    assert host.path("/var/calls").read_text() == ""
    assert placed(host) == (IMAGE, "uid-of-before")
    assert not host.path("/var/deleted").exists()


def test_other_options_start_the_container_anew(host: Sandbox) -> None:
    host.write(MANIFEST, host.moved(NEW_MANIFEST))
    host.write(CONFIG, "quota-backend-bytes: 1\n")
    assert swap(host).returncode == 0
    assert calls(host)[-2:] == [f"{KILL} SIGTERM first", f"{KILL} SIGKILL first"]
    assert placed(host) == (IMAGE, None)
    assert host.path(CONFIG).read_text() == host.moved(NEW_CONFIG)
    assert is_proven(host)


def test_what_else_changes_is_another_pod(host: Sandbox) -> None:
    """With the same image and uid the kubelet would go on with the container that it has."""
    manifest = NEW_MANIFEST.replace("metadata:\n", "metadata:\n  uid: uid-of-before\n").replace("50m", "10m")
    host.write(MANIFEST, host.moved(manifest))
    assert swap(host).returncode == 0
    assert placed(host) == (IMAGE, None)
    assert f"{KILL} SIGTERM first" not in calls(host)


def test_an_etcd_that_is_down_is_placed_and_not_waited_for(host: Sandbox) -> None:
    host.write("/var/down")
    assert swap(host).returncode == 0
    assert placed(host) == (IMAGE, None)
    assert calls(host) == []
    assert is_proven(host)


def test_an_etcd_that_is_slow_is_not_down(host: Sandbox) -> None:
    """While all hosts unpack what they have got its answer may take longer than one look."""
    host.write("/var/slow")
    host.fake("sleep", "rm -f /var/slow")
    assert swap(host).returncode == 0
    assert calls(host)[-1] == f"{KILL} SIGKILL first"


def test_an_image_that_cannot_be_had_changes_nothing(host: Sandbox) -> None:
    host.write("/var/unreachable")
    done = swap(host)
    assert done.returncode == 1
    assert (
        f"error: cannot pull {IMAGE}, and etcd is as it was: let the host reach its registry" in done.stderr
    )
    assert "no such host" in done.stderr
    assert placed(host) == ("example.com/etcd:before", None)
    assert not host.path(UNPROVEN).exists()


def test_what_does_not_serve_is_taken_back(host: Sandbox) -> None:
    host.write("/var/broken")
    host.write(CONFIG, "former: options\n")
    done = swap(host)
    assert done.returncode == 1
    assert f"timed out waiting for etcd {VERSION} to serve\nbad flag\n" in done.stderr
    assert f"error: etcd {VERSION} does not serve, and what ran before has been put back" in done.stderr
    assert placed(host) == ("example.com/etcd:before", "uid-of-before")
    assert host.path(CONFIG).read_text() == "former: options\n"
    assert is_proven(host)


def test_options_that_do_not_serve_are_taken_back_with_the_container_that_has_them(host: Sandbox) -> None:
    """Its image is the same, so that the kubelet lets it run."""
    host.write("/var/broken")
    host.write(MANIFEST, host.moved(NEW_MANIFEST))
    host.write(CONFIG, "former: options\n")
    done = swap(host)
    assert done.returncode == 1
    assert "what ran before has been put back" in done.stderr
    assert calls(host)[-1] == f"{KILL} SIGKILL second"
    assert host.path(CONFIG).read_text() == "former: options\n"
    assert is_proven(host)


def test_an_etcd_whose_quota_is_used_up_is_swapped(host: Sandbox) -> None:
    """It serves all the same, and a larger quota is how it is mended."""
    host.write("/var/alarm")
    assert swap(host).returncode == 0
    assert is_proven(host)


def test_with_a_member_that_does_not_answer_no_other_ends(host: Sandbox) -> None:
    host.write("/var/member-down")
    done = swap(host)
    assert done.returncode == 1
    assert "timed out waiting for every member of etcd to answer: bring back the one that does" in done.stderr
    assert placed(host) == ("example.com/etcd:before", None)
    assert not host.path(UNPROVEN).exists()
    assert not any("kill" in each for each in calls(host))


def test_without_an_api_nothing_is_asked_of_it(host: Sandbox) -> None:
    host.write("/var/no-api")
    assert swap(host).returncode == 0
    assert not host.path("/var/deleted").exists()


# -- a run that was cut short --------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "every"), swept([("ctr", 3), ("mv", 1)]))
def test_a_run_that_was_cut_short_is_ended_by_the_next(host: Sandbox, step: str, every: int) -> None:
    """Power fails at every command of that name in turn, or every third."""
    body = CTR if step == "ctr" else f'exec /bin/{step} "$@"'
    cut = 0
    for turn in range(1, 40, every):
        host.write(MANIFEST, host.moved(BEFORE))
        host.write(CONFIG, "former: options\n")
        host.write("/var/container", "first")
        host.write("/var/turn", "0\n")
        count = "read -r turn </var/turn; turn=$((turn + 1)); echo $turn >/var/turn"
        host.fake(step, f"{count}; [ $turn != {turn} ] || kill -9 $PPID\n{body}")
        done = swap(host)
        host.write("/var/turn", "1000\n")
        if done.returncode == 0:
            break
        cut += 1
        again = swap(host)
        assert (again.returncode, again.stderr) == (0, ""), turn
        assert placed(host) == (IMAGE, "uid-of-before")
        assert host.path(CONFIG).read_text() == host.moved(NEW_CONFIG)
        assert host.path("/var/container").read_text() == "second\n"
        assert is_proven(host)
    assert cut > 1


# -- an older minor ------------------------------------------------------------------------------------------


@pytest.fixture
def newer(host: Sandbox) -> Sandbox:
    host.write("/var/before", "3.99.1")
    host.write("/var/storage", "3.99.0")
    return host


def test_data_are_made_those_of_the_older_minor_first(newer: Sandbox) -> None:
    assert swap(newer).returncode == 0
    assert calls(newer)[-2:] == [f"enable {VERSION.rpartition('.')[0]}", f"{KILL} SIGKILL first"]


def test_a_downgrade_that_has_begun_is_waited_for(newer: Sandbox) -> None:
    newer.write("/var/refused", "etcdserver: cluster has a downgrade job in progress")
    done = swap(newer)
    assert done.returncode == 1
    assert f"timed out waiting for etcd's data to be those of {VERSION.rpartition('.')[0]}" in done.stderr
    assert placed(newer) == ("example.com/etcd:before", None)


def test_a_downgrade_that_is_refused_is_told(newer: Sandbox) -> None:
    newer.write("/var/refused", "etcdserver: invalid downgrade target version")
    done = swap(newer)
    assert done.returncode == 1
    assert "error: etcd 3.99.1, which is as it was, cannot give its data to" in done.stderr
    assert "invalid downgrade target version" in done.stderr
    assert placed(newer) == ("example.com/etcd:before", None)


def test_data_that_are_the_newer_minors_by_now_are_not_given_back_to_the_older(host: Sandbox) -> None:
    """It would not start on them."""
    host.write("/var/before", "3.1.9")
    host.write("/var/broken")
    done = swap(host)
    assert done.returncode == 1
    assert f"error: etcd {VERSION} does not serve as it should, and can't be taken back" in done.stderr
    assert placed(host) == (IMAGE, "uid-of-before")
    assert host.path(UNPROVEN).exists()
    host.path("/var/broken").unlink()
    assert swap(host).returncode == 0
    assert is_proven(host)


@pytest.fixture
def down(newer: Sandbox) -> Sandbox:
    """A newer minor that does not answer."""
    newer.write(MANIFEST, newer.moved(NEW_MANIFEST.replace(IMAGE, "example.com/etcd:v3.99.1")))
    newer.write("/var/down")
    newer.write("/var/lib/etcd/member/snap/db")
    newer.write("/var/data", '{"hash":1,"revision":5,"totalKey":9,"version":"3.99.0"}')
    return newer


def test_an_older_minor_is_not_placed_while_the_newer_is_down(down: Sandbox) -> None:
    done = swap(down)
    assert done.returncode == 1
    older = VERSION.rpartition(".")[0]
    assert f"error: etcd is down, and {older}, which is to take its place, would not start" in done.stderr
    assert placed(down) == ("example.com/etcd:v3.99.1", None)


def test_what_keeps_the_newer_down_is_mended_first(down: Sandbox) -> None:
    """It may be a kubelet that was stopped."""
    down.write("/var/stopped")
    assert swap(down).returncode == 1
    started = [each for each in down.path("/var/calls").read_text().splitlines() if each.startswith("start ")]
    assert started == ["start containerd", "start kubelet"]


def test_one_that_is_only_starting_is_waited_for(down: Sandbox) -> None:
    down.fake("sleep", "rm -f /var/down")
    assert swap(down).returncode == 0
    assert calls(down)[-2:] == [f"enable {VERSION.rpartition('.')[0]}", f"{KILL} SIGKILL first"]


def test_of_data_that_cannot_be_read_nothing_is_taken_for_granted(down: Sandbox) -> None:
    """An etcd that runs, and does not answer for want of others, holds a lock on them."""
    down.fake("etcdutl", "exit 124")
    assert swap(down).returncode == 1
    assert placed(down) == ("example.com/etcd:v3.99.1", None)


@pytest.mark.parametrize("lost", [False, True])
def test_a_newer_minor_that_never_served_is_taken_back_at_once(down: Sandbox, lost: bool) -> None:
    """The data are the older one's still; or there are none."""
    down.write("/var/data", f'{{"version":"{VERSION.rpartition(".")[0]}.0"}}')
    if lost:
        down.path("/var/lib/etcd/member/snap/db").unlink()
    down.write(UNPROVEN, "first\n")
    assert swap(down).returncode == 0
    assert placed(down)[0] == IMAGE
    assert is_proven(down)
