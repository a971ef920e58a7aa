"""`keep-node`, run in a sandbox against an API that is made up, and the files that it runs with."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from components.assets.manifests import managed, manifests, role
from components.assets.node import node_files
from components.assets.registration import KEEP_NODE, registration_files
from components.config import parse
from components.hosts.machine import configured_machines
from tests.cases import load, read
from tests.unit.sandbox import Sandbox

# Of the API there are the objects below /var/api, each with a text. With /var/api/refused nobody listens,
# with /var/api/silent nobody answers, with /var/api/forbidden nothing may be written. /var/asked has what was
# asked to be written.
CURL = """
for url; do :; done
case $* in *"--noproxy *"*) ;; *) echo "a proxy would be asked" >&2; exit 2 ;; esac
[ ! -e /var/api/refused ] || { printf '\\n000'; exit 7; }
[ ! -e /var/api/silent ] || { printf '\\n000'; exit 28; }
path=/${url#https://*/}
object=/var/api${path%%[?]*}
case $* in
  *--request\\ PATCH*)
    echo "$path" >>/var/asked
    if [ -e /var/api/forbidden ]; then printf 'forbidden\\n403'
    elif [ -e "$object" ]; then printf 'object\\n200'
    else
      mkdir -p "${object%/*}"
      cat >"$object"
      printf 'object\\n201'
    fi ;;
  *) if [ -e "$object" ]; then cat "$object"; printf '\\n200'; else printf 'none\\n404'; fi ;;
esac
"""
# Between two looks the next event happens; with the last one it ends.
SLEEP = """
[ -s /var/events ] || kill $PPID
event=$(head -n 1 /var/events)
sed -i 1d /var/events
eval "$event"
"""
# One flannel runs, and one has ended.
CTR = """
case "$*" in
  *" containers list "*"==flannel") echo runs ended ;;
  *" tasks kill --signal SIGTERM ended") exit 1 ;;
  *) echo "$*" >>/var/ended ;;
esac
"""
KUBELET = '{"metadata": {"labels": {"kubernetes.io/hostname": "a"}}, "spec": {"podCIDR": "10.2.3.0/24"}}'
ARM = "/usr/local/libexec/kubepivot/arm-checkpoints"
NODES = {"controller-1": "lab", "worker-1": "lab", "alpha": "baremetal", "gpu": "baremetal"}
RESTART = "--no-block try-restart kubelet"


class Keeper:
    """A host on which `keep-node` runs."""

    def __init__(self, path: Path, name: str) -> None:
        self.host, self.name = Sandbox(path), name
        case = load(NODES[name])
        for file, content in registration_files(
            case.cfg, case.machines[name], case.machines, case.texts
        ).items():
            self.host.write(file, content.text)
        self.host.real("cat", "cp", "find", "head", "mkdir", "mv", "rm", "sed", "sh", "touch")
        self.host.fake("curl", CURL)
        self.host.fake("sleep", SLEEP)
        self.host.fake("systemctl", 'echo "$*" >>/var/calls')
        self.host.fake("flock", "[ ! -e /var/locked ]")
        self.host.fake("ctr", CTR)
        if case.machines[name].is_controller:
            self.host.write(ARM, f"#!/bin/sh\n{self.host.moved('echo armed $* >>/var/calls')}\n")
            self.host.path(ARM).chmod(0o755)
        self.host.fake("keep-node", self.host.path(KEEP_NODE).read_text())
        self.node = f"/var/api/api/v1/nodes/{name}"
        self.host.write(self.node, KUBELET)

    def run(self, events: Sequence[str] = (), *arguments: str) -> str:
        """Looks, and once more after each event; what it said."""
        for file in ("asked", "calls"):
            self.host.write(f"/var/{file}")
        self.host.write("/var/events", "".join(f"{self.host.moved(event)}\n" for event in events))
        done = self.host.run(f"keep-node {shlex.join(arguments)} || true")
        assert done.stderr in ("", "Terminated\n"), done.stderr
        return done.stdout

    def lines(self, file: str) -> list[str]:
        return self.host.path(f"/var/{file}").read_text().splitlines()


@pytest.fixture(params=NODES)
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> Keeper:
    return Keeper(tmp_path, request.param)


@pytest.fixture
def controller(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path, "controller-1")


def test_a_node_that_is_there_is_left_alone(keeper: Keeper) -> None:
    if keeper.name == "controller-1":
        for object_ in ("api/v1/namespaces/default/endpoints", ENDPOINT_SLICES):
            keeper.host.write(f"/var/api/{object_}/kubernetes")
    assert keeper.run(["true", "true"]) == ""
    assert keeper.lines("calls") == []
    assert keeper.host.path(keeper.node).read_text() == KUBELET


def test_a_kubelet_whose_node_was_deleted_registers_anew(keeper: Keeper) -> None:
    said = keeper.run([f"rm {keeper.node}", "true"])
    assert said.endswith(f"node {keeper.name} is gone: the kubelet registers anew\n")
    assert keeper.lines("calls") == [RESTART]


def test_a_node_that_is_gone_for_a_moment_is_not_made_anew(keeper: Keeper) -> None:
    gone, back = f"rm {keeper.node}", f"echo '{KUBELET}' >{keeper.node}"
    keeper.run([gone, back, gone, back])
    assert keeper.lines("calls") == []


def test_a_kubelet_is_restarted_at_most_once_a_minute(tmp_path: Path) -> None:
    worker = Keeper(tmp_path, "worker-1")
    worker.host.write("/var/api/forbidden")
    worker.run([f"rm {worker.node}", *["true"] * 12])
    assert worker.lines("calls") == [RESTART] * 2


@pytest.mark.parametrize("answer", ["silent", "forbidden"])
def test_an_api_that_does_not_tell_is_no_reason_for_anything(controller: Keeper, answer: str) -> None:
    said = controller.run([f"touch /var/api/{answer}", *["true"] * 5, f"rm /var/api/{answer}", "true"])
    assert controller.lines("calls") == []
    assert said.count("cannot apply") == (3 if answer == "forbidden" else 0), "once for each object"


# -- controllers ---------------------------------------------------------------------------------------------

ENDPOINT_SLICES = "apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
ROLE = "node-role.kubernetes.io/control-plane"


@pytest.mark.parametrize("name", ["controller-1", "alpha"])
def test_a_controllers_node_has_its_role_before_the_kubelet_sees_it(tmp_path: Path, name: str) -> None:
    """Else kube-apiserver would be taken away from there."""
    controller = Keeper(tmp_path, name)
    controller.run([f"rm {controller.node}", "true"])
    assert f"/api/v1/nodes/{name}?fieldManager=kubepivot-registration&force=true" in controller.lines("asked")
    made = json.loads(controller.host.path(controller.node).read_text())
    assert made["metadata"]["labels"][ROLE] == ""
    assert {"key": ROLE, "value": "", "effect": "NoSchedule"} in made["spec"]["taints"]


def test_a_kubelet_that_starts_finds_its_node(keeper: Keeper) -> None:
    assert keeper.run((), "--once") == ""
    keeper.host.path(keeper.node).unlink()
    keeper.run((), "--once")
    made = json.loads(keeper.host.path(keeper.node).read_text())
    assert (ROLE in made["metadata"]["labels"]) == load(NODES[keeper.name]).machines[
        keeper.name
    ].is_controller
    assert keeper.lines("calls") == []


def test_a_node_that_is_made_again_keeps_the_addresses_of_its_pods(keeper: Keeper) -> None:
    keeper.run([f"rm {keeper.node}", "true"])
    spec = json.loads(keeper.host.path(keeper.node).read_text())["spec"]
    assert (spec["podCIDR"], spec["podCIDRs"]) == ("10.2.3.0/24", ["10.2.3.0/24"])


def test_a_kubelet_that_starts_without_its_node_keeps_the_addresses_too(keeper: Keeper) -> None:
    """What was the Node's range is in a file of flannel's, as long as there are pods of before."""
    keeper.host.path(keeper.node).unlink()
    keeper.host.write("/run/flannel/subnet.env", "FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.3.1/24\n")
    keeper.run((), "--once")
    spec = json.loads(keeper.host.path(keeper.node).read_text())["spec"]
    assert (spec["podCIDR"], spec["podCIDRs"]) == ("10.2.3.0/24", ["10.2.3.0/24"])


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_flannel_asks_for_a_lease_of_the_new_node(keeper: Keeper, arguments: tuple[str, ...]) -> None:
    """It has one of the Node that is gone, and looks at no other until it starts."""
    keeper.run(["true"], *arguments)
    assert not keeper.host.path("/var/ended").exists()
    keeper.host.path(keeper.node).unlink()
    keeper.run(["true"], *arguments)
    assert keeper.lines("ended") == ["--namespace k8s.io tasks kill --signal SIGTERM runs"]


def test_a_worker_makes_its_node_with_its_kubelets_login(tmp_path: Path) -> None:
    worker = Keeper(tmp_path, "worker-1")
    worker.run([f"rm {worker.node}", "true"])
    assert not worker.host.path("/etc/kubernetes/pki/controller.pem").exists()
    assert worker.lines("asked") == ["/api/v1/nodes/worker-1?fieldManager=kubepivot-registration&force=true"]


def test_a_run_that_was_killed_before_the_kubelet_registered_is_ended_by_the_next(controller: Keeper) -> None:
    """The Node has been made, and lacks what only the kubelet knows."""
    controller.host.write(controller.node, controller.host.path("/etc/kubernetes/node.json").read_text())
    controller.run()
    assert controller.lines("calls") == [RESTART]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (
            "controller-1",
            {
                "/api/v1/nodes/controller-1",
                "/api/v1/namespaces/default/endpoints/kubernetes",
                f"/{ENDPOINT_SLICES}/kubernetes",
            },
        ),
        ("alpha", {"/api/v1/nodes/alpha"}),
        ("worker-1", set()),
    ],
)
def test_role_and_endpoints_are_kept(tmp_path: Path, name: str, kept: set[str]) -> None:
    keeper = Keeper(tmp_path, name)
    keeper.run()
    assert sorted(keeper.lines("asked")) == sorted(
        f"{path}?fieldManager=kubepivot&force=true" for path in kept
    )


def test_where_nobody_is_left_to_start_an_api_the_checkpoints_are_armed(keeper: Keeper) -> None:
    keeper.run(["touch /var/api/refused", *["true"] * 6])
    armed = ["armed --again"] if load(NODES[keeper.name]).machines[keeper.name].is_controller else []
    assert keeper.lines("calls")[:1] == armed


@pytest.mark.parametrize(
    "why",
    [
        "touch /var/locked",
        "touch /etc/kubernetes/manifests/kube-apiserver-checkpoint.json",
        "touch /etc/kubernetes/manifests/bootstrap-apiserver.yaml",
        "mv /var/api/refused /var/api/silent",
        "rm /var/api/refused",
    ],
)
def test_an_api_that_somebody_starts_is_waited_for(controller: Keeper, why: str) -> None:
    controller.host.path("/etc/kubernetes/manifests").mkdir()
    controller.run(["touch /var/api/refused", "true", "true", why, *["true"] * 3])
    assert controller.lines("calls") == []


# -- the files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NODES)
def test_what_is_made_again_is_what_the_program_has_made(name: str) -> None:
    """By the same manager with other fields, a refresh would find a change."""
    case = load(NODES[name])
    files = registration_files(case.cfg, case.machines[name], case.machines, case.texts)
    kept = [json.loads(file.text) for path, file in files.items() if "/kept/" in path]
    known = [managed(each) for each in manifests(case.cfg, case.machines, lambda name: "").values()] + [
        managed(role(name))
    ]
    assert all(each in known for each in kept)


@pytest.mark.parametrize("name", NODES)
def test_a_node_that_is_made_is_the_one_that_its_kubelet_registers(name: str) -> None:
    case = load(NODES[name])
    files = node_files(case.cfg, case.machines[name], case.machines, case.texts)
    made = json.loads(files["root/etc/kubernetes/node.json"].text)
    kubelet = yaml.safe_load(files["root/etc/kubernetes/kubelet.d/taints.conf"].text)
    assert made["spec"]["taints"] == kubelet["registerWithTaints"]
    (labels,) = shlex.split(files["root/etc/kubernetes/kubelet.env"].text)
    pairs = dict(pair.split("=") for pair in labels.removeprefix("NODE_LABELS=").split(",") if pair)
    unit = files["root/etc/systemd/system/kubelet.service"].text
    assert (
        "EnvironmentFile=/etc/kubernetes/kubelet.env\n" in unit and "--node-labels=${NODE_LABELS}\n" in unit
    )
    assert " --config-dir=/etc/kubernetes/kubelet.d " in unit
    role_of = {ROLE: ""} if case.machines[name].is_controller else {}
    assert made["metadata"]["labels"] == {**pairs, **role_of}


def test_the_login_that_keeps_them_is_for_controllers_and_may_no_more() -> None:
    for name, case in NODES.items():
        loaded = load(case)
        files = registration_files(loaded.cfg, loaded.machines[name], loaded.machines, loaded.texts)
        login = files.get("/etc/kubernetes/pki/controller.pem")
        assert (login is not None) == loaded.machines[name].is_controller
        assert login is None or login.mode == 0o600
    raw = read("baremetal")
    cfg = parse(raw, stack="baremetal")
    objects = manifests(cfg, configured_machines(cfg), lambda name: "").values()
    bound = [
        each["roleRef"] for each in objects if "kubepivot:controller" in json.dumps(each.get("subjects", []))
    ]
    assert [each["name"] for each in bound] == ["kubepivot:controller"]
    (rights,) = [each["rules"] for each in objects if (each["kind"], each["metadata"]["name"]) == _ROLE]
    assert rights == [
        {
            "apiGroups": [""],
            "resources": ["nodes"],
            "resourceNames": ["alpha", "beta", "gamma"],
            "verbs": ["create", "patch"],
        }
    ]


_ROLE = ("ClusterRole", "kubepivot:controller")
