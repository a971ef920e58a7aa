"""A recovery: what the program asks for, and its script in a sandbox with a made-up cluster."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.assets.node import bootstrap_files, retire_files, retire_seconds, script
from components.config import parse
from components.recovery import recovery_files
from components.selfhosted import OWNER
from tests.cases import Raw, load, read
from tests.unit.recorder import REMOTE, Run, pki_texts, program, ran, revealed
from tests.unit.sandbox import Sandbox

# -- the program ---------------------------------------------------------------------------------------------


@cache
def recovered() -> Run:
    """The lab's recovery, which no test changes."""
    return program(recovering("lab"))


def recovering(name: str, **recovery: Any) -> Raw:
    return read(name) | {"recovery": {"generation": 1, **recovery}}


def _by_urn(run: Run) -> dict[str, Any]:
    return {each.urn: each.plain for each in run.resources}


@pytest.mark.parametrize("name", ["lab", "baremetal"])
def test_a_recovery_adds_a_step_and_changes_nothing_else(name: str) -> None:
    before, after = _by_urn(ran(name)), _by_urn(program(recovering(name)))
    (new,) = after.keys() - before.keys()
    assert new.endswith("-recover")
    assert {urn: after[urn] for urn in before} == before
    assert _by_urn(program(read(name) | {"recovery": {"generation": 0}})) == before


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize(("chosen", "controller"), [({}, "alpha"), ({"controller": "gamma"}, "gamma")])
def test_the_step_runs_on_the_chosen_controller(
    chosen: dict[str, str], controller: str, preview: bool
) -> None:
    run, case = program(recovering("baremetal", **chosen), preview=preview), load("baremetal")
    step = run.only("metal-recover")
    assert revealed(step.inputs["connection"])["host"] == case.cfg.hosts[controller].address
    # The cluster's own steps stay where they are: another host would replace them and all objects.
    for other in ("bootstrap", "retire"):
        connection = revealed(run.only(f"metal-{other}").inputs["connection"])
        assert connection["host"] == case.cfg.hosts["alpha"].address


def test_the_step_comes_after_the_nodes_and_before_everything_that_needs_an_api() -> None:
    run = recovered()
    step = run.only("lab-recover")
    assert {run.only(f"lab-{host}-node").urn for host in load("lab").cfg.hosts} <= step.dependencies
    for each in [run.only("lab-bootstrap"), run.only("lab-retire"), *run.of("kubernetes:")]:
        assert step.urn in run.before(each), each.name


def test_the_user_reads_what_a_recovery_does_and_of_no_other_step() -> None:
    shown = {step.name: step.inputs["logging"] for step in recovered().of(REMOTE)}
    assert {name for name, logging in shown.items() if logging != "none"} == {"lab-recover"}
    assert shown["lab-recover"] == "stderr"


def test_a_raised_generation_runs_the_step_again_and_no_other() -> None:
    state = recovered()
    preview = program(read("lab") | {"recovery": {"generation": 2}}, preview=True, state=state)
    before, after = _by_urn(state), _by_urn(preview)
    assert [urn.rpartition("::")[2] for urn in after if after[urn] != before.get(urn)] == ["lab-recover"]


def test_it_outlasts_the_deadlines_of_its_scripts() -> None:
    run, cfg = recovered(), load("lab").cfg
    seconds = {
        name: int(*re.findall(r"timeout (\d+) sh", run.only(f"lab-{name}").inputs["create"]))
        for name in ("recover", "retire")
    }
    own = "".join(script(name) for name in ("recover", "bootstrap"))
    assert seconds["recover"] > seconds["retire"] + sum(map(int, re.findall(r"wait_for (\d+)", own)))
    assert seconds["retire"] == retire_seconds(cfg)


def test_it_brings_the_steps_as_they_are_and_every_object_as_the_provider_gets_it() -> None:
    run, texts = recovered(), pki_texts("lab")
    cfg, machine = load("lab").cfg, load("lab").machines["controller-1"]
    files = {path: data.decode() for path, data in run.only("lab-recover").files.items()}
    for step, brought in {
        "bootstrap": bootstrap_files(cfg, machine, texts),
        "retire": retire_files(cfg, machine, texts),
    }.items():
        assert files[f"{step}/run"] == script(step)
        for path, file in brought.items():
            assert files[f"{step}/{path}"] == file.text, path
    manifests = {path: yaml.safe_load(text) for path, text in files.items() if path.startswith("manifests/")}
    given = {
        f"manifests/{each.name.removeprefix('lab-')}.yaml": each.plain
        for each in run.of("kubernetes:")
        if not each.type.endswith("Patch")
    }
    assert manifests == given
    for manifest in manifests.values():
        assert OWNER.items() <= manifest["metadata"]["annotations"].items()


def test_what_is_secret_is_in_private_files() -> None:
    case = load("lab")
    for path, file in recovery_files(case.cfg, case.machines["controller-1"], case.texts).items():
        secret = any(
            mark in file.text for mark in ("PRIVATE KEY", "key-data", "kind: Secret", "token-secret")
        )
        assert file.mode == 0o600 or not secret, path


# -- the script ----------------------------------------------------------------------------------------------

MANIFESTS = "/etc/kubernetes/manifests"
DATA = "/var/lib/etcd"
STATE = "/var/lib/kubepivot"
SNAPSHOT = "/var/lib/kubepivot/snapshot.db"
CHECKPOINT = f"{MANIFESTS}/kube-apiserver-checkpoint.json"
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "pod-checkpointer")

# Every command of the made-up host counts; the one whose number is in `die-at` kills the script instead.
COUNT = """
number=$(($(cat /var/number) + 1))
echo $number >/var/number
[ "$number" != "$(cat /var/die-at)" ] || { kill -9 $PPID; exit 9; }
"""
# Containers are files `<container>.<pod>` of /var/tasks.
CTR = """
case "$*" in
  *"tasks list") echo "TASK PID STATUS"; for task in /var/tasks/*; do echo "${task##*/} 1 RUNNING"; done ;;
  *"containers list"*)
    name=$(echo "$*" | sed 's/.*container.name"==\\([a-z-]*\\).*/\\1/')
    not=$(echo "$*" | sed -n 's/.*pod.name"!=\\([a-z0-9-]*\\),.*pod.uid"!=\\(.*\\)/-e [.]\\1$ -e [.]\\2$/p')
    [ -n "$not" ] || not=$(echo "$*" | sed -n 's/.*pod.name"!=\\([a-z0-9-]*\\)$/-e [.]\\1$/p')
    is=$(echo "$*" | sed -n 's/.*pod.uid"==\\(.*\\)/\\1$/p')
    ls /var/tasks | grep "^$name[.]$is" | grep -v ${not:--e none} || true ;;
  *"tasks kill"*) for task; do :; done; rm "/var/tasks/$task" ;;
esac
"""
SYSTEMCTL = """
echo "$*" >>/var/calls
case "$*" in
  "stop kubelet") rm -f /var/kubelet ;;
  *)
    touch /var/kubelet
    if [ -e /etc/kubernetes/manifests/etcd.yaml ]; then
      [ -e /var/lib/etcd/member ] || { mkdir -p /var/lib/etcd/member; touch /var/etcd-was-empty; }
      touch /var/tasks/etcd.etcd
    fi ;;
esac
"""
ETCDCTL = """
case "$*" in
  *"endpoint health") [ -e /var/tasks/etcd.etcd ] ;;
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
CURL = 'echo "subject: CN=kube-bootstrap-apiserver"'
# /var/pods are those of the API, /var/alive and /var/nodes names of nodes. New pods come with the objects.
KUBECTL = """
while case $1 in --cache*|--request*) true ;; *) false ;; esac; do shift; done
case "$*" in
  "get nodes "*) cat /var/nodes ;;
  "get leases --namespace=kube-system "*) cat /var/leaders ;;
  "get leases "*) for node in $(cat /var/nodes); do
      grep -qx "$node" /var/alive && echo "$node 40 $(cat /var/number)" || echo "$node 40 long-ago"
    done ;;
  "get pods --namespace=kube-system --selector"*) cat /var/pods ;;
  "get pods --namespace=kube-system "*) cat /var/late ;;
  "apply "*)
    ls manifests >/var/applied
    [ -e /var/new-pods ] || {
      cp /var/would-be /var/new-pods
      cat /var/would-be >>/var/pods
      awk -F '|' '$4 == "controller-1" { print $3 "." $1 }' /var/would-be |
        while read -r task; do [ -e /var/stale ] || touch "/var/tasks/$task"; done
    } ;;
  "get --filename=manifests "*) [ ! -e /var/ending ] || { echo 2026-11-21T00:00:00Z; rm /var/ending; } ;;
  "delete pods "*"--field-selector"*) echo "$*" >>/var/calls ;;
  "delete pods "*)
    for name; do
      echo "$name" >>/var/deleted
      uid=$(grep "|$name|" /var/pods | cut -d '|' -f 1)
      sed -i "/|$name|/d" /var/pods
      [ -z "$uid" ] || rm -f /var/tasks/*."$uid"
    done ;;
  "delete node "*) echo "$*" >>/var/calls; sed -i "/^$3$/d" /var/nodes ;;
  "label "*) echo "$*" >>/var/calls ;;
esac
"""
BOOTSTRAP = """
[ ! -e /var/lib/kubepivot/pivoted ] || exit 1
echo bootstrap >>/var/calls
touch /etc/kubernetes/manifests/bootstrap-apiserver.yaml
touch /var/tasks/kube-apiserver.bootstrap-apiserver-controller-1
"""
RETIRE = """
. ./env
echo "retire $NODES $WORKLOADS" >>/var/calls
rm -f /etc/kubernetes/manifests/bootstrap-apiserver.yaml
touch /var/lib/kubepivot/pivoted
"""


def pods(age: str, node: str = "controller-1", ready: str = "True") -> str:
    """A line for each pod of the control plane, as kubectl is told to print it."""
    return "".join(f"{age}-{name}|{name}-{age}|{name}|{node}|{ready}\n" for name in COMPONENTS)


def arrange(host: Sandbox) -> Sandbox:
    """A controller with the data of a cluster. Its API still lists old pods, and nothing of them runs."""
    real = ("awk", "cat", "chmod", "cp", "cut", "date", "grep", "head", "ls", "mkdir", "paste", "rm", "sed")
    host.real(*real, "sh", "sha256sum", "sort", "sync", "tail", "touch", "tr")
    for command, body in {
        "ctr": CTR,
        "curl": CURL,
        "etcdctl": ETCDCTL,
        "etcdutl": ETCDUTL,
        "kubectl": KUBECTL,
        "systemctl": SYSTEMCTL,
        # Only root may give a directory away.
        "chown": "",
        "install": 'for directory; do :; done; mkdir -p "$directory"',
        # Behind a dash, where the sandbox leaves an absolute path alone.
        "mv": f'"${{none-{shutil.which("mv")}}}" "$@"',
    }.items():
        host.fake(command, COUNT + body)
    host.fake("sleep")
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


@pytest.fixture
def controller(tmp_path: Path) -> Sandbox:
    return arrange(Sandbox(tmp_path))


def run(
    host: Sandbox, generation: int = 1, *, appended: Mapping[str, str] | None = None, **rest: Any
) -> tuple[int, str]:
    case = load("lab")
    cfg = parse(case.raw | {"recovery": {"generation": generation, **rest}}, stack="lab")
    files = recovery_files(cfg, case.machines["controller-1"], case.texts)
    texts = {path: file.text for path, file in files.items() if path.split("/")[0] != "bootstrap"}
    for path, text in (appended or {}).items():
        texts[path] += text
    done = host.run(script("recover"), texts | {"bootstrap/run": BOOTSTRAP, "retire/run": RETIRE})
    return done.returncode, done.stderr


def calls(host: Sandbox) -> list[str]:
    return host.path("/var/calls").read_text().splitlines()


def is_recovered(host: Sandbox, generation: int = 1) -> bool:
    return (
        sorted(path.name for path in host.path(MANIFESTS).iterdir()) == ["etcd.yaml"]
        and host.path(f"{STATE}/recovered").read_text() == f"{generation}\n"
        and not list(host.path(STATE).glob("recovery-*"))
        and host.path("/var/kubelet").exists()
        and "of" not in data(host)
    )


def data(host: Sandbox) -> str:
    return host.path(f"{DATA}/member/keys").read_text().split()[-1]


def snapshot(host: Sandbox, text: str = "saved") -> None:
    host.write(SNAPSHOT, f"/registry/namespaces/kube-system {text}")


def test_a_recovery_from_living_data(controller: Sandbox) -> None:
    code, told = run(controller)
    assert (code, is_recovered(controller)) == (0, True), told
    assert data(controller) == "old"
    assert calls(controller) == [
        "start kubelet",
        "etcd --prefix /registry/masterleases/",
        "bootstrap",
        "restart kubelet",
        "retire node/controller-1 node/worker-1 "
        "daemonset/kube-apiserver daemonset/pod-checkpointer "
        "deployment/kube-controller-manager deployment/kube-scheduler",
        "label nodes --selector=node.kubernetes.io/controller=true node-role.kubernetes.io/control-plane= "
        "--overwrite --field-manager=kubepivot",
    ]
    assert {"kube-apiserver.yaml", "kube-apiserver-secret.yaml", "flannel.yaml"} <= set(
        controller.path("/var/applied").read_text().split()
    )
    assert "applying the cluster's objects" in told


def test_every_old_pod_goes_whatever_the_api_says_of_it(controller: Sandbox) -> None:
    run(controller)
    deleted = controller.path("/var/deleted").read_text()
    for name in COMPONENTS:
        assert f"{name}-old" in deleted
        assert f"{name}-new" not in deleted


def test_a_generation_is_done_once(controller: Sandbox) -> None:
    run(controller, 2)
    before = calls(controller)
    for generation in (1, 2):
        assert run(controller, generation) == (0, "")
    assert calls(controller) == before
    controller.path("/var/new-pods").unlink()
    controller.write("/var/would-be", pods("third"))
    assert run(controller, 3)[0] == 0
    assert is_recovered(controller, 3)
    assert calls(controller).count("bootstrap") == 2


@pytest.mark.parametrize("damaged", ["", "\0\0"])
def test_what_a_power_cut_has_made_of_the_last_generation_is_no_recovery(
    controller: Sandbox, damaged: str
) -> None:
    controller.write(f"{STATE}/recovered", damaged)
    code, error = run(controller)
    assert code == 1
    assert "recovered on controller-1 is damaged: write the generation of the last recovery into it" in error
    assert calls(controller) == []
    controller.write(f"{STATE}/recovered", "0\n")
    assert run(controller)[0] == 0
    assert is_recovered(controller)


def test_the_generation_is_on_disk_before_it_counts(controller: Sandbox) -> None:
    controller.fake("sync", 'for file; do cat "$file" >>/var/synced; done')
    assert run(controller)[0] == 0
    assert controller.path("/var/synced").read_text() == "1\n"


def test_the_temporary_control_plane_stays_until_new_pods_are_ready(controller: Sandbox) -> None:
    """The old ones say that they are."""
    controller.write("/var/would-be", pods("new", ready="False"))
    _hurry(controller)
    code, error = run(controller)
    assert code == 1
    assert "timed out waiting for new pods of the control plane to be Ready" in error
    assert not any(call.startswith("retire") for call in calls(controller))
    assert controller.path(f"{MANIFESTS}/bootstrap-apiserver.yaml").exists()
    controller.write("/var/pods", pods("new"))
    assert run(controller)[0] == 0
    assert is_recovered(controller)


def test_a_new_pod_that_ran_before_a_reboot_is_not_ready(controller: Sandbox) -> None:
    """The run before this one was cut short by it."""
    controller.write("/var/stale")
    _hurry(controller)
    code, error = run(controller)
    assert code == 1
    assert "timed out waiting for new pods of the control plane to be Ready" in error
    for name in COMPONENTS:
        controller.write(f"/var/tasks/{name}.new-{name}")
    assert run(controller)[0] == 0
    assert is_recovered(controller)


def test_a_new_apiserver_elsewhere_does_not_count(controller: Sandbox) -> None:
    controller.write("/var/would-be", pods("new", node="other"))
    _hurry(controller)
    code, error = run(controller)
    assert code == 1
    assert "new pods of the control plane" in error


def test_an_old_apiserver_that_still_runs_is_waited_for(controller: Sandbox) -> None:
    """Its certificate is the new one's: who answers could not be told."""
    controller.write("/var/tasks/kube-apiserver.forgotten")
    _hurry(controller)
    code, error = run(controller)
    assert code == 1
    assert "timed out waiting for old instances of kube-apiserver to end" in error
    controller.path("/var/tasks/kube-apiserver.forgotten").unlink()
    assert run(controller)[0] == 0
    assert is_recovered(controller)


def _hurry(host: Sandbox) -> None:
    """Ten seconds go by whenever somebody looks at the clock."""
    host.write("/var/clock", "0")
    host.fake("date", "now=$(($(cat /var/clock) + 10)); echo $now | tee /var/clock")
    host.real("tee")


LEADERS = [f"/registry/leases/kube-system/kube-{name}" for name in ("controller-manager", "scheduler")]


def freed(host: Sandbox) -> set[str]:
    return {key for key in LEADERS if f"etcd {key}" in calls(host)}


def leases(host: Sandbox, age: int) -> None:
    """Both leaders renewed theirs so many seconds ago. Their new pods run elsewhere."""
    renewed = datetime.now(UTC) - timedelta(seconds=age)
    lines = [f"{key.rpartition('/')[2]} 15 {renewed:%Y-%m-%dT%H:%M:%S.%fZ}" for key in LEADERS]
    host.write("/var/leaders", "\n".join([*lines, "another 15 2026-01-01T00:00:00.000000Z", ""]))
    new = pods("new").splitlines(keepends=True)
    leaders = ("kube-controller-manager", "kube-scheduler")
    host.write(
        "/var/would-be",
        "".join(
            line.replace("|controller-1|", "|other|") if line.split("|")[2] in leaders else line
            for line in new
        ),
    )


def test_leases_that_nobody_renews_are_taken_from_the_leaders(controller: Sandbox) -> None:
    leases(controller, 16)
    controller.write("/var/tasks/kube-scheduler.bootstrap-scheduler-controller-1")
    assert run(controller)[0] == 0
    assert freed(controller) == set(LEADERS)
    assert [call for call in calls(controller) if "leases/kube-system/another" in call] == []


def test_leases_that_somebody_may_renew_stay(controller: Sandbox) -> None:
    leases(controller, 5)
    assert run(controller)[0] == 0
    assert freed(controller) == set()


def test_an_old_leader_that_still_runs_gets_no_free_lease(controller: Sandbox) -> None:
    """It is about to be killed, and would take the lease along."""
    leases(controller, 16)
    controller.write("/var/tasks/kube-scheduler.of-kube-scheduler-old")
    assert run(controller)[0] == 0
    assert freed(controller) == {LEADERS[0]}


def test_leases_of_several_controllers_stay(controller: Sandbox) -> None:
    """Their clocks may differ by more than a lease lasts."""
    leases(controller, 16)
    texts = {"env": "CONTROLLERS='controller-1 controller-2'"}
    assert run(controller, appended=texts)[0] == 0
    assert freed(controller) == set()


def test_objects_that_are_about_to_go_are_applied_again(controller: Sandbox) -> None:
    controller.write("/var/ending")
    assert run(controller)[0] == 0
    assert not controller.path("/var/ending").exists()


def test_nodes_that_are_no_more_go_with_their_pods(controller: Sandbox) -> None:
    controller.write("/var/nodes", "controller-1\nworker-1\nformer\n")
    controller.write("/var/alive", "controller-1\nformer\n")
    _hurry(controller)
    code, told = run(controller)
    assert (code, is_recovered(controller)) == (0, True)
    for node in ("worker-1", "former"):
        removed = [call for call in calls(controller) if call.startswith("delete") and node in call]
        assert [call.split()[1] for call in removed] == ["pods", "node"]
    assert any(call.startswith("retire node/controller-1 daemonset/") for call in calls(controller))
    assert "node worker-1 has not been heard of for 60 s: it is removed" in told
    assert "node former is not in kubepivot:hosts" in told


def test_a_node_of_the_config_that_the_api_does_not_know_is_told_of(controller: Sandbox) -> None:
    controller.write("/var/nodes", "controller-1\n")
    _hurry(controller)
    code, told = run(controller)
    assert code == 0
    assert "node worker-1 is unknown to the API: run 'systemctl restart kubelet' on it" in told


def test_the_controllers_own_node_has_to_live(controller: Sandbox) -> None:
    controller.write("/var/nodes", "worker-1\n")
    _hurry(controller)
    code, error = run(controller)
    assert code == 1
    assert not any(call.startswith(("delete", "retire")) for call in calls(controller))
    assert "the kubelet of controller-1 does not work" in error


def test_what_other_nodes_have_yet_to_do_is_told_and_not_waited_for(controller: Sandbox) -> None:
    controller.write(
        "/var/late", "etcd on controller-1|True\nflannel-x on worker-1|False\ncoredns-y on worker-1|\n"
    )
    code, told = run(controller)
    assert code == 0
    assert "not Ready yet, and coming by themselves: flannel-x on worker-1,coredns-y on worker-1" in told


# -- a snapshot ----------------------------------------------------------------------------------------------


def test_a_restore(controller: Sandbox) -> None:
    snapshot(controller)
    for name in COMPONENTS:
        controller.write(f"/var/tasks/{name}.of-{name}-old")
    code, told = run(controller, 2, snapshot=SNAPSHOT)
    assert (code, is_recovered(controller, 2)) == (0, True), told
    assert data(controller) == "saved"
    assert (controller.path(f"{DATA}/before-recovery-2/keys")).read_text().endswith("old")
    assert calls(controller)[:2] == ["stop kubelet", "start kubelet"]
    flags = controller.path("/var/restore").read_text()
    peer = "https://172.30.0.11:2380"
    for flag in (
        "--name=controller-1",
        f"--initial-cluster=controller-1={peer}",
        "--initial-cluster-token=lab",
        f"--initial-advertise-peer-urls={peer}",
        "--bump-revision=2000000000",
        "--mark-compacted",
    ):
        assert flag in flags


def test_data_that_are_lost_are_restored(controller: Sandbox) -> None:
    snapshot(controller)
    shutil.rmtree(controller.path(DATA))
    assert run(controller, snapshot=SNAPSHOT)[0] == 0
    assert is_recovered(controller)
    assert data(controller) == "saved"


@pytest.mark.parametrize(
    ("text", "digest", "message"),
    [
        (None, None, "there is no such file on controller-1"),
        ("torn", None, "it is no snapshot, or damaged"),
        ("/registry/namespaces/kube-system x", "0" * 64, "its digest is not the one in"),
    ],
)
def test_a_bad_snapshot_is_refused_before_anything_is_touched(
    controller: Sandbox, text: str | None, digest: str | None, message: str
) -> None:
    if text:
        controller.write(SNAPSHOT, text)
    if digest:
        controller.write(f"{SNAPSHOT}.sha256", f"{digest}  snapshot.db\n")
    code, error = run(controller, snapshot=SNAPSHOT)
    assert code == 1
    assert "kubepivot:recovery.snapshot" in error
    assert message in error
    assert calls(controller) == []
    assert data(controller) == "old"
    assert controller.path(CHECKPOINT).exists()


def test_a_digest_that_is_right(controller: Sandbox) -> None:
    snapshot(controller)
    digest = hashlib.sha256(controller.path(SNAPSHOT).read_bytes()).hexdigest()
    controller.write(f"{SNAPSHOT}.sha256", f"{digest}  snapshot.db\n")
    assert run(controller, snapshot=SNAPSHOT)[0] == 0


def test_the_data_before_the_last_two_restores_are_kept(controller: Sandbox) -> None:
    snapshot(controller)
    for generation in (2, 9, 10):
        controller.path("/var/new-pods").unlink(missing_ok=True)
        controller.write("/var/would-be", pods(f"of-{generation}"))
        assert run(controller, generation, snapshot=SNAPSHOT)[0] == 0
    found = sorted(path.name for path in controller.path(DATA).iterdir())
    assert found == ["before-recovery-10", "before-recovery-9", "member"]


def test_etcd_that_lost_its_data_asks_for_a_snapshot(controller: Sandbox) -> None:
    controller.write(f"{DATA}/member/keys")
    code, error = run(controller)
    assert code == 1
    assert "etcd on controller-1 is empty, but there was a cluster: set kubepivot:recovery.snapshot" in error
    assert "bootstrap" not in calls(controller)


def test_a_new_cluster_has_nothing_to_recover(controller: Sandbox) -> None:
    controller.write(f"{DATA}/member/keys")
    controller.path(f"{STATE}/pivoted").unlink()
    shutil.rmtree(controller.path("/etc/kubernetes/checkpoints"))
    assert run(controller) == (0, "")
    assert controller.path(f"{STATE}/recovered").read_text() == "1\n"
    assert calls(controller) == ["start kubelet"]


@pytest.mark.e2e  # it takes as long as a fifth of all that `make check` runs
@pytest.mark.parametrize("lost", [False, True])
def test_a_run_that_is_killed_anywhere_is_made_up_for_by_the_next(tmp_path: Path, lost: bool) -> None:
    """Whatever was killed, the data from before are still there, and etcd has never begun with none."""
    killed = 0
    while True:
        directory = tmp_path / str(killed)
        directory.mkdir()
        host = arrange(Sandbox(directory))
        snapshot(host)
        if lost:
            shutil.rmtree(host.path(DATA))
        host.write("/var/die-at", str(killed + 1))
        code, _ = run(host, snapshot=SNAPSHOT)
        if code == 0 and int(host.path("/var/number").read_text()) <= killed:
            break
        host.write("/var/die-at", "0")
        code, error = run(host, snapshot=SNAPSHOT)
        assert (code, is_recovered(host)) == (0, True), f"killed at {killed + 1}: {error}"
        assert data(host) == "saved"
        assert not host.path("/var/etcd-was-empty").exists(), killed
        if not lost:
            assert host.path(f"{DATA}/before-recovery-1/keys").read_text().endswith("old"), killed
        killed += 5
    assert killed > 30, "it was killed at many points"
