"""A controller without a control plane and the script that brings it back, in a sandbox: kubelet, containerd,
etcd and the API are made up, and what they do is in files below /var.

    host = arrange(Sandbox(tmp_path))
    code, told = run(host)
    assert is_recovered(host)
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from components.assets.recovery import recovery_files
from components.assets.templates import script
from components.config import parse
from tests.cases import load
from tests.unit.sandbox import DIRECT, Sandbox

MANIFESTS = "/etc/kubernetes/manifests"
DATA = "/var/lib/etcd"
STATE = "/var/lib/kubepivot"
SNAPSHOT = "/var/lib/kubepivot/snapshot.db"
CHECKPOINT = f"{MANIFESTS}/kube-apiserver-checkpoint.json"
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "pod-checkpointer")

# Every command of the made-up host counts; the one whose number is in `die-at` kills the script instead.
COUNT = """
read -r number </var/number
read -r last </var/die-at
number=$((number + 1))
echo $number >/var/number
[ "$number" != "$last" ] || { kill -9 $PPID; exit 9; }
"""
# Containers are files `<container>.<pod>` of /var/tasks.
CTR = """
case "$*" in
  *"tasks list") echo "TASK PID STATUS"; for task in /var/tasks/*; do echo "${task##*/} 1 RUNNING"; done ;;
  *"containers list"*)
    filter=$* only="" one=/
    case $filter in *pod.uid\\"==*) only=${filter#*pod.uid\\"==} ;; esac
    case $filter in *pod.name\\"!=*) one=${filter#*pod.name\\"!=} ;; esac
    name=${filter#*container.name\\"==}
    for task in /var/tasks/"${name%%,*}.$only"*; do
      [ "${task##*.}" != "${one%%,*}" ] || continue
      [ ! -e "$task" ] || echo "${task##*/}"
    done ;;
  *"tasks kill --signal"*)
    for task; do :; done
    echo "$*" | sed 's/.* --signal/kill/' >>/var/calls
    case $* in *SIGTERM*hung*) ;; *) rm "/var/tasks/$task" ;; esac ;;
esac
"""
# What a kubelet does with the new pods.
RUN_PODS = """
[ ! -e /var/stale ] && [ -e /var/new-pods ] || exit 0
awk -F '|' '$4 == "controller-1" { print $3 "." $1 }' /var/new-pods |
  while read -r task; do : >"/var/tasks/$task"; done
"""
SYSTEMCTL = """
echo "$*" >>/var/calls
case "$*" in
  "stop kubelet") rm -f /var/kubelet ;;
  *)
    : >/var/kubelet
    if [ -e /etc/kubernetes/manifests/etcd.yaml ]; then
      [ -e /var/lib/etcd/member ] || { mkdir -p /var/lib/etcd/member; : >/var/etcd-was-empty; }
      : >/var/tasks/etcd.etcd
    fi
    run-pods ;;
esac
"""
ETCDCTL = """
case "$*" in
  *"endpoint health") [ -e /var/tasks/etcd.etcd ] && [ ! -e /var/alarm ] ;;
  *"alarm list") [ ! -e /var/alarm ] || cat /var/alarm ;;
  *" get /registry/namespaces/kube-system --keys-only") cat /var/lib/etcd/member/keys ;;
  *" del "*) echo "etcd ${*##* del }" >>/var/calls ;;
  *) exit 1 ;;
esac
"""
ETCDUTL = """
case "$2" in
  status) grep -q /registry "$3" || { echo "not a database"; exit 1; } ;;
  restore)
    for flag; do case $flag in --data-dir=*) data=${flag#*=} ;; esac; done
    mkdir -p "$data/member"; cp "$3" "$data/member/keys"; echo "$*" >/var/restore ;;
esac
"""
# Where the kube-apiservers answer: two real ones, one of them at localhost too, and the temporary one.
CURL = """
case "$*" in
  *" ::127.0.64.2:6443 https://localhost:6443/readyz") echo "subject: CN=kube-bootstrap-apiserver" ;;
  *" ::127.0.64.1:6443 "*) exit 7 ;;
  *) echo "subject: CN=kube-apiserver" ;;
esac
"""
# While one hangs, it has all connections. /var/pods are those of the API, /var/alive and /var/nodes names of
# nodes. New pods come with the objects.
KUBECTL = """
[ ! -e /var/tasks/kube-apiserver.hung ] || exit 1
while case $1 in --cache*|--request*) true ;; *) false ;; esac; do shift; done
case "$*" in
  "get nodes "*" --ignore-not-found --output=name") echo "node/$3" ;;
  "get --raw=/readyz") [ -e /var/works ] || [ -e /etc/kubernetes/manifests/bootstrap-apiserver.yaml ] ;;
  "create --dry-run=server "*)
    ls pods >/var/tried
    [ ! -e /var/forbids ] || { cat /var/forbids >&2; exit 1; } ;;
  "get nodes "*) cat /var/nodes ;;
  "get leases --namespace=kube-system "*) cat /var/leaders ;;
  "get leases "*) for node in $(cat /var/nodes); do
      grep -qx "$node" /var/alive && echo "$node 40 $number" || echo "$node 40 long-ago"
    done ;;
  "get pods --namespace=kube-system --selector"*) cat /var/pods ;;
  "get pods --namespace=kube-system "*) cat /var/late ;;
  "apply "*)
    ls manifests >/var/applied
    if [ ! -e /var/new-pods ]; then
      cp /var/would-be /var/new-pods
      cat /var/new-pods >>/var/pods
    elif ! grep -qxFf /var/new-pods /var/pods; then
      # Others come in place of those that were deleted since.
      sed -i 's/new/newer/g' /var/new-pods
      cat /var/new-pods >>/var/pods
    fi
    run-pods ;;
  "get --filename=manifests "*) [ ! -e /var/ending ] || { echo 2026-11-21T00:00:00Z; rm /var/ending; } ;;
  "delete pods "*"--field-selector"*) echo "$*" >>/var/calls ;;
  "delete pods "*)
    echo "$*" >>/var/deleted
    kept=""
    while read -r pod; do
      name=${pod#*|}
      case " $* " in
        *" ${name%%|*} "*) rm -f /var/tasks/*."${pod%%|*}" ;;
        *) kept="$kept$pod\\n" ;;
      esac
    done </var/pods
    printf "$kept" >/var/pods ;;
  "delete node "*) echo "$*" >>/var/calls; sed -i "/^$3$/d" /var/nodes ;;
  "label "*) echo "$*" >>/var/calls ;;
  "annotate "*) echo "$*" >>/var/annotated ;;
esac
"""
BOOTSTRAP = """
[ ! -e /var/lib/kubepivot/pivoted ] || exit 1
echo bootstrap >>/var/calls
: >/etc/kubernetes/manifests/bootstrap-apiserver.yaml
: >/var/tasks/kube-apiserver.bootstrap-apiserver-controller-1
"""
HANDOVER = """
. ./env
echo "handover $NETWORK" >>/var/calls
rm -f /etc/kubernetes/manifests/bootstrap-apiserver.yaml
: >/var/lib/kubepivot/pivoted
"""

TOKEN = "DaemonSet/kube-apiserver an-intent\nDeployment/kube-scheduler another\n"


def pods(age: str, node: str = "controller-1", ready: str = "True") -> str:
    """A line for each pod of the control plane, as kubectl is told to print it."""
    return "".join(f"{age}-{name}|{name}-{age}|{name}|{node}|{ready}\n" for name in COMPONENTS)


def arrange(host: Sandbox) -> Sandbox:
    """A controller with the data of a cluster. Its API still lists old pods, and nothing of them runs."""
    real = ("awk", "cat", "chmod", "cp", "cut", "date", "grep", "head", "ls", "mkdir", "paste", "rm", "sed")
    host.real(*real, "sh", "sha256sum", "sort", "tail", "touch", "tr")
    for command, body in {
        "ctr": CTR,
        "curl": DIRECT + CURL,
        "etcdctl": DIRECT + ETCDCTL,
        "etcdutl": ETCDUTL,
        "kubectl": DIRECT + KUBECTL,
        "systemctl": SYSTEMCTL,
        "run-pods": RUN_PODS,
        # Only root may give a directory away.
        "chown": "",
        "install": 'for directory; do :; done; mkdir -p "$directory"',
        # Behind a dash, where the sandbox leaves an absolute path alone.
        "mv": f'"${{none-{shutil.which("mv")}}}" "$@"',
    }.items():
        host.fake(command, COUNT + body)
    host.fake("sleep")
    host.fake("sync")
    host.path("/var/tasks").mkdir(parents=True)
    host.write("/var/number", "0")
    host.write("/var/die-at", "0")
    host.write("/var/kubelet")
    host.write("/var/tasks/etcd.etcd")
    host.write(f"{DATA}/member/keys", "/registry/namespaces/kube-system old")
    host.write(f"{MANIFESTS}/etcd.yaml", "etcd")
    host.write(CHECKPOINT, "armed")
    host.write(f"{STATE}/pivoted")
    host.write("/etc/kubernetes/checkpoints/kept")
    host.write("/var/nodes", "controller-1\nworker-1\n")
    host.write("/var/alive", "controller-1\nworker-1\n")
    host.write("/var/pods", pods("old"))
    host.write("/var/would-be", pods("new"))
    host.write("/var/leaders")
    host.write("/var/late", "etcd-controller-1 on controller-1|True\n")
    host.write("/var/calls")
    host.write("/var/deleted")
    return host


def run(
    host: Sandbox, generation: int = 1, *, appended: Mapping[str, str] | None = None, **rest: Any
) -> tuple[int, str]:
    """Runs a recovery: exit status, and what the user reads. `rest` is config, `appended` text of files."""
    texts = dict(_files(generation, **rest))
    for path, text in (appended or {}).items():
        texts[path] += text
    steps = {"bootstrap/run": BOOTSTRAP, "handover/run": HANDOVER}
    done = host.run(script("recover"), texts | steps | {"token": TOKEN})
    return done.returncode, done.stderr


@cache
def _files(generation: int, **rest: Any) -> dict[str, str]:
    """What a recovery brings, but for the temporary control plane."""
    case = load("lab")
    cfg = parse(case.raw | {"recovery": {"generation": generation, **rest}}, stack="lab")
    files = recovery_files(cfg, case.machines["controller-1"], case.machines, case.texts)
    return {path: file.text for path, file in files.items() if path.split("/")[0] != "bootstrap"}


def calls(host: Sandbox) -> list[str]:
    """What was done to the cluster, in order."""
    return host.path("/var/calls").read_text().splitlines()


def is_recovered(host: Sandbox, generation: int = 1) -> bool:
    """Whether nothing is left of the recovery but the note that it is done."""
    return (
        sorted(path.name for path in host.path(MANIFESTS).iterdir()) == ["etcd.yaml"]
        and host.path(f"{STATE}/recovered").read_text() == f"{generation}\n"
        and not list(host.path(STATE).glob("recovery-*"))
        and host.path("/var/kubelet").exists()
        and "of" not in data(host)
    )


def data(host: Sandbox) -> str:
    """Where the data come from that etcd has: `old`, or what the snapshot says."""
    return host.path(f"{DATA}/member/keys").read_text().split()[-1]


def snapshot(host: Sandbox, text: str = "saved") -> None:
    """Puts a snapshot on the host."""
    host.write(SNAPSHOT, f"/registry/namespaces/kube-system {text}")
