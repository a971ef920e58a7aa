"""The gate that waits for every workload and tells what went wrong, in a sandbox with a made-up cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.assets.handover import retire_files, roll_seconds
from components.assets.templates import script
from components.config import parse
from tests.cases import load
from tests.unit.sandbox import Sandbox

WORKLOADS = (
    *("flannel", "kube-apiserver", "kube-proxy", "pod-checkpointer"),
    *("coredns", "kube-controller-manager", "kube-scheduler"),
)
SETTLED = "2|2|2|2|2|2|2"
"""Generation, the observed one, wanted, existing, new, Ready and available pods."""

# Files of the made-up cluster: counts/<workload>, backoff/<workload>, pods/<workload>, states/<pod>,
# events/<pod>, logs/<pod>/<container> with what it says, logs/<pod>/<container>.previous likewise.
KUBECTL = """
while case $1 in --*) true ;; *) false ;; esac; do shift; done
say() { [ ! -e "$1" ] || cat "$1"; }
echo "$*" >>/var/asked
case "$*" in
  "wait --for=condition=Ready "*) [ ! -e /var/not-ready ] ;;
  "apply --filename="*) cat "${2#*=}" >>/var/check ;;
  "get service/network-check "*) echo 10.96.0.99 ;;
  "get pods --selector=app.kubernetes.io/name=network-check "*) cat /var/connected ;;
  "delete daemonset/network-check "*) rm -f /var/check ;;
  "get configmaps,secrets "* | "get pods --output=jsonpath={range .items[*].spec.volumes"*) ;;
  "get pods --output=name") ;;
  "get nodes") echo "worker-1 NotReady" ;;
  "get daemonset/"*)
    [ ! -e /var/no-api ] || { echo "the API is away" >&2; exit 1; }
    for workload; do
      name=${workload#*/}
      case $workload in */*) read -r counts <"/var/counts/$name"; echo "$name|$counts" ;; esac
    done ;;
  "annotate pods --selector=app.kubernetes.io/name in "*) ;;
  "get pods --selector="*"jsonpath={..waiting.reason}") say "/var/backoff/${3##*/name=}" ;;
  "get pods --selector="*) say "/var/pods/${3##*/name=}" ;;
  "get pod/"*) say "/var/states/${2#pod/}" ;;
  "get events "*) say "/var/events/${3##*=}" ;;
  "logs "*" --previous=false") say "/var/logs/$2/${3#--container=}" ;;
  "logs "*" --previous=true") say "/var/logs/$2/${3#--container=}.previous" ;;
  *) echo "not imitated: $*" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A controller that has taken over, with every workload rolled out."""
    host = Sandbox(tmp_path)
    host.real("cat", "cut", "find", "grep", "head", "mv", "rm", "sed", "tail")
    host.fake("curl", 'case "$*" in *--verbose*) echo "subject: CN=kube-apiserver" ;; esac')
    host.fake("kubectl", KUBECTL)
    # Ten seconds go by whenever somebody looks.
    host.fake("date", "read -r now </var/clock; now=$((now + 10)); echo $now >/var/clock; echo $now")
    host.fake("sleep")
    host.fake("sync")
    host.write("/var/connected", "controller-1|True\nworker-1|True\n")
    host.write("/var/clock", "0")
    host.write("/var/lib/kubepivot/pivoted")
    for name in WORKLOADS:
        host.write(f"/var/counts/{name}", SETTLED)
    return host


def _run(host: Sandbox, **config: Any) -> tuple[int, str]:
    case = load("lab")
    cfg = parse(case.raw | config, stack="lab")
    files = retire_files(cfg, case.machines["controller-1"], case.machines, case.texts)
    done = host.run(script("retire"), {path: file.text for path, file in files.items()})
    return done.returncode, done.stderr


def _clock(host: Sandbox) -> int:
    return int(host.path("/var/clock").read_text())


def _break(host: Sandbox, name: str, *, reason: str = "", message: str = "", says: str = "") -> None:
    """A workload whose new pod does not become Ready, and the old one stays."""
    pod = f"{name}-new"
    host.write(f"/var/counts/{name}", "3|3|2|2|1|2|2")
    host.write(f"/var/backoff/{name}", reason)
    host.write(f"/var/pods/{name}", f"{name}-old|True\n{pod}|False\n")
    host.write(f"/var/states/{pod}", f"false|{name}|4|{reason}|{message}\n")
    if says:
        host.write(f"/var/logs/{pod}/{name}", says)


def test_every_workload_is_waited_for() -> None:
    case = load("lab")
    env = retire_files(case.cfg, case.machines["controller-1"], case.machines, case.texts)["env"].text
    (line,) = [line for line in env.splitlines() if line.startswith("WORKLOADS=")]
    assert {each.partition("/")[2].rstrip("'") for each in line.split()} == set(WORKLOADS)


def test_a_cluster_as_it_should_be_passes(host: Sandbox) -> None:
    assert _run(host) == (0, "")


@pytest.mark.parametrize(
    "counts",
    [
        "3|2|2|2|2|2|2",
        "3||||||",
        "2|2|2|3|2|3|3",
        "2|2|2|2|1|2|2",
        "2|2|2|2|2|2|1",
        "2|2|2|2|2|2|",
        "2|2|2||1|2|2",
    ],
    ids=[
        "not observed",
        "new",
        "an old one left",
        "not all new",
        "not available",
        "none available",
        "daemons",
    ],
)
@pytest.mark.parametrize("name", ["coredns", "kube-scheduler"])
def test_a_workload_that_is_not_rolled_out_is_waited_for_until_the_deadline(
    host: Sandbox, name: str, counts: str
) -> None:
    host.write(f"/var/counts/{name}", counts)
    code, error = _run(host)
    assert code == 1
    assert "error: timed out waiting for every node to be Ready and every workload to be rolled out" in error
    assert f"--- {name} is not rolled out" in error
    deadline = roll_seconds(load("lab").cfg)
    assert deadline <= _clock(host) < deadline + 70
    assert [line for line in error.splitlines() if line.startswith("---")] == [error.splitlines()[1]]


def test_a_daemon_set_has_no_count_of_old_pods(host: Sandbox) -> None:
    host.write("/var/counts/flannel", "2|2|2||2|2|2")
    assert _run(host) == (0, "")


def test_all_that_has_failed_is_told_at_once_with_the_way_back(host: Sandbox) -> None:
    loop = "back-off 5s restarting failed container"
    pull = 'Back-off pulling image "registry.example.com/coredns:none"'
    _break(host, "kube-apiserver", reason="CrashLoopBackOff", message=loop, says="Error: unknown flag: --no")
    _break(host, "coredns", reason="ImagePullBackOff", message=pull)
    host.write("/var/events/coredns-new", "Error: ImagePullBackOff\n")
    host.write("/var/events/kube-apiserver-new", "Back-off restarting failed container\n")
    given = {"kube-apiserver": {"no": "1"}}, {"kube-apiserver": "registry.example.com/a:b", "coredns": "c:d"}
    code, error = _run(host, flags=given[0], images=given[1])
    assert code == 1
    assert error.splitlines() == [
        "--- kube-apiserver is not rolled out; 2 of 2 pods serve",
        f"  pod kube-apiserver-new, container kube-apiserver: CrashLoopBackOff, restarted 4 times. {loop}",
        "    | Error: unknown flag: --no",
        "  If you changed it, put back kubepivot:flags.kube-apiserver or kubepivot:images.kube-apiserver.",
        "--- coredns is not rolled out; 2 of 2 pods serve",
        f"  pod coredns-new, container coredns: ImagePullBackOff, restarted 4 times. {pull}",
        "  If you changed it, put back kubepivot:images.coredns.",
        "What is Ready goes on serving. When the cause is gone, run 'pulumi up' again.",
    ]


def test_a_value_that_nobody_gave_is_not_to_be_put_back(host: Sandbox) -> None:
    for name in WORKLOADS:
        _break(host, name, reason="ImagePullBackOff")
    code, error = _run(host)
    assert (code, "put back" in error) == (1, False)


@pytest.mark.parametrize(
    ("workloads", "config", "key"),
    [
        (["kube-scheduler"], {"flags": {"kube-scheduler": {"v": "2"}}}, "flags.kube-scheduler"),
        (
            ["kube-apiserver", "pod-checkpointer"],
            {"images": {"pod-checkpointer": "python:3.12"}},
            "images.pod-checkpointer",
        ),
        (["flannel"], {"images": {"flannel-cni": "cni:1"}}, "images.flannel-cni"),
        (["kube-proxy"], {"images": {"kube-proxy": "proxy:1"}}, "images.kube-proxy"),
    ],
)
def test_a_value_that_was_given_is_to_be_put_back(
    host: Sandbox, workloads: list[str], config: dict[str, Any], key: str
) -> None:
    for name in WORKLOADS:
        _break(host, name, reason="ImagePullBackOff")
    told = [line for line in _run(host, **config)[1].splitlines() if line.startswith(("---", "  If"))]
    hint = f"  If you changed it, put back kubepivot:{key}."
    assert [told[number - 1].split()[1] for number, line in enumerate(told) if line == hint] == workloads


FORBIDS = {
    "quota": 'Error creating: pods "x" is forbidden: exceeded quota: tight, requested: pods=1',
    "webhook": 'Error creating: Internal error occurred: failed calling webhook "a.example.com": refused',
}


@pytest.mark.parametrize("cause", FORBIDS)
@pytest.mark.parametrize(("workload", "owner"), [("kube-apiserver", ""), ("coredns", "-7d9f8c")])
def test_what_forbids_new_pods_is_told(host: Sandbox, workload: str, owner: str, cause: str) -> None:
    host.write(f"/var/counts/{workload}", "3|3|2|2|0|2|2")
    host.write(f"/var/pods/{workload}", f"{workload}-old|True\n")
    events = [
        f"{workload}{owner}|an older one",
        f"{workload}{owner}|{FORBIDS[cause]}",
        f"{workload}-a-b|other",
    ]
    host.write("/var/events/FailedCreate", "\n".join(events) + "\n")
    code, error = _run(host)
    assert code == 1
    assert error.splitlines()[1:-1] == [
        f"--- {workload} is not rolled out; 2 of 2 pods serve",
        f"    | {FORBIDS[cause]}",
    ]


def test_what_forbade_pods_once_is_not_told_of_one_that_crashes(host: Sandbox) -> None:
    _break(host, "coredns", reason="CrashLoopBackOff", says="bad Corefile")
    host.write("/var/events/FailedCreate", f"coredns-7d9f8c|{FORBIDS['quota']}\n")
    error = _run(host)[1]
    assert "bad Corefile" in error and "quota" not in error


def test_what_backs_off_is_given_up_early_but_not_at_once(host: Sandbox) -> None:
    _break(host, "kube-scheduler", reason="CrashLoopBackOff")
    assert _run(host)[0] == 1
    assert 60 <= _clock(host) < 130


def test_what_may_still_come_is_waited_for_beside_what_backs_off(host: Sandbox) -> None:
    _break(host, "kube-scheduler", reason="CrashLoopBackOff")
    _break(host, "kube-proxy", reason="ContainerCreating")
    assert _run(host)[0] == 1
    assert _clock(host) >= roll_seconds(load("lab").cfg)


def test_an_init_container_and_the_last_lines_of_the_one_before(host: Sandbox) -> None:
    _break(host, "flannel")
    states = "false|install-cni|3|CrashLoopBackOff|back-off\nfalse|flannel|0|PodInitializing|\n"
    host.write("/var/states/flannel-new", states)
    host.write("/var/logs/flannel-new/install-cni.previous", "cp: no space left")
    host.write("/var/events/flannel-new", "Back-off restarting\nthe node is full\n")
    error = _run(host)[1].splitlines()
    assert error[1:-1] == [
        "--- flannel is not rolled out; 2 of 2 pods serve",
        "  pod flannel-new, container install-cni: CrashLoopBackOff, restarted 3 times. back-off",
        "    | cp: no space left",
        "    | the node is full",
    ]


def test_a_log_that_went_with_its_container_is_none(host: Sandbox) -> None:
    """So the kubelet answers, as if it were the log, while it replaces the container."""
    gone = "unable to retrieve container logs for containerd://97a1"
    _break(host, "kube-scheduler", reason="CrashLoopBackOff", says="Error: unknown flag: --not-a-flag")
    host.write("/var/logs/kube-scheduler-new/kube-scheduler.previous", gone)
    error = _run(host)[1].splitlines()
    assert "    | Error: unknown flag: --not-a-flag" in error
    assert gone not in "".join(error)


def test_one_that_has_just_begun_again_has_not_said_why_it_crashes(host: Sandbox) -> None:
    _break(host, "kube-scheduler", reason="CrashLoopBackOff", says="Version: v1.36.3")
    host.write("/var/logs/kube-scheduler-new/kube-scheduler.previous", "no certificate in that file")
    error = _run(host)[1].splitlines()
    assert "    | no certificate in that file" in error
    assert "    | Version: v1.36.3" not in error


def test_the_explanation_is_bounded(host: Sandbox) -> None:
    for name in WORKLOADS:
        _break(host, name, reason="CrashLoopBackOff", message="m" * 5000, says="x" * 5000 + "\n")
        pods = [f"{name}-{number}" for number in range(20)]
        host.write(f"/var/pods/{name}", "".join(f"{pod}|False\n" for pod in pods))
        for pod in pods:
            host.write(f"/var/states/{pod}", f"false|{name}|4|CrashLoopBackOff|{'m' * 5000}\n")
    error = _run(host)[1]
    assert len(error.splitlines()) < 10 * len(WORKLOADS)
    assert max(map(len, error.splitlines())) < 500


def test_logs_are_asked_for_by_a_bounded_number_of_lines(host: Sandbox) -> None:
    _break(host, "coredns", reason="CrashLoopBackOff", says="one")
    _run(host)
    logs = [line for line in host.path("/var/asked").read_text().splitlines() if line.startswith("logs ")]
    assert logs and all(" --tail=8 " in line for line in logs)


def test_an_api_that_is_away_is_said(host: Sandbox) -> None:
    host.write("/var/no-api")
    code, error = _run(host)
    assert code == 1
    assert "the API is away" in error


def test_pods_are_touched_while_they_are_waited_for(host: Sandbox) -> None:
    assert _run(host) == (0, "")
    assert "annotate" not in host.path("/var/asked").read_text()
    _break(host, "kube-apiserver", reason="CrashLoopBackOff")
    _break(host, "coredns", reason="ImagePullBackOff")
    _run(host)
    asked = host.path("/var/asked").read_text()
    assert "annotate pods --selector=app.kubernetes.io/name in (none,kube-apiserver,coredns) " in asked


@pytest.mark.parametrize("ready", [True, False])
def test_the_first_time_ready_is_enough(host: Sandbox, ready: bool) -> None:
    """What is there beside them is the temporary control plane."""
    host.write("/etc/kubernetes/manifests/bootstrap-apiserver.yaml")
    for name in WORKLOADS:
        host.write(f"/var/counts/{name}", "1|1|1|1|1|1|")
    if not ready:
        host.write("/var/counts/coredns", "1|1|1|1|1||")
        host.write("/var/pods/bootstrap-scheduler", "bootstrap-scheduler-controller-1|False\n")
        host.write(
            "/var/states/bootstrap-scheduler-controller-1", "false|kube-scheduler|9|CrashLoopBackOff|loop\n"
        )
    code, error = _run(host)
    assert (code == 0) == ready
    assert ("coredns is not rolled out" not in error) == ready
    if not ready:
        assert "pod bootstrap-scheduler-controller-1, container kube-scheduler: CrashLoopBackOff" in error
        assert "The temporary control plane stays." in error
