"""A controller with the scripts that start the temporary control plane and end it, in a sandbox: the cluster
is made up, by files below /var.

    host = arrange(Sandbox(tmp_path))
    leave(host, "leaders gone")
    code, told = hand_over(host)
    assert is_handed_over(host)
"""

from __future__ import annotations

import hashlib

from components.assets.bootstrap import bootstrap_files
from components.assets.handover import handover_files
from components.assets.templates import script
from tests.cases import load
from tests.unit.sandbox import DIRECT, Sandbox

MANIFESTS = "/etc/kubernetes/manifests"
SECRETS = "/etc/kubernetes/bootstrap-secrets"
PIVOTED = "/var/lib/kubepivot/pivoted"
CHECKPOINTS = "/etc/kubernetes/checkpoints"
ARM = "/usr/local/libexec/kubepivot/arm-checkpoints"
APISERVER, MANAGER, SCHEDULER = (
    f"bootstrap-{name}.yaml" for name in ("apiserver", "controller-manager", "scheduler")
)

# Flags of the made-up cluster, each a file: no-api, no-real-api, silent (no pods are told),
# no-lease, real-leads (since before the hand-over), dead-<leader> (what a lease says that nobody renews;
# MOMENT is the second in which the script last asked for the time), takeover (when the real one renews it
# again), early-<leader> (what its lease says when the temporary one's manifest is gone), lingers-<leader>
# (when its temporary container ends, whatever became of the manifest), shown-<leader> (when its pod is gone
# from the API), no-containerd.
# At the endpoint, once the temporary kube-apiserver is gone, the look whose number is in /var/bad-look fails.
CURL = """
case "$*" in
  *--verbose*"--connect-to ::127.0.0.2:6443 "*)
    [ ! -e /var/no-api ] && [ ! -e /var/no-real-api ] && echo "subject: CN=kube-apiserver" ;;
  *)
    [ ! -e /var/no-api ] || exit 1
    [ -e /var/bad-look ] && [ ! -e /etc/kubernetes/manifests/bootstrap-apiserver.yaml ] || exit 0
    read -r left </var/bad-look
    echo $((left - 1)) >/var/bad-look
    [ "$left" != 1 ] ;;
esac
"""
SEEN = """
read -r now </var/clock
manifests=""
for manifest in /etc/kubernetes/manifests/bootstrap-*; do
  [ ! -e "$manifest" ] || manifests="$manifests ${manifest##*/}"
done
echo "$now$manifests" >>/var/seen
"""
KUBECTL = """
while case $1 in --*) true ;; *) false ;; esac; do shift; done
reached() { [ -e "$1" ] && [ "$now" -ge "$(cat "$1")" ]; }
lease() {
  [ ! -e /var/no-lease ] || exit 1
  temporary="/etc/kubernetes/manifests/bootstrap-$1.yaml"
  if [ -e "/var/early-$1" ] && [ ! -e "$temporary" ]; then cat "/var/early-$1"
  elif [ -e "/var/dead-$1" ] && ! reached /var/takeover; then
    sed "s/MOMENT/$(cat /var/moment)/" "/var/dead-$1"
  elif [ -e /var/real-leads ] || [ ! -e "$temporary" ]; then
    stamp "$now"; echo ".900000Z real"
  else stamp "$now"; echo ".900000Z temporary"; fi
}
case "$*" in
  "apply --filename="*) cat "${2#*=}" >>/var/check ;;
  "get service/network-check "*) echo 10.96.0.99 ;;
  "get pods --selector=app.kubernetes.io/name=network-check "*ownerReferences*)
    [ -e /var/deleted-check ] || [ ! -e /var/check ] || echo DaemonSet
    [ ! -e /var/static ] || echo Node ;;
  "get pods --selector=app.kubernetes.io/name=network-check "*) cat /var/connected ;;
  "delete daemonset/network-check "*) rm -f /var/check; echo >>/var/deleted-check ;;
  "get lease kube-"*" --output=jsonpath={.spec.renewTime} {.spec.holderIdentity}") lease "${3#kube-}" ;;
  "get pods --output=name")
    [ ! -e /var/silent ] || exit 1
    for manifest in /etc/kubernetes/manifests/bootstrap-*; do
      [ ! -e "$manifest" ] || echo "pod/$(echo "${manifest##*/}" | sed 's/\\.yaml$//')-controller-1"
    done
    for end in /var/shown-*; do
      [ ! -e "$end" ] || reached "$end" || echo "pod/bootstrap-${end##*/shown-}-controller-1"
    done
    [ ! -e /var/static ] || cat /var/static
    echo pod/kube-apiserver-abcde ;;
  "get nodes controller-1") [ ! -e /var/unregistered ] || { echo "not found: controller-1" >&2; exit 1; } ;;
  "get events "*) cat /var/warnings ;;
  "get pods --output=jsonpath={range .items[*].spec.volumes"*) cat /var/volumes ;;
  "get configmaps,secrets --selector=kubepivot.dev/content --output=name") cat /var/mounted ;;
  "delete --ignore-not-found "*) echo "$3" >>/var/deleted ;;
esac
"""
CTR = """
[ ! -e /var/no-containerd ] || exit 1
case "$*" in
  *" containers list "*==kube-system,*container.name*==kube-*,*pod.name*==bootstrap-*-controller-1)
    for filter; do :; done
    name=${filter##*==bootstrap-}
    echo "${name%-controller-1}" ;;
  *" tasks list")
    echo "TASK PID STATUS"
    for name in apiserver controller-manager scheduler; do
      status=STOPPED
      [ ! -e "/etc/kubernetes/manifests/bootstrap-$name.yaml" ] || status=RUNNING
      [ ! -e "/var/lingers-$name" ] || [ "$now" -ge "$(cat "/var/lingers-$name")" ] || status=RUNNING
      echo "$name 1 $status"
    done ;;
  *) exit 2 ;;
esac
"""
# As renewTime of a lease has it, but for the fraction.
STAMP = """
stamp() { printf '2026-11-21T%02d:%02d:%02d' $(($1 / 3600)) $(($1 / 60 % 60)) $(($1 % 60)); }
"""
# Ten seconds go by whenever somebody looks.
DATE = """
read -r now </var/clock
now=$((now + 10))
echo "$now" >/var/clock
case $* in
  +%s) echo "$now" ;;
  "-u +%Y-%m-%dT%H:%M:%S.%N") stamp "$now" >/var/moment; stamp "$now"; echo .500000000 ;;
  *) exit 1 ;;
esac
"""


def arrange(host: Sandbox) -> Sandbox:
    """A controller whose node step has ended."""
    host.real("cat", "cmp", "cp", "find", "grep", "head", "ls", "mkdir", "mv", "rm", "sed", "sort", "stat")
    host.real("sync", "tail", "touch", "tr")
    host.real("awk", "cut", "paste", "sh", "sha256sum")
    host.fake("curl", DIRECT + CURL)
    host.fake("ctr", SEEN + CTR)
    host.fake("kubectl", DIRECT + STAMP + SEEN + KUBECTL)
    host.fake("date", STAMP + DATE)
    host.fake("journalctl")
    host.fake("systemctl", 'echo "$*" >>/var/units')
    host.fake("systemd-run", 'echo "$*" >>/var/begun')
    host.fake("sleep")
    host.fake("sync")
    host.write("/var/connected", "controller-1|True\nworker-1|True\n")
    # Only root may give a directory away.
    host.fake("install", 'for directory; do :; done; mkdir -p "$directory"')
    host.write("/var/clock", "0")
    host.write("/var/moment", "2026-11-21T00:00:00")
    host.write("/var/mounted")
    host.write("/var/volumes")
    host.write("/var/warnings")
    host.write(f"{MANIFESTS}/etcd.yaml", "etcd")
    host.path("/var/lib/kubepivot").mkdir(parents=True)
    host.write(ARM, host.moved(script("arm-checkpoints")))
    host.path(ARM).chmod(0o755)
    for owner in ("kube-apiserver", "pod-checkpointer"):
        checkpoint(host, owner)
    return host


def checkpoint(host: Sandbox, owner: str) -> str:
    """Writes a checkpoint as the pod-checkpointer does; where its manifest is."""
    directory = f"{CHECKPOINTS}/kube-system-DaemonSet-{owner}/current"
    manifest = f"{owner}-checkpoint.json"
    host.write(f"{directory}/{manifest}", "{}")
    host.write(f"{directory}/SHA256SUMS", f"{hashlib.sha256(b'{}').hexdigest()}  {manifest}\n")
    return f"{directory}/{manifest}"


def start(host: Sandbox) -> tuple[int, str]:
    """Starts the temporary control plane: exit status, and what the user reads."""
    case = load("lab")
    files = bootstrap_files(case.cfg, case.machines["controller-1"], case.machines, case.texts)
    done = host.run(script("bootstrap"), {path: file.text for path, file in files.items()})
    return done.returncode, done.stderr


def hand_over(host: Sandbox) -> tuple[int, str]:
    """Runs the hand-over, as above."""
    case = load("lab")
    files = handover_files(case.cfg, case.machines["controller-1"], case.machines, case.texts)
    done = host.run(script("handover"), {path: file.text for path, file in files.items()})
    return done.returncode, done.stderr


def seen(host: Sandbox) -> list[tuple[int, tuple[str, ...]]]:
    """Times at which the cluster was asked for something, and the temporary manifests at each."""
    lines = [line.split() for line in host.path("/var/seen").read_text().splitlines()]
    return [(int(clock), tuple(manifests)) for clock, *manifests in lines]


def manifest_names(host: Sandbox) -> list[str]:
    return sorted(path.name for path in host.path(MANIFESTS).iterdir())


STATES = {
    "nothing done yet": ([APISERVER, MANAGER, SCHEDULER], False, True),
    "controller manager gone": ([APISERVER, SCHEDULER], False, True),
    "scheduler gone": ([APISERVER, MANAGER], False, True),
    "leaders gone": ([APISERVER], False, True),
    "leaders aside": ([APISERVER, f".{MANAGER}", f".{SCHEDULER}"], False, True),
    "marked, leaders aside": ([APISERVER, f".{MANAGER}", f".{SCHEDULER}"], True, True),
    "marked": ([APISERVER], True, True),
    "apiserver gone": ([], True, True),
    "all done": ([], True, False),
}
"""Where a killed run may have left the host: manifests, whether it is marked, whether secrets are there."""


def leave(host: Sandbox, state: str) -> None:
    """Leaves the host as a killed run may have."""
    manifests, pivoted, secrets = STATES[state]
    for name in manifests:
        host.write(f"{MANIFESTS}/{name}", name)
    if pivoted:
        host.write(PIVOTED)
    if secrets:
        host.write(f"{SECRETS}/kube-controller-manager/ca.key", "secret")


def is_handed_over(host: Sandbox) -> bool:
    """Whether nothing is left of the temporary control plane."""
    return (
        manifest_names(host) == ["etcd.yaml"]
        and host.path(PIVOTED).exists()
        and not host.path(SECRETS).exists()
    )
