"""The scripts that start and retire the temporary control plane, run in a sandbox with a made-up cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.assets.node import bootstrap_files, retire_files, script
from tests.cases import load
from tests.unit.sandbox import Sandbox

MANIFESTS = "/etc/kubernetes/manifests"
SECRETS = "/etc/kubernetes/bootstrap-secrets"
PIVOTED = "/var/lib/kubepivot/pivoted"
APISERVER, MANAGER, SCHEDULER = (
    f"bootstrap-{name}.yaml" for name in ("apiserver", "controller-manager", "scheduler")
)

# Flags of the made-up cluster, each a file: no-api, no-real-api, not-ready, silent (kubectl fails).
CURL = """
case "$*" in
  *--verbose*) [ ! -e /var/no-api ] && [ ! -e /var/no-real-api ] && echo "subject: CN=kube-apiserver" ;;
  *) [ ! -e /var/no-api ] ;;
esac
"""
KUBECTL = """
shift 2
echo "$(ls /etc/kubernetes/manifests | grep bootstrap- | tr '\\n' ' ')" >>/var/seen
leader() { if [ -e "/etc/kubernetes/manifests/bootstrap-$1.yaml" ]; then echo temporary; else echo real; fi; }
case "$*" in
  "rollout status daemonset/kube-apiserver "*) echo 'daemon set "kube-apiserver" successfully rolled out' ;;
  "wait --for=condition=Ready "*) [ ! -e /var/not-ready ] ;;
  "get lease kube-controller-manager "*) leader controller-manager ;;
  "get lease kube-scheduler "*) leader scheduler ;;
  "get pods --output=name")
    [ ! -e /var/silent ] || exit 1
    for manifest in /etc/kubernetes/manifests/bootstrap-*; do
      [ ! -e "$manifest" ] || echo "pod/$(echo "${manifest##*/}" | sed 's/\\.yaml$//')-controller-1"
    done
    echo pod/kube-apiserver-abcde ;;
  "get nodes") echo "worker-1 NotReady" ;;
esac
"""
# Ten seconds go by whenever somebody looks.
DATE = 'now=$(($(cat /var/clock) + 10)); echo "$now" >/var/clock; echo "$now"'


@pytest.fixture
def controller(tmp_path: Path) -> Sandbox:
    """A controller whose node step has ended."""
    host = Sandbox(tmp_path)
    host.real(
        "cat", "cmp", "cp", "find", "grep", "ls", "mkdir", "mv", "rm", "sed", "sort", "stat", "touch", "tr"
    )
    host.fake("curl", CURL)
    host.fake("kubectl", KUBECTL)
    host.fake("date", DATE)
    host.fake("sleep")
    # Only root may give a directory away.
    host.fake("install", 'for directory; do :; done; mkdir -p "$directory"')
    host.write("/var/clock", "0")
    host.write(f"{MANIFESTS}/etcd.yaml", "etcd")
    host.path("/var/lib/kubepivot").mkdir(parents=True)
    return host


def _start(host: Sandbox) -> tuple[int, str]:
    case = load("lab")
    files = bootstrap_files(case.cfg, case.machines["controller-1"], case.texts)
    texts = {
        f"root{host.path(path.removeprefix('root'))}" if path.startswith("root/") else path: file.text
        for path, file in files.items()
    }
    done = host.run(script("bootstrap"), texts)
    return done.returncode, done.stderr


def _retire(host: Sandbox) -> tuple[int, str]:
    case = load("lab")
    files = retire_files(case.cfg, case.machines["controller-1"], case.texts)
    done = host.run(script("retire"), {path: file.text for path, file in files.items()})
    return done.returncode, done.stderr


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


def test_a_start_after_the_hand_over_starts_nothing(controller: Sandbox) -> None:
    controller.write(PIVOTED)
    assert _start(controller) == (0, "")
    assert _manifests(controller) == ["etcd.yaml"]
    assert not controller.path(SECRETS).exists()


@pytest.mark.parametrize("pivoted", [False, True])
def test_a_start_waits_for_the_api_and_says_where_to_look(controller: Sandbox, pivoted: bool) -> None:
    controller.write("/var/no-api")
    if pivoted:
        controller.write(PIVOTED)
    code, error = _start(controller)
    assert code == 1
    assert "timed out waiting for the API at https://172.30.0.11:6443/readyz" in error
    assert "journalctl -u kubelet" in error


# -- retirement ----------------------------------------------------------------------------------------------

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


def _is_retired(host: Sandbox) -> bool:
    return (
        _manifests(host) == ["etcd.yaml"] and host.path(PIVOTED).exists() and not host.path(SECRETS).exists()
    )


@pytest.mark.parametrize("state", STATES)
def test_the_hand_over_converges_from_every_half_state(controller: Sandbox, state: str) -> None:
    _arrange(controller, state)
    assert _retire(controller) == (0, "")
    assert _is_retired(controller)
    assert _retire(controller) == (0, "")
    assert _is_retired(controller)


def test_leaders_go_one_after_another_and_the_apiserver_last(controller: Sandbox) -> None:
    _arrange(controller, "nothing done yet")
    assert _retire(controller)[0] == 0
    seen = list(dict.fromkeys(controller.path("/var/seen").read_text().splitlines()))
    assert [line.split() for line in seen] == [
        [APISERVER, MANAGER, SCHEDULER],
        [APISERVER, SCHEDULER],
        [APISERVER],
        [],
    ]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("no-real-api", "timed out waiting for the self-hosted kube-apiserver to answer"),
        ("no-api", "timed out waiting for the self-hosted kube-apiserver to answer"),
        ("not-ready", "timed out waiting for every node to be Ready"),
    ],
)
def test_the_temporary_control_plane_stays_until_the_real_one_serves(
    controller: Sandbox, flag: str, message: str
) -> None:
    _arrange(controller, "nothing done yet")
    controller.write(f"/var/{flag}")
    code, error = _retire(controller)
    assert code == 1
    assert message in error
    assert _manifests(controller) == [APISERVER, MANAGER, SCHEDULER, "etcd.yaml"]
    assert controller.path(SECRETS).exists()


def test_no_answer_is_not_taken_for_gone(controller: Sandbox) -> None:
    _arrange(controller, "nothing done yet")
    controller.write("/var/silent")
    code, error = _retire(controller)
    assert code == 1
    assert "timed out waiting for the temporary control plane to be gone" in error
    controller.path("/var/silent").unlink()
    assert _retire(controller) == (0, "")
    assert _is_retired(controller)
