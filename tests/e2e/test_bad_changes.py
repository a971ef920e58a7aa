"""Changes that cannot work: nothing that serves is taken away, the error says why, and going back heals.

And changes that do, those among them that somebody makes by hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from lab.engine import docker
from tests.e2e.network import BREAKS, works
from tests.e2e.network import PODS as PEERS
from tests.e2e.probing import Prober, credentials
from tests.e2e.stacks import Stack, eventually, lab_config
from tests.e2e.witnesses import Writer, add_users, lost, users

pytestmark = pytest.mark.e2e

CONTROLLER, WORKER = "changes-controller-1", "changes-worker-1"
ADDRESS = "172.30.7.11"
SYSTEM = "--namespace=kube-system"
# A minute of patience, and what Pulumi, SSH and the explanation take on a machine that is busy.
FAILS_WITHIN_SECONDS = 150
HEALS_WITHIN_SECONDS = 90
NONE = "registry.k8s.io/none/none:none"
RECYCLER = "pv-recycler-pod-template-filepath-hostpath"
NO_POLICY = "/etc/kubernetes/secrets/ca.crt"


@dataclass(frozen=True, kw_only=True)
class Disaster:
    """A change of the stack's config, and what the error has to say of each workload."""

    change: Mapping[str, Mapping[str, Any]]
    said: Mapping[str, tuple[str, ...]]
    overlapping: tuple[str, ...]
    """Of those, the ones whose old pods go on."""
    untouched: tuple[str, ...] = ()
    """What is to be changed after those, and so is not."""
    program: str = ""
    """What the pod-checkpointer's program ends with as soon as it starts."""


def flag(component: str, value: str = "not-a-flag") -> dict[str, dict[str, str]]:
    """A flag that the component does not know."""
    return {component: {value: "x"}}


def unknown_flag(component: str) -> tuple[str, ...]:
    return (f"container {component}: ", "unknown flag: --not-a-flag", f"kubepivot:flags.{component}")


def no_image(name: str) -> tuple[str, ...]:
    return ("ImagePull", NONE, f"kubepivot:images.{name}")  # ErrImagePull or ImagePullBackOff


DISASTERS = {
    "a wrong flag of kube-apiserver, and what comes after it": Disaster(
        change={
            "flags": {**flag("kube-apiserver"), "kube-scheduler": {"kube-api-qps": "77"}},
            "images": {"coredns": NONE},
        },
        said={"kube-apiserver": unknown_flag("kube-apiserver")},
        overlapping=("kube-apiserver",),
        untouched=("kube-scheduler", "coredns"),
    ),
    "wrong flags of what leads, a wrong image of CoreDNS": Disaster(
        change={
            "flags": {**flag("kube-controller-manager"), **flag("kube-scheduler")},
            "images": {"coredns": NONE},
        },
        said={
            "kube-controller-manager": unknown_flag("kube-controller-manager"),
            "kube-scheduler": unknown_flag("kube-scheduler"),
        },
        overlapping=("kube-controller-manager", "kube-scheduler"),
        untouched=("coredns",),
    ),
    "wrong images of flannel, kube-proxy and CoreDNS": Disaster(
        change={"images": {"flannel": NONE, "kube-proxy": NONE, "coredns": NONE}},
        said={
            "flannel": no_image("flannel"),
            "kube-proxy": no_image("kube-proxy"),
            "coredns": no_image("coredns"),
        },
        overlapping=("coredns",),
    ),
    "a wrong image of pod-checkpointer, which kube-apiserver's pods have too": Disaster(
        change={"images": {"pod-checkpointer": NONE}},
        said={"kube-apiserver": no_image("pod-checkpointer")},
        overlapping=("kube-apiserver",),
    ),
    "a wrong image of kube-apiserver": Disaster(
        change={"images": {"kube-apiserver": NONE}},
        said={"kube-apiserver": no_image("kube-apiserver")},
        overlapping=("kube-apiserver",),
    ),
    # Read by the one that leads only, which is no standby any more.
    "a controller manager that ends once it leads": Disaster(
        change={"flags": {"kube-controller-manager": {RECYCLER: "/nowhere"}}},
        said={
            "kube-controller-manager": (
                *("container kube-controller-manager: ", "Could not create hostpath recycler pod"),
                "kubepivot:flags.kube-controller-manager",
            )
        },
        overlapping=(),
    ),
    "a file that is no policy": Disaster(
        change={"flags": {"kube-apiserver": {"audit-policy-file": NO_POLICY}}},
        said={"kube-apiserver": ("loading audit policy file", "kubepivot:flags.kube-apiserver")},
        overlapping=("kube-apiserver",),
    ),
    "a wrong image of flannel's plugin, a checkpointer that crashes": Disaster(
        change={"images": {"flannel-cni": NONE}},
        said={
            "flannel": ("container install-cni: ", "ImagePull", NONE, "kubepivot:images.flannel-cni"),
            "pod-checkpointer": ("container pod-checkpointer: ", "no luck"),
        },
        overlapping=("pod-checkpointer",),
        program="no luck",
    ),
}


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    stack = new_stack("changes", lab_config(7))
    begin = time.monotonic()
    stack.up()
    print(f"pulumi up took {time.monotonic() - begin:.0f} s")
    add_users(stack)
    eventually("a checkpoint of every component", 60, lambda: len(checkpoints()) == 4)
    yield stack


def checkpoints() -> dict[str, str]:
    """What would be started at boot: the current revision by owner."""
    root = "/etc/kubernetes/checkpoints"
    command = f"cd {root} && for owner in *; do echo $owner $(readlink $owner/current); done"
    lines = docker("exec", CONTROLLER, "sh", "-ec", command).splitlines()
    return dict(line.split() for line in lines if len(line.split()) == 2)


def pods(stack: Stack, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.get("pods", *arguments)["items"]
    return found


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def nodes(stack: Stack) -> dict[str, str]:
    """Whether each is Ready; one that has just been made says nothing of it."""
    return {
        node["metadata"]["name"]: condition["status"]
        for node in stack.get("nodes")["items"]
        for condition in node["status"].get("conditions", [])
        if condition["type"] == "Ready"
    }


def ready(stack: Stack, name: str) -> set[str]:
    """UIDs of a workload's pods that are Ready."""
    found = pods(stack, SYSTEM, f"--selector=app.kubernetes.io/name={name}")
    return {pod["metadata"]["uid"] for pod in found if is_ready(pod)}


def told(output: str) -> dict[str, str]:
    """What an error says of each workload, by its name."""
    parts = output.split("--- ")[1:]
    return {part.split()[0]: part for part in parts if "is not rolled out" in part.splitlines()[0]}


PODS = {
    **dict.fromkeys(("kube-apiserver", "kube-controller-manager", "kube-scheduler", "pod-checkpointer"), 1),
    **dict.fromkeys(("coredns", "flannel", "kube-proxy"), 2),
}


def generation(stack: Stack, deployment: str) -> int:
    """Rises with every change of it."""
    return int(stack.get(f"deployment/{deployment}", SYSTEM)["metadata"]["generation"])


def settled(stack: Stack) -> bool:
    """Whether every pod of the cluster is Ready, and none too many is there."""
    found = pods(stack, SYSTEM)
    names = [pod["metadata"]["labels"].get("app.kubernetes.io/name") for pod in found]
    return all(map(is_ready, found)) and {name: names.count(name) for name in PODS} == PODS


def configmaps_are_there(stack: Stack) -> None:
    """A pod that ran may go on without what it mounts; the next one would not start."""
    there = {each["metadata"]["name"] for each in stack.get("configmaps", SYSTEM)["items"]}
    for pod in pods(stack, SYSTEM):
        for volume in pod["spec"]["volumes"]:
            assert volume.get("configMap", {}).get("name") in {None, *there}, pod["metadata"]["name"]


@contextmanager
def crashing(stack: Stack, words: str) -> Iterator[None]:
    """With words, the pod-checkpointer's program, which is a ConfigMap, ends with them."""
    path = stack.checkout.directory / "components/programs/checkpointer/checkpointer.py"
    text = path.read_text()
    if words:
        path.write_text(text.replace("    node, port = arguments\n", f"    raise SystemExit({words!r})\n"))
    try:
        yield
    finally:
        path.write_text(text)


@contextmanager
def watched(stack: Stack, prefix: str) -> Iterator[None]:
    """Clients lose no request meanwhile, the API nothing that it acknowledged, and the user's pods run on."""
    known, people, begin = credentials(stack), users(stack), time.monotonic()
    assert known is not None
    with Prober.start(known, ADDRESS, 6443) as prober:
        with Writer(f"https://{ADDRESS}:6443", known, prefix) as writer:
            yield
            writer.writes_on()
        counts = prober.stop()
    print(counts)
    assert counts["requests"] > 20 * (time.monotonic() - begin)
    assert counts["lost"] == 0, counts
    assert lost(stack, writer.acknowledged) == set()
    assert users(stack) == people


FIRST, *MORE = DISASTERS


@pytest.mark.parametrize("name", [pytest.param(FIRST, marks=pytest.mark.life), *MORE])
def test_a_change_that_cannot_work(stack: Stack, name: str) -> None:
    disaster = DISASTERS[name]
    before = {workload: ready(stack, workload) for workload in disaster.said}
    generations = {name: generation(stack, name) for name in disaster.untouched}
    saved = checkpoints()
    with watched(stack, f"wrong-{[*DISASTERS].index(name)}"):
        stack.configure(lab_config(7) | dict(disaster.change))
        begin = time.monotonic()
        with crashing(stack, disaster.program):
            output = stack.up(fails=True)
        failed = time.monotonic() - begin
        print(output)
        assert failed < FAILS_WITHIN_SECONDS
        about = told(output)
        assert about.keys() == disaster.said.keys()
        for workload, parts in disaster.said.items():
            for part in parts:
                assert part in about[workload], workload
        assert "What is Ready goes on serving." in output
        for workload in disaster.overlapping:
            assert before[workload] <= ready(stack, workload), workload
        assert {name: generation(stack, name) for name in disaster.untouched} == generations
        assert checkpoints() == saved, "what does not run is not saved"

        stack.configure(lab_config(7))
        begin = time.monotonic()
        stack.up()
        eventually("every pod to be Ready", HEALS_WITHIN_SECONDS, lambda: settled(stack))
        print(f"{name}: failed after {failed:.0f} s, healed after {time.monotonic() - begin:.0f} s")
        for workload in disaster.overlapping:
            assert ready(stack, workload) == before[workload], workload
        configmaps_are_there(stack)
        stack.second_up_changes_nothing()


LASTING = (
    ("network", "pods", "10.64.0.0/16", "10.2.0.0/16"),
    ("network", "services", "10.65.0.0/16", "10.3.0.0/16"),
    ("network", "domain", "other.local", "cluster.local"),
    ("api", "host", "172.30.7.99", ADDRESS),
)
"""What lasts as long as the cluster, another value for it, and its own."""


def test_what_the_cluster_was_made_with_stays(stack: Stack) -> None:
    """Another value is refused by a preview, and by an update that had none before it changes a pod."""
    config = lab_config(7)
    with watched(stack, "lasting"):
        for section, key, value, living in LASTING:
            stack.configure(config | {section: config.get(section, {}) | {key: value}})
            said = stack.pulumi("preview", fails=True)
            assert f'kubepivot:{section}.{key} = "{value}": the cluster lives with {living} ' in said
        before = {workload: ready(stack, workload) for workload in PODS}
        stack.configure(config | {"network": config["network"] | {"pods": "10.64.0.0/16"}})
        assert "the cluster lives with 10.2.0.0/16" in stack.up(fails=True)
        stack.configure(config)
        stack.up()
        stack.second_up_changes_nothing()
        assert {workload: ready(stack, workload) for workload in PODS} == before


def image(stack: Stack) -> str:
    """What the DaemonSet of kube-apiserver runs."""
    spec = stack.get("daemonset/kube-apiserver", SYSTEM)["spec"]["template"]["spec"]
    return str(spec["containers"][0]["image"])


@pytest.mark.life
def test_an_image_that_is_set_by_hand_rolls_and_a_refresh_shows_it(stack: Stack) -> None:
    (pod,) = pods(stack, SYSTEM, "--selector=app.kubernetes.io/name=kube-apiserver")
    statuses = pod["status"]["containerStatuses"]
    (by_digest,) = [each["imageID"] for each in statuses if each["name"] == "kube-apiserver"]
    by_tag = image(stack)
    assert "@sha256:" in by_digest
    with watched(stack, "by-hand"):
        stack.kubectl(
            *("set", "image", "daemonset/kube-apiserver", f"kube-apiserver={by_digest}", SYSTEM),
        )
        roll = ("rollout", "status", "daemonset/kube-apiserver", SYSTEM, "--timeout=100s")
        stack.kubectl(*roll, "--request-timeout=100s")
    assert pod["metadata"]["uid"] not in ready(stack, "kube-apiserver")
    stack.pulumi("preview", "--expect-no-changes")
    assert f'"{by_digest}" => "{by_tag}"' in stack.pulumi("preview", "--refresh", "--diff")


@pytest.mark.life
def test_a_worker_is_added_and_a_flag_is_changed(stack: Stack) -> None:
    """Both in one run: the new node is waited for, and kube-apiserver rolls, back to its own image."""
    before = ready(stack, "kube-apiserver")
    change = {"flags": {"kube-apiserver": {"event-ttl": "2h"}}}
    with watched(stack, "more"):
        stack.configure(lab_config(7, workers=2) | change)
        begin = time.monotonic()
        stack.up("--refresh")
        print(f"with another worker pulumi up took {time.monotonic() - begin:.0f} s")
        assert nodes(stack) == {"controller-1": "True", "worker-1": "True", "worker-2": "True"}
        for name in ("flannel", "kube-proxy"):
            assert len(ready(stack, name)) == 3
        stack.second_up_changes_nothing()
    (apiserver,) = pods(stack, SYSTEM, "--selector=app.kubernetes.io/name=kube-apiserver")
    assert apiserver["metadata"]["uid"] not in before
    (container,) = apiserver["spec"]["containers"]
    assert "--event-ttl=2h" in container["command"] + container.get("args", [])
    assert container["image"].startswith("registry.k8s.io/kube-apiserver:v")


@pytest.mark.life
def test_the_worker_is_removed(stack: Stack) -> None:
    with watched(stack, "fewer"):
        stack.configure(lab_config(7))
        stack.up()
        eventually("CoreDNS", HEALS_WITHIN_SECONDS, lambda: len(ready(stack, "coredns")) == 2)
        assert nodes(stack) == {"controller-1": "True", "worker-1": "True"}
        label = "label=kubepivot.cluster=changes"
        left = docker("container", "ls", "--all", "--format={{.Names}}", "--filter", label).split()
        assert sorted(left) == [CONTROLLER, "changes-worker-1"]
        stack.second_up_changes_nothing()


# -- the network below the pods ------------------------------------------------------------------------------

AT_ONCE = [
    ("the packet filter is flushed", "the link is down and up"),
    ("the routes are flushed", "the link is deleted"),
]
"""What befalls the worker and, at the same time, the controller."""
# A minute, and what a busy machine takes.
MENDED_WITHIN_SECONDS = 90


@pytest.fixture(scope="module")
def peers(stack: Stack) -> None:
    stack.kubectl("apply", "--filename=-", stdin=PEERS)
    stack.kubectl("wait", "--for=condition=Ready", "pod/web", "pod/client", "--timeout=60s")
    eventually("pods that reach each other", 30, lambda: works(stack))


def restarts(stack: Stack, name: str) -> dict[str, int]:
    """How often its container has been restarted, by node. Pods outlive a removed node by a minute."""
    there = nodes(stack)
    return {
        pod["spec"]["nodeName"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in pods(stack, SYSTEM, f"--selector=app.kubernetes.io/name={name}")
        if pod["spec"]["nodeName"] in there
    }


@pytest.mark.parametrize(("of_worker", "of_controller"), AT_ONCE)
def test_what_is_flushed_on_a_host_comes_back(
    stack: Stack, peers: None, of_worker: str, of_controller: str
) -> None:
    before, begin = restarts(stack, "flannel"), time.monotonic()
    for host, what in ((WORKER, of_worker), (CONTROLLER, of_controller)):
        docker("exec", host, "sh", "-ec", BREAKS[what])
    assert not works(stack)
    eventually("pods that reach each other again", MENDED_WITHIN_SECONDS, lambda: works(stack))
    print(f"{of_worker} and {of_controller}: mended after {time.monotonic() - begin:.0f} s")
    assert restarts(stack, "flannel") == {node: count + 1 for node, count in before.items()}
    eventually("every pod to be Ready", HEALS_WITHIN_SECONDS, lambda: settled(stack))


def test_nothing_is_restarted_that_is_whole(stack: Stack, peers: None) -> None:
    """The worker's packet filter was flushed once, the controller's never."""
    assert restarts(stack, "kube-proxy") == {"controller-1": 0, "worker-1": 1}


def test_a_node_that_was_deleted_has_its_network_again(stack: Stack, peers: None) -> None:
    stack.kubectl("delete", "node", "worker-1")
    begin = time.monotonic()
    docker("exec", WORKER, "systemctl", "restart", "kubelet")
    eventually("the node", 60, lambda: nodes(stack).get("worker-1") == "True")
    eventually("pods that reach each other again", MENDED_WITHIN_SECONDS, lambda: works(stack))
    print(f"after its node was deleted: mended after {time.monotonic() - begin:.0f} s")
    eventually("every pod to be Ready", HEALS_WITHIN_SECONDS, lambda: settled(stack))
    stack.second_up_changes_nothing()
