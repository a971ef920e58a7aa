"""The script of a recovery, in a sandbox with a made-up cluster."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.lost_control_plane import (
    CHECKPOINT,
    COMPONENTS,
    DATA,
    MANIFESTS,
    SNAPSHOT,
    STATE,
    TOKEN,
    arrange,
    calls,
    data,
    is_recovered,
    pods,
    run,
    snapshot,
)
from tests.unit.sandbox import Sandbox


@pytest.fixture
def controller(tmp_path: Path) -> Sandbox:
    return arrange(Sandbox(tmp_path))


def test_a_recovery_from_living_data(controller: Sandbox) -> None:
    code, told = run(controller)
    assert (code, is_recovered(controller)) == (0, True), told
    assert data(controller) == "old"
    assert calls(controller) == [
        "start kubelet",
        "etcd --prefix /registry/masterleases/",
        "bootstrap",
        "stop kubelet",
        "start kubelet",
        "label node/controller-1 node-role.kubernetes.io/control-plane= "
        "--overwrite --field-manager=kubepivot",
        "handover ",  # without a look at the network
    ]
    assert {"kube-apiserver.yaml", "kube-apiserver-secret.yaml", "flannel.yaml"} <= set(
        controller.path("/var/applied").read_text().split()
    )
    assert "applying the cluster's objects" in told
    # As Pulumi's state has it: it would find a difference.
    assert controller.path("/var/annotated").read_text().splitlines() == [
        f"annotate --overwrite --namespace=kube-system {workload} kubepivot.dev/intent={intent}"
        for workload, intent in (line.split() for line in TOKEN.splitlines())
    ]


def test_every_old_pod_goes_whatever_the_api_says_of_it(controller: Sandbox) -> None:
    run(controller)
    deleted = controller.path("/var/deleted").read_text()
    for name in COMPONENTS:
        assert f"{name}-old" in deleted
        assert f"{name}-new" not in deleted


WEBHOOK = "".join(
    f'Error from server (InternalError): error when creating "pods/{name}.yaml": Internal error occurred: '
    'failed calling webhook "pods.example.com": failed to call webhook: connection refused\n'
    for name in COMPONENTS
)


def test_a_working_cluster_that_lets_no_pod_be_made_is_left_as_it_is(controller: Sandbox) -> None:
    controller.write("/var/works")
    controller.write("/var/forbids", WEBHOOK)
    before = calls(controller)
    _hurry(controller)
    code, error = run(controller)
    assert code == 1
    assert "cannot be made, so none was deleted" in error
    assert error.count('failed calling webhook "pods.example.com"') == 1
    assert calls(controller)[len(before) :] == ["start kubelet"]  # which runs
    assert controller.path("/var/deleted").read_text() == ""
    assert controller.path(CHECKPOINT).exists()
    assert controller.path("/var/tried").read_text().split() == [
        f"{name}.yaml" for name in sorted(COMPONENTS)
    ]
    controller.path("/var/forbids").unlink()
    assert run(controller)[0] == 0
    assert is_recovered(controller)


@pytest.mark.parametrize("works", [False, True])
def test_no_pod_is_deleted_where_none_can_be_made(controller: Sandbox, works: bool) -> None:
    """The temporary control plane stays, so that who forbids them can be asked away."""
    if works:
        controller.write("/var/works")
    controller.write(
        "/var/forbids", 'pods "x" is forbidden: error looking up service account kube-system/default\n'
    )
    _hurry(controller)
    code, error = run(controller)
    assert code == 1
    assert "looking up service account" in error
    assert controller.path("/var/deleted").read_text() == ""
    assert calls(controller)[-1] == "bootstrap"
    controller.path("/var/forbids").unlink()
    assert run(controller)[0] == 0
    assert is_recovered(controller)


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
    controller.fake(
        "sync", 'for file; do case $file in */recovered.new) cat "$file" >>/var/synced ;; esac; done'
    )
    assert run(controller)[0] == 0
    assert controller.path("/var/synced").read_text() == "1\n"


def test_under_the_alarm_of_etcds_quota_nothing_is_begun(controller: Sandbox) -> None:
    controller.write("/var/alarm", "memberID:10276657743932975437 alarm:NOSPACE\n")
    code, error = run(controller)
    assert code == 1
    assert (
        "error: etcd's quota is used up, and a recovery has to write: make space as docs/operations.md"
        in error
    )
    assert calls(controller) == ["start kubelet"]
    controller.path("/var/alarm").unlink()
    assert run(controller)[0] == 0
    assert is_recovered(controller)


def test_that_a_snapshot_was_restored_is_on_disk_before_the_cluster_goes_on(controller: Sandbox) -> None:
    """Restored again, after a power cut, it would lose what was written meanwhile."""
    snapshot(controller)
    controller.fake(
        "sync", 'for file; do case $file in */restored.new) cat "$file" >>/var/calls ;; esac; done'
    )
    assert run(controller, snapshot=SNAPSHOT)[0] == 0
    told = calls(controller)
    assert told.index(str(controller.path(SNAPSHOT))) < told.index("start kubelet")


def test_the_temporary_control_plane_stays_until_new_pods_are_ready(controller: Sandbox) -> None:
    """The old ones say that they are."""
    controller.write("/var/would-be", pods("new", ready="False"))
    _hurry(controller)
    code, error = run(controller)
    assert code == 1
    assert "timed out waiting for new pods of the control plane to be Ready" in error
    assert not any(call.startswith("handover") for call in calls(controller))
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
    controller.path("/var/stale").unlink()
    assert run(controller)[0] == 0
    assert is_recovered(controller)


def test_a_new_apiserver_elsewhere_does_not_count(controller: Sandbox) -> None:
    controller.write("/var/would-be", pods("new", node="other"))
    _hurry(controller)
    code, error = run(controller)
    assert code == 1
    assert "new pods of the control plane" in error


def test_an_old_apiserver_ends_before_the_kubelet_could_ask_it(controller: Sandbox) -> None:
    controller.write("/var/tasks/kube-apiserver.forgotten")
    code, told = run(controller)
    assert (code, is_recovered(controller)) == (0, True), told
    said = calls(controller)
    stopped = said.index("stop kubelet")
    assert said[stopped : stopped + 3] == [
        "stop kubelet",
        "kill SIGTERM kube-apiserver.forgotten",
        "start kubelet",
    ]


def test_an_old_apiserver_that_hangs_is_killed(controller: Sandbox) -> None:
    """It has all connections, and answers none."""
    controller.write("/var/tasks/kube-apiserver.hung")
    _hurry(controller)
    code, told = run(controller)
    assert (code, is_recovered(controller)) == (0, True), told
    assert "timed out waiting for the old kube-apiserver to end" in told
    killed = [call for call in calls(controller) if call.startswith("kill")]
    assert killed == [f"kill {signal} kube-apiserver.hung" for signal in ("SIGTERM", "SIGKILL")]


def _hurry(host: Sandbox) -> None:
    """Ten seconds go by whenever somebody looks at the clock."""
    host.write("/var/clock", "0")
    host.fake("date", "read -r now </var/clock; now=$((now + 10)); echo $now >/var/clock; echo $now")


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
    assert calls(controller)[-1] == "handover "
    assert "node worker-1 has not been heard of for 60 s: it is removed" in told
    assert "node former is not in kubepivot:hosts" in told


def test_a_node_of_the_config_that_the_api_does_not_know_is_told_of(controller: Sandbox) -> None:
    controller.write("/var/nodes", "controller-1\n")
    _hurry(controller)
    code, told = run(controller)
    assert code == 0
    assert "node worker-1 is unknown to the API: it registers when it has heard so" in told


def test_the_controllers_own_node_has_to_live(controller: Sandbox) -> None:
    controller.write("/var/nodes", "worker-1\n")
    _hurry(controller)
    code, error = run(controller)
    assert code == 1
    assert not any(call.startswith(("delete", "handover")) for call in calls(controller))
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
    said = [call for call in calls(controller) if not call.startswith("kill SIGKILL --all")]
    assert said[:2] == ["stop kubelet", "start kubelet"]
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


def test_a_run_that_was_cut_short_after_its_hand_over_replaces_what_it_has_made(controller: Sandbox) -> None:
    """Beside those pods a temporary kube-apiserver would start anew, and none would be the real one."""
    controller.write(f"{STATE}/recovery-1/old-pods", pods("old"))
    controller.write("/var/pods", pods("first"))
    assert run(controller)[0] == 0
    assert is_recovered(controller)
    assert "kube-apiserver-first" in controller.path("/var/deleted").read_text().split()


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


@pytest.mark.sweep
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
