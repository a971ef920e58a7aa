"""What a network between pods brings to hosts and cluster, with one that is made up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.assets.claims import claims_script
from components.assets.controlplane import bootstrap_pod
from components.assets.manifests import WORKLOAD_KINDS, Object, manifests
from components.assets.network_check import network_digest, network_files
from components.assets.networks import NETWORKS, Network
from components.assets.preflight import preflight_files
from components.assets.registration import KEEP_NODE, registration_files
from components.config import ClusterConfig
from components.tables.components import Image, Workload
from components.tables.ports import Port
from tests.cases import load
from tests.golden.objects import flags_of

MESH = Image(key="mesh", reference="example.com/mesh:v${kubernetes}", example="example.com/mesh:v2")


@pytest.fixture
def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network of another folder, in the place of the one that there is."""
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "mesh-config.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mesh, namespace: kube-system}\n"
        'data: {range: "${pods}"}\n'
    )
    (tmp_path / "keep-node.sh").write_text("pods_range() { :; }\nrenew_range() { mesh-renew; }\n")
    made = Network(
        directory=tmp_path,
        workload=Workload(name="mesh", images=(MESH,)),
        busybox=MESH,
        flags={"kube-controller-manager": {"allocate-node-cidrs": "false"}},
        ports=(Port(first=4789, listener="mesh", clients="all hosts", purpose="pods"),),
        directories=("/run/mesh", "/var/lib/mesh"),
        links=("mesh0",),
        tables=("inet mesh",),
        chains=("MESH-",),
    )
    monkeypatch.setitem(NETWORKS, "mesh", made)
    monkeypatch.setattr(ClusterConfig, "pod_network", made)
    monkeypatch.setattr(
        ClusterConfig, "workload_images", load("lab").cfg.workload_images | {"mesh": "example.com/mesh:v1"}
    )
    return made


@pytest.mark.usefixtures("mesh")
def test_its_objects_take_the_place_of_the_others() -> None:
    found = manifests(load("lab").cfg, load("lab").machines, lambda name: name)
    assert not [path for path in found if "flannel" in path]
    assert found["mesh-config.yaml"]["data"] == {"range": load("lab").cfg.network.pods}
    assert found["mesh-config.yaml"]["metadata"]["name"].startswith("mesh-")


@pytest.mark.usefixtures("mesh")
def test_its_flags_are_the_control_planes() -> None:
    flags = flags_of(bootstrap_pod("kube-controller-manager", load("lab").cfg, load("lab").machines)["spec"])
    assert flags["allocate-node-cidrs"] == "false"
    assert "cluster-cidr" not in flags


@pytest.mark.usefixtures("mesh")
def test_its_ports_are_looked_at_before_anything_is_written() -> None:
    case = load("lab")
    env = preflight_files(case.cfg, case.machines["worker-1"])["preflight.env"].text
    assert "PORTS='10250 10256 4789'" in env.splitlines()


def test_the_check_is_of_its_image_and_made_again_when_it_changes(mesh: Network) -> None:
    cfg = load("lab").cfg
    assert "image: example.com/mesh:v1" in network_files(cfg)["network-check.yaml"].text
    objects: list[Object] = [{"metadata": {"name": "mesh"}, "data": text} for text in "ab"]
    other: Object = {"metadata": {"name": "coredns"}}
    digests = [
        network_digest(cfg, load("lab").machines, found)
        for found in (objects[:1], objects[1:], [objects[0], other])
    ]
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.usefixtures("mesh")
def test_a_node_that_was_deleted_gets_the_range_by_its_functions() -> None:
    case = load("lab")
    text = registration_files(case.cfg, case.machines["worker-1"], case.machines, case.texts)[KEEP_NODE].text
    assert "renew_range() { mesh-renew; }" in text
    assert "flannel" not in text and "@network@" not in text


def _claims(*names: str) -> list[str]:
    """What the script takes for the cluster's on a host."""
    shown = "; ".join(f"printf '%s\\n' \"${name}\"" for name in names)
    script = f"ROLE=worker\n{claims_script()}\n{shown}"
    done = subprocess.run(["sh", "-eu"], input=script, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.split("\n")


@pytest.mark.usefixtures("mesh")
def test_preflight_and_reset_know_what_every_network_leaves() -> None:
    """A host may have had another one before."""
    trees = " ".join(_claims("trees"))
    assert {"/run/flannel", "/run/mesh", "/var/lib/mesh", "/var/lib/cni"} <= set(trees.split())
    links, tables, chains, _ = _claims("links", "tables", "chains")
    networks = NETWORKS.values()
    assert links.split() == ["cni0", *(link for each in networks for link in each.links)]
    assert tables.split("|inet cni_plugins_masquerade|") == [
        "(ip|ip6) (kube-proxy|cni_hostport)",
        "|".join(table for each in networks for table in each.tables),
    ]
    assert chains == f"({'|'.join(['KUBE-', 'CNI-', *(name for each in networks for name in each.chains)])})"
    assert "mesh0" in links and "inet mesh" in tables and "MESH-" in chains


def test_names_of_its_objects_begin_with_its_name() -> None:
    """The network check, and the way back of a change, go by it."""
    cfg = load("lab").cfg
    network, found = cfg.pod_network, manifests(cfg, load("lab").machines, lambda name: name)
    assert all(path.startswith(network.workload.name) for path in network.manifests())
    assert network.workload.name in {
        each["metadata"]["name"] for each in found.values() if each["kind"] in WORKLOAD_KINDS
    }


@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda network: network.workload.name)
def test_a_folder_is_whole(network: Network) -> None:
    assert network.busybox in network.workload.images
    text = f"{network.keep_node()}\ncommand -v pods_range; command -v renew_range"
    done = subprocess.run(["sh", "-eu"], input=text, capture_output=True, text=True, timeout=10)
    assert done.stdout.split() == ["pods_range", "renew_range"]
    assert network.manifests()
