"""The scripts that start the temporary control plane and end it, in a sandbox with a made-up cluster."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.assets.bootstrap import bootstrap_files
from components.assets.handover import handover_files
from components.assets.manifests import manifests
from components.assets.network import network_digest
from components.assets.templates import script
from components.config import parse
from components.hosts.machine import configured_machines
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
# again), lingers-<leader> (when its temporary pod ends, whatever became of the manifest).
CURL = """
case "$*" in
  *--verbose*"--connect-to ::127.0.0.2:6443 "*)
    [ ! -e /var/no-api ] && [ ! -e /var/no-real-api ] && echo "subject: CN=kube-apiserver" ;;
  *) [ ! -e /var/no-api ] ;;
esac
"""
KUBECTL = """
while case $1 in --*) true ;; *) false ;; esac; do shift; done
read -r now </var/clock
manifests=""
for manifest in /etc/kubernetes/manifests/bootstrap-*; do
  [ ! -e "$manifest" ] || manifests="$manifests ${manifest##*/}"
done
echo "$now$manifests" >>/var/seen
reached() { [ -e "$1" ] && [ "$now" -ge "$(cat "$1")" ]; }
lease() {
  [ ! -e /var/no-lease ] || exit 1
  if [ -e "/var/dead-$1" ] && ! reached /var/takeover; then sed "s/MOMENT/$(cat /var/moment)/" "/var/dead-$1"
  elif [ -e /var/real-leads ] || [ ! -e "/etc/kubernetes/manifests/bootstrap-$1.yaml" ]; then
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
  "delete daemonset/network-check "*) rm -f /var/check; touch /var/deleted-check ;;
  "get lease kube-"*" --output=jsonpath={.spec.renewTime} {.spec.holderIdentity}") lease "${3#kube-}" ;;
  "get pods --output=name")
    [ ! -e /var/silent ] || exit 1
    for manifest in /etc/kubernetes/manifests/bootstrap-*; do
      [ ! -e "$manifest" ] || echo "pod/$(echo "${manifest##*/}" | sed 's/\\.yaml$//')-controller-1"
    done
    for end in /var/lingers-*; do
      [ ! -e "$end" ] || reached "$end" || echo "pod/bootstrap-${end##*/lingers-}-controller-1"
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


@pytest.fixture
def controller(tmp_path: Path) -> Sandbox:
    """A controller whose node step has ended."""
    host = Sandbox(tmp_path)
    host.real("cat", "cmp", "cp", "find", "grep", "head", "ls", "mkdir", "mv", "rm", "sed", "sort", "stat")
    host.real("sync", "tail", "touch", "tr")
    host.real("cut", "paste", "sh", "sha256sum")
    host.fake("curl", DIRECT + CURL)
    host.fake("kubectl", DIRECT + STAMP + KUBECTL)
    host.fake("date", STAMP + DATE)
    host.fake("journalctl")
    host.fake("systemctl", 'echo "$*" >>/var/units')
    host.fake("sleep")
    host.fake("sync")
    host.write("/var/connected", "controller-1|True\nworker-1|True\n")
    # Only root may give a directory away.
    host.fake("install", 'for directory; do :; done; mkdir -p "$directory"')
    host.write("/var/clock", "0")
    host.write("/var/mounted")
    host.write("/var/volumes")
    host.write("/var/warnings")
    host.write(f"{MANIFESTS}/etcd.yaml", "etcd")
    host.path("/var/lib/kubepivot").mkdir(parents=True)
    host.write(ARM, host.moved(script("arm-checkpoints")))
    host.path(ARM).chmod(0o755)
    for owner in ("kube-apiserver", "pod-checkpointer"):
        _checkpoint(host, owner)
    return host


def _checkpoint(host: Sandbox, owner: str) -> str:
    """Writes a checkpoint as the pod-checkpointer does; where its manifest is."""
    directory = f"{CHECKPOINTS}/kube-system-DaemonSet-{owner}/current"
    manifest = f"{owner}-checkpoint.json"
    host.write(f"{directory}/{manifest}", "{}")
    host.write(f"{directory}/SHA256SUMS", f"{hashlib.sha256(b'{}').hexdigest()}  {manifest}\n")
    return f"{directory}/{manifest}"


def _start(host: Sandbox) -> tuple[int, str]:
    case = load("lab")
    files = bootstrap_files(case.cfg, case.machines["controller-1"], case.machines, case.texts)
    done = host.run(script("bootstrap"), {path: file.text for path, file in files.items()})
    return done.returncode, done.stderr


def _hand_over(host: Sandbox) -> tuple[int, str]:
    case = load("lab")
    files = handover_files(case.cfg, case.machines["controller-1"], case.machines, case.texts)
    done = host.run(script("handover"), {path: file.text for path, file in files.items()})
    return done.returncode, done.stderr


def _seen(host: Sandbox) -> list[tuple[int, tuple[str, ...]]]:
    """Times at which the cluster was asked for something, and the temporary manifests at each."""
    lines = [line.split() for line in host.path("/var/seen").read_text().splitlines()]
    return [(int(clock), tuple(manifests)) for clock, *manifests in lines]


def _manifests(host: Sandbox) -> list[str]:
    return sorted(path.name for path in host.path(MANIFESTS).iterdir())


# -- start ---------------------------------------------------------------------------------------------------


def test_the_temporary_control_plane_is_put_in_place(controller: Sandbox) -> None:
    assert _start(controller) == (0, "")
    assert _manifests(controller) == [APISERVER, MANAGER, SCHEDULER, "etcd.yaml"]
    assert (controller.path(SECRETS) / "kube-apiserver" / "apiserver.key").is_file()


def test_a_second_start_changes_nothing(controller: Sandbox) -> None:
    _start(controller)
    before = {path: path.stat().st_ino for path in controller.root.rglob("*.yaml")}
    assert _start(controller) == (0, "")
    assert {path: path.stat().st_ino for path in controller.root.rglob("*.yaml")} == before


@pytest.mark.parametrize("answers", [True, False])
def test_a_second_start_makes_the_kubelet_take_what_was_mended(controller: Sandbox, answers: bool) -> None:
    """Without an API it goes on with the static pods that it has, whatever their manifests say now."""
    assert _start(controller) == (0, "")
    assert not controller.path("/var/units").exists()
    if not answers:
        controller.write("/var/no-api")
    assert _start(controller)[0] == (0 if answers else 1)
    assert controller.path("/var/units").exists() != answers
    if not answers:
        assert controller.path("/var/units").read_text() == "restart kubelet\n"


def test_a_start_after_the_hand_over_starts_nothing(controller: Sandbox) -> None:
    controller.write(PIVOTED)
    assert _start(controller) == (0, "")
    assert _manifests(controller) == ["etcd.yaml"]
    assert not controller.path(SECRETS).exists()


def test_a_start_waits_for_the_controllers_to_register(controller: Sandbox) -> None:
    """The control plane goes where their role is, and that needs a node."""
    controller.write("/var/unregistered")
    code, error = _start(controller)
    assert code == 1
    assert "timed out waiting for the controllers to register" in error
    assert "not found: controller-1" in error


@pytest.mark.parametrize("pivoted", [False, True])
def test_a_start_waits_for_the_api_and_says_where_to_look(controller: Sandbox, pivoted: bool) -> None:
    controller.write("/var/no-api")
    if pivoted:
        controller.write(PIVOTED)
    code, error = _start(controller)
    assert code == 1
    assert "timed out waiting for the API at https://172.30.0.11:6443/readyz" in error
    assert "journalctl -u kubelet" in error


def test_a_start_that_fails_shows_what_the_containers_said(controller: Sandbox) -> None:
    controller.write("/var/no-api")
    for pod, container, count in (
        ("etcd-controller-1_123", "etcd", 1),
        ("bootstrap-apiserver-controller-1_456", "kube-apiserver", 30),
        ("coredns-abc_789", "coredns", 1),
    ):
        lines = [f"2026-11-21T14:00:{n:02}.000000000Z stderr F {container} says {n}\n" for n in range(count)]
        controller.write(f"/var/log/pods/kube-system_{pod}/{container}/0.log", "".join(lines))
    controller.fake(
        "journalctl", "echo 'E1121 pod_workers.go] Failed to pull image registry/kube-apiserver:x'"
    )
    code, error = _start(controller)
    assert code == 1
    assert "\netcd says 0\n" in error
    assert [line for line in error.splitlines() if line.startswith("kube-apiserver says")] == [
        f"kube-apiserver says {n}" for n in range(22, 30)
    ]
    assert "Failed to pull image registry/kube-apiserver:x" in error
    assert "coredns" not in error


# -- hand-over -----------------------------------------------------------------------------------------------

STATES = {
    "nothing done yet": ([APISERVER, MANAGER, SCHEDULER], False, True),
    "controller manager gone": ([APISERVER, SCHEDULER], False, True),
    "leaders gone": ([APISERVER], False, True),
    "marked": ([APISERVER], True, True),
    "apiserver gone": ([], True, True),
    "all done": ([], True, False),
}
"""Where a killed run may have left the host: manifests, whether it is marked, whether secrets are there."""


def _arrange(host: Sandbox, state: str) -> None:
    manifests, pivoted, secrets = STATES[state]
    for name in manifests:
        host.write(f"{MANIFESTS}/{name}", name)
    if pivoted:
        host.write(PIVOTED)
    if secrets:
        host.write(f"{SECRETS}/kube-controller-manager/ca.key", "secret")


def _is_handed_over(host: Sandbox) -> bool:
    return (
        _manifests(host) == ["etcd.yaml"] and host.path(PIVOTED).exists() and not host.path(SECRETS).exists()
    )


@pytest.mark.parametrize("state", STATES)
def test_the_hand_over_converges_from_every_half_state(controller: Sandbox, state: str) -> None:
    _arrange(controller, state)
    assert _hand_over(controller) == (0, "")
    assert _is_handed_over(controller)
    assert _hand_over(controller) == (0, "")
    assert _is_handed_over(controller)


def test_leaders_go_one_after_another_and_the_apiserver_last(controller: Sandbox) -> None:
    _arrange(controller, "nothing done yet")
    assert _hand_over(controller)[0] == 0
    assert list(dict.fromkeys(manifests for _, manifests in _seen(controller))) == [
        (APISERVER, MANAGER, SCHEDULER),
        (APISERVER, SCHEDULER),
        (APISERVER,),
        (),
    ]


@pytest.mark.parametrize("flag", ["no-real-api", "no-api"])
def test_the_temporary_control_plane_stays_until_the_real_one_serves(controller: Sandbox, flag: str) -> None:
    _arrange(controller, "nothing done yet")
    controller.write(f"/var/{flag}")
    code, error = _hand_over(controller)
    assert code == 1
    assert "timed out waiting for the self-hosted kube-apiserver to answer at port 6443" in error
    assert _manifests(controller) == [APISERVER, MANAGER, SCHEDULER, "etcd.yaml"]
    assert controller.path(SECRETS).exists()


@pytest.mark.parametrize("owner", ["kube-apiserver", "pod-checkpointer"])
@pytest.mark.parametrize("damaged", [None, "other"])
def test_the_temporary_control_plane_stays_until_checkpoints_are_on_disk(
    controller: Sandbox, owner: str, damaged: str | None
) -> None:
    _arrange(controller, "nothing done yet")
    manifest = _checkpoint(controller, owner)
    if damaged:
        controller.write(manifest, damaged)
    else:
        controller.path(manifest).unlink()
    code, error = _hand_over(controller)
    assert code == 1
    assert "timed out waiting for the control plane's checkpoints in" in error
    assert _manifests(controller) == [APISERVER, MANAGER, SCHEDULER, "etcd.yaml"]
    _checkpoint(controller, owner)
    assert _hand_over(controller) == (0, "")
    assert _is_handed_over(controller)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("silent", "timed out waiting for the temporary kube-controller-manager to be gone"),
        ("no-lease", "timed out waiting for the self-hosted kube-controller-manager to lead"),
    ],
)
def test_no_answer_is_not_taken_for_gone_or_led(controller: Sandbox, flag: str, message: str) -> None:
    _arrange(controller, "nothing done yet")
    controller.write(f"/var/{flag}")
    code, error = _hand_over(controller)
    assert code == 1
    assert message in error
    assert not controller.path(PIVOTED).exists()
    assert _manifests(controller) == [APISERVER, SCHEDULER, "etcd.yaml"]
    controller.path(f"/var/{flag}").unlink()
    assert _hand_over(controller) == (0, "")
    assert _is_handed_over(controller)


@pytest.mark.parametrize("state", STATES)
def test_a_real_leader_may_have_led_before(controller: Sandbox, state: str) -> None:
    """With several controllers the temporary one is often a mere candidate."""
    controller.write("/var/real-leads")
    _arrange(controller, state)
    assert _hand_over(controller) == (0, "")
    assert _is_handed_over(controller)


# What the lease says when its holder has ended and nobody has taken over.
DEAD = {
    "killed": "2026-11-20T23:59:50.000000Z temporary",
    "killed a moment ago": "MOMENT.100000Z temporary",
    "released": "2026-11-21T23:59:50.000000Z ",
    "never held": " ",
}


@pytest.mark.parametrize("leader", ["controller-manager", "scheduler"])
@pytest.mark.parametrize("dead", DEAD)
def test_a_run_after_one_that_was_killed_waits_for_a_leader_too(
    controller: Sandbox, leader: str, dead: str
) -> None:
    """The manifest is gone already, and nobody leads yet."""
    _arrange(controller, "nothing done yet")
    controller.path(f"{MANIFESTS}/bootstrap-{leader}.yaml").unlink()
    controller.write(f"/var/dead-{leader}", DEAD[dead])
    code, error = _hand_over(controller)
    assert code == 1
    assert error == f"error: timed out waiting for the self-hosted kube-{leader} to lead\n"
    assert APISERVER in _manifests(controller)
    assert not controller.path(PIVOTED).exists()
    takeover = int(controller.path("/var/clock").read_text()) + 50
    controller.write("/var/takeover", str(takeover))
    assert _hand_over(controller) == (0, "")
    assert _is_handed_over(controller)
    assert all(clock >= takeover for clock, manifests in _seen(controller) if APISERVER not in manifests)


def test_a_leader_that_takes_time_to_end_is_waited_for(controller: Sandbox) -> None:
    """It renews its lease to its end, long after its manifest is gone."""
    _arrange(controller, "nothing done yet")
    controller.write("/var/lingers-controller-manager", "80")
    assert _hand_over(controller) == (0, "")
    assert _is_handed_over(controller)
    assert all(SCHEDULER in manifests for clock, manifests in _seen(controller) if clock < 80)
    assert any(MANAGER not in manifests for clock, manifests in _seen(controller) if clock < 80)


def test_static_pods_of_a_worker_that_look_alike_are_nothing_to_wait_for(controller: Sandbox) -> None:
    """Their names end with that node's, and no DaemonSet owns them."""
    _arrange(controller, "nothing done yet")
    names = ("bootstrap-x-worker-1", "bootstrap-apiserver-controller-1-worker-1", "network-check-x-worker-1")
    controller.write("/var/static", "".join(f"pod/{name}\n" for name in names))
    assert _hand_over(controller) == (0, "")
    assert not controller.path(SECRETS).exists()


def test_what_nothing_mounts_any_more_goes_when_all_is_done(controller: Sandbox) -> None:
    _arrange(controller, "nothing done yet")
    case = load("lab")
    env = handover_files(case.cfg, case.machines["controller-1"], case.machines, case.texts)["env"].text
    (used,) = re.findall(r"^MOUNTED='(.*)'$", env, re.MULTILINE)
    assert {name.rpartition("-")[0] for name in used.split()} == {
        *(
            "configmap/coredns",
            "configmap/flannel",
            "configmap/kube-proxy",
            "configmap/kubeconfig-in-cluster",
        ),
        *("configmap/pod-checkpointer", "configmap/reuseport-filter"),
        *("secret/kube-apiserver", "secret/kube-controller-manager"),
        "secret/kube-scheduler",
    }
    old = ["configmap/coredns-0123456789", "secret/kube-scheduler-0123456789"]
    late = "configmap/flannel-0123456789"  # of a pod whose node is behind
    controller.write("/var/mounted", "\n".join([*used.split(), *old, late]))
    controller.write("/var/volumes", f"configmap/ secret/ {late} secret/ configmap/ secret/other ")
    controller.write("/var/no-real-api")
    assert _hand_over(controller)[0] == 1
    assert not controller.path("/var/deleted").exists()
    controller.path("/var/no-real-api").unlink()
    assert _hand_over(controller) == (0, "")
    assert controller.path("/var/deleted").read_text().split() == old


def test_what_cannot_be_listed_is_told(controller: Sandbox) -> None:
    _arrange(controller, "nothing done yet")
    controller.path("/var/mounted").unlink()
    code, error = _hand_over(controller)
    assert code == 1
    assert "mounted: No such file" in error
    assert not controller.path("/var/deleted").exists()


# -- the network ---------------------------------------------------------------------------------------------

CHECKED = "/var/lib/kubepivot/network-checked"


def _made(host: Sandbox) -> bool:
    """Whether pods of the network check are left."""
    return host.path("/var/check").exists()


def test_pods_that_reach_no_other_node_end_a_hand_over(controller: Sandbox) -> None:
    _arrange(controller, "all done")
    controller.write("/var/connected", "controller-1|True\nworker-1|False\n")
    said = "Readiness probe failed: no pod of another node answers"
    controller.write("/var/warnings", f"coredns-a: other\nnetwork-check-b: {said}\n")
    code, error = _hand_over(controller)
    assert code == 1
    assert "These nodes' pods reach no Service on another node: worker-1\n" in error
    assert "    | network-check-b: Readiness probe failed: no pod of another node answers\n" in error
    assert "coredns" not in error
    assert "docs/operations.md" in error
    assert not controller.path(CHECKED).exists()
    assert not _made(controller)
    controller.write("/var/connected", "controller-1|True\nworker-1|True\n")
    assert _hand_over(controller) == (0, "")
    assert controller.path(CHECKED).exists()
    assert not _made(controller)


def test_a_node_without_a_pod_of_the_check_is_waited_for(controller: Sandbox) -> None:
    _arrange(controller, "all done")
    controller.write("/var/connected", "controller-1|True\n")
    code, error = _hand_over(controller)
    assert (code, "another node: worker-1" in error) == (1, True)


def test_the_network_is_looked_at_again_when_it_has_changed(controller: Sandbox) -> None:
    _arrange(controller, "all done")
    assert _hand_over(controller) == (0, "")
    controller.write("/var/connected", "controller-1|True\nworker-1|False\n")
    assert _hand_over(controller) == (0, "")
    controller.write(CHECKED, "another")
    assert _hand_over(controller)[0] == 1


def test_pods_of_the_check_go_whatever_ends_the_hand_over(controller: Sandbox) -> None:
    _arrange(controller, "all done")
    controller.write("/var/no-real-api")
    assert _hand_over(controller)[0] == 1
    assert not _made(controller)


def test_the_pods_ask_at_the_address_that_the_service_got(controller: Sandbox) -> None:
    _arrange(controller, "all done")
    controller.fake("rm", 'case "$*" in *check*) ;; *) "${none-/bin/rm}" "$@" ;; esac')
    assert _hand_over(controller) == (0, "")
    service, pods = yaml.safe_load_all(
        controller.path("/var/check").read_text().replace("\napiV", "\n---\napiV")
    )
    assert service["spec"]["publishNotReadyAddresses"]
    assert "nc -w 2 10.96.0.99 7007" in str(pods["spec"]["template"]["spec"]["containers"])


def test_what_calls_for_another_look_at_the_network() -> None:
    case = load("lab")

    def digest(**config: Any) -> str:
        cfg = parse(case.raw | config, stack="lab")
        machines = configured_machines(cfg)
        return network_digest(cfg, machines, manifests(cfg, machines, lambda name: "value").values())

    hosts = case.raw["hosts"]
    assert digest() == digest(flags={"kube-apiserver": {"v": "2"}}, images={"coredns": "c:d"})
    worker = {"role": "worker", "address": "172.30.0.77"}
    others = [
        digest(hosts=hosts | {"worker-2": worker}),
        digest(hosts={**hosts, "worker-1": hosts["worker-1"] | {"address": "172.30.0.78"}}),
        digest(images={"flannel": "f:1"}),
        digest(images={"kube-proxy": "p:1"}),
    ]
    assert len({digest(), *others}) == 5
    assert digest(hosts={"controller-1": hosts["controller-1"]}) == ""
