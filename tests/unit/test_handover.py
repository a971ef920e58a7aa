"""The script that ends the temporary control plane, in a sandbox with a made-up cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from components.assets.handover import handover_files
from tests.cases import load
from tests.sweeps import swept
from tests.unit.sandbox import Sandbox
from tests.unit.temporary_control_plane import (
    APISERVER,
    MANAGER,
    MANIFESTS,
    PIVOTED,
    SCHEDULER,
    SECRETS,
    STATES,
    arrange,
    checkpoint,
    hand_over,
    is_handed_over,
    leave,
    manifest_names,
    seen,
)


@pytest.fixture
def controller(tmp_path: Path) -> Sandbox:
    return arrange(Sandbox(tmp_path))


@pytest.mark.parametrize("state", swept(STATES))
def test_the_hand_over_converges_from_every_half_state(controller: Sandbox, state: str) -> None:
    leave(controller, state)
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)


def test_leaders_go_at_once_and_the_apiserver_last(controller: Sandbox) -> None:
    leave(controller, "nothing done yet")
    assert hand_over(controller)[0] == 0
    assert list(dict.fromkeys(manifests for _, manifests in seen(controller))) == [
        (APISERVER, MANAGER, SCHEDULER),
        (APISERVER,),
        (),
    ]


@pytest.mark.parametrize("flag", ["no-real-api", "no-api"])
def test_the_temporary_control_plane_stays_until_the_real_one_serves(controller: Sandbox, flag: str) -> None:
    leave(controller, "nothing done yet")
    controller.write(f"/var/{flag}")
    code, error = hand_over(controller)
    assert code == 1
    assert "timed out waiting for the self-hosted kube-apiserver to answer at port 6443" in error
    assert manifest_names(controller) == [APISERVER, MANAGER, SCHEDULER, "etcd.yaml"]
    assert controller.path(SECRETS).exists()


@pytest.mark.parametrize("owner", swept(["kube-apiserver", "pod-checkpointer"]))
@pytest.mark.parametrize("damaged", [None, "other"])
def test_the_temporary_control_plane_stays_until_checkpoints_are_on_disk(
    controller: Sandbox, owner: str, damaged: str | None
) -> None:
    leave(controller, "nothing done yet")
    manifest = checkpoint(controller, owner)
    if damaged:
        controller.write(manifest, damaged)
    else:
        controller.path(manifest).unlink()
    code, error = hand_over(controller)
    assert code == 1
    assert "timed out waiting for the control plane's checkpoints in" in error
    assert manifest_names(controller) == [APISERVER, MANAGER, SCHEDULER, "etcd.yaml"]
    checkpoint(controller, owner)
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("no-containerd", "timed out waiting for the temporary controller manager and scheduler to end"),
        ("no-lease", "timed out waiting for the self-hosted kube-controller-manager to lead"),
    ],
)
def test_no_answer_is_not_taken_for_ended_or_led(controller: Sandbox, flag: str, message: str) -> None:
    leave(controller, "nothing done yet")
    controller.write(f"/var/{flag}")
    code, error = hand_over(controller)
    assert code == 1
    assert message in error
    assert not controller.path(PIVOTED).exists()
    assert manifest_names(controller) == [APISERVER, MANAGER, SCHEDULER, "etcd.yaml"], "they are put back"
    controller.path(f"/var/{flag}").unlink()
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)


def test_leaders_that_a_killed_run_has_ended_are_put_back_as_well(controller: Sandbox) -> None:
    leave(controller, "leaders aside")
    controller.write("/var/no-lease")
    assert hand_over(controller)[0] == 1
    assert manifest_names(controller) == [APISERVER, MANAGER, SCHEDULER, "etcd.yaml"]


@pytest.mark.parametrize("state", swept(STATES))
def test_a_real_leader_may_have_led_before(controller: Sandbox, state: str) -> None:
    """With several controllers the temporary one is often a mere candidate."""
    controller.write("/var/real-leads")
    leave(controller, state)
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)


# What the lease says when its holder has ended and nobody has taken over.
DEAD = {
    "killed": "2026-11-20T23:59:50.000000Z temporary",
    "killed a moment ago": "MOMENT.100000Z temporary",
    "released": "2026-11-21T23:59:50.000000Z ",
    "never held": " ",
}


@pytest.mark.parametrize("leader", swept(["controller-manager", "scheduler"]))
@pytest.mark.parametrize("dead", swept(DEAD))
def test_a_run_after_one_that_was_killed_waits_for_a_leader_too(
    controller: Sandbox, leader: str, dead: str
) -> None:
    """The manifest is gone already, and nobody leads yet."""
    leave(controller, "nothing done yet")
    controller.path(f"{MANIFESTS}/bootstrap-{leader}.yaml").unlink()
    controller.write(f"/var/dead-{leader}", DEAD[dead])
    code, error = hand_over(controller)
    assert code == 1
    assert error == f"error: timed out waiting for the self-hosted kube-{leader} to lead\n"
    assert APISERVER in manifest_names(controller)
    assert not controller.path(PIVOTED).exists()
    takeover = int(controller.path("/var/clock").read_text()) + 50
    controller.write("/var/takeover", str(takeover))
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)
    assert all(clock >= takeover for clock, manifests in seen(controller) if APISERVER not in manifests)


@pytest.mark.parametrize("leader", ["controller-manager", "scheduler"])
def test_a_leader_that_takes_time_to_end_is_waited_for(controller: Sandbox, leader: str) -> None:
    """It renews its lease to its end, long after its manifest is gone."""
    leave(controller, "nothing done yet")
    controller.write(f"/var/lingers-{leader}", "80")
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)
    assert all(APISERVER in manifests for clock, manifests in seen(controller) if clock < 80)
    assert any(MANAGER not in manifests for clock, manifests in seen(controller) if clock < 80)


def test_the_hand_over_is_not_done_before_the_api_knows_that_the_pods_are_gone(controller: Sandbox) -> None:
    """A kubelet tells it some seconds after their containers have ended."""
    leave(controller, "nothing done yet")
    controller.write("/var/shown-apiserver", "200")
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)
    assert int(controller.path("/var/clock").read_text()) >= 200


def test_pods_of_which_the_api_tells_nothing_are_not_gone(controller: Sandbox) -> None:
    leave(controller, "nothing done yet")
    controller.write("/var/silent")
    code, error = hand_over(controller)
    assert (code, "waiting for the pods of the temporary control plane to be gone" in error) == (1, True)
    assert controller.path(SECRETS).exists()
    controller.path("/var/silent").unlink()
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)


@pytest.mark.parametrize("leader", ["controller-manager", "scheduler"])
def test_whoever_took_over_while_the_temporary_one_ended_leads(controller: Sandbox, leader: str) -> None:
    """And need not renew its lease to show it."""
    leave(controller, "nothing done yet")
    controller.write(f"/var/early-{leader}", "2026-11-20T23:59:50.000000Z real")
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)


@pytest.mark.parametrize("holder", ["temporary", ""])
def test_whoever_led_before_has_to_renew_its_lease(controller: Sandbox, holder: str) -> None:
    leave(controller, "nothing done yet")
    controller.write("/var/early-scheduler", f"2026-11-20T23:59:50.000000Z {holder}")
    code, error = hand_over(controller)
    assert (code, error) == (1, "error: timed out waiting for the self-hosted kube-scheduler to lead\n")
    assert APISERVER in manifest_names(controller)


def test_without_the_temporary_one_the_api_has_to_answer_five_times_in_a_row(
    controller: Sandbox,
) -> None:
    """There is time for six looks. Until then the hand-over is not done."""
    leave(controller, "nothing done yet")
    controller.write("/var/bad-look", "2")
    code, error = hand_over(controller)
    assert (code, "timed out waiting for the API to answer five times in a row" in error) == (1, True)
    assert not is_handed_over(controller)
    controller.write("/var/bad-look", "1")
    assert hand_over(controller) == (0, "")
    assert is_handed_over(controller)


def test_static_pods_of_a_worker_that_look_alike_are_nothing_to_wait_for(controller: Sandbox) -> None:
    """Their names end with that node's, and no DaemonSet owns them."""
    leave(controller, "nothing done yet")
    names = ("bootstrap-x-worker-1", "bootstrap-apiserver-controller-1-worker-1", "network-check-x-worker-1")
    controller.write("/var/static", "".join(f"pod/{name}\n" for name in names))
    assert hand_over(controller) == (0, "")
    assert not controller.path(SECRETS).exists()


def test_what_nothing_mounts_any_more_goes_when_all_is_done(controller: Sandbox) -> None:
    leave(controller, "nothing done yet")
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
    assert hand_over(controller)[0] == 1
    assert not controller.path("/var/deleted").exists()
    controller.path("/var/no-real-api").unlink()
    assert hand_over(controller) == (0, "")
    assert controller.path("/var/deleted").read_text().split() == old


def test_what_cannot_be_listed_is_told(controller: Sandbox) -> None:
    leave(controller, "nothing done yet")
    controller.path("/var/mounted").unlink()
    code, error = hand_over(controller)
    assert code == 1
    assert "mounted: No such file" in error
    assert not controller.path("/var/deleted").exists()
