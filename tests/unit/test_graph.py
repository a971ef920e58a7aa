"""Which resources a config gives, what each waits for and what it shows, without an engine."""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

import pulumi
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from components.ssh import DONE
from tests.cases import CASES, Case, load, read
from tests.sweeps import swept
from tests.unit.recorder import (
    LOCAL,
    REMOTE,
    Registered,
    Run,
    Secret,
    Unknown,
    changed,
    exposed,
    has,
    pki_texts,
    program,
    ran,
    revealed,
)

STEPS = (
    *("preflight", "download", "snapshot", "node", "etcd", "bootstrap", "handover", "upgrade", "removal"),
)
COMMANDS = {"create", "update", "delete"}
# Of a swap there is nothing to do when its host is made, of a removal before the worker leaves.
WHEN = {"etcd": "update", "upgrade": "update", "removal": "delete"}
RECORDS = ("lasting", "kubernetes-version")


# -- names ---------------------------------------------------------------------------------------------------


def test_no_two_resources_are_the_same(run: Run) -> None:
    assert [urn for urn, count in Counter(each.urn for each in run.resources).items() if count > 1] == []


def test_names_begin_with_the_clusters(run: Run, case: Case) -> None:
    """But for the records, which another name meets as well."""
    cluster = case.cfg.name
    others = {each.name for each in run.resources if not each.name.startswith(f"{cluster}-")}
    assert others == {cluster, *RECORDS}


def test_what_is_a_hosts_has_its_name(run: Run, case: Case) -> None:
    for host in case.cfg.hosts:
        for step in ("preflight", "download", "node"):
            (name,) = {each.name for each in run.of(REMOTE) if each.name.endswith(f"{host}-{step}")}
            assert name == f"{case.cfg.name}-{host}-{step}"


@pytest.mark.parametrize("case", swept(CASES), indirect=True)
def test_a_second_run_asks_for_the_same_whatever_the_order_of_hosts(case: Case) -> None:
    raw = read(case.name)
    raw["hosts"] = dict(reversed(raw["hosts"].items()))
    assert program(raw).by_urn == ran(case.name).by_urn


def test_a_preview_without_a_state_plans_what_up_makes(case: Case) -> None:
    assert {each.urn for each in ran(case.name, preview=True).resources} == {
        each.urn for each in ran(case.name).resources
    }


# The hand-over looks at the network of all nodes; what a kubelet may do is said by name.
# -- steps on hosts ------------------------------------------------------------------------------------------


def test_every_remote_command_is_a_step(up: Run, case: Case) -> None:
    for step in up.of(REMOTE):
        assert step.name.rpartition("-")[2] in STEPS
        assert isinstance(step.inputs["stdin"], Secret), step.name
        assert isinstance(step.inputs["connection"], Secret), step.name
        assert step.inputs["logging"] == "none", step.name
        assert step.inputs["addPreviousOutputInEnv"] is False, step.name
        assert step.delete_before_replace or step.name.endswith("-removal"), step.name
        assert "environment" not in step.inputs, step.name
        assert COMMANDS & step.inputs.keys() == {WHEN.get(step.name.rpartition("-")[2], "create")}, step.name
        connection = revealed(step.inputs["connection"])
        assert connection["hostKey"].startswith("ssh-ed25519 "), step.name
        assert connection["dialErrorLimit"] > 0 < connection["perDialTimeout"], step.name


def test_a_step_runs_anew_on_another_machine_only(up: Run, case: Case) -> None:
    for step in up.of(REMOTE):
        if step.name.endswith("-removal"):
            continue  # what it does is the same on any controller
        connection = revealed(step.inputs["connection"])
        (host,) = [name for name, host in case.cfg.hosts.items() if host.address == connection["host"]]
        instance = case.cfg.hosts[host].host_key or f"id of {case.cfg.name}-{host}-container"
        assert step.inputs["triggers"] == [instance], step.name


def test_a_preview_shows_names_of_files_and_no_secret(up: Run, case: Case) -> None:
    for step in up.of(REMOTE):
        (text,) = (step.inputs[each] for each in COMMANDS & step.inputs.keys())
        # What an upgrade brings is the host's to say, a token the engine's.
        for path in step.files.keys() - {"change", "token"}:
            assert f"# {path} " in text, step.name
        assert "KEY" not in text and "CERTIFICATE" not in text, step.name


def test_nothing_secret_is_in_the_state_in_plain_text(run: Run, case: Case) -> None:
    shown = "\n".join(f"{each.urn} {exposed(each.inputs)}" for each in run.resources) + exposed(run.outputs)
    secrets = ["PRIVATE KEY", base64.b64encode(b"-----BEGIN PRIVATE KEY").decode()[:-2]]
    if s3 := case.cfg.backup.s3:
        secrets += [key.get_secret_value() for key in (s3.access_key, s3.secret_key, s3.encryption_key)]
    for secret in secrets:
        assert secret not in shown


def test_a_host_is_logged_in_to_three_times_and_the_first_controller_six(up: Run, case: Case) -> None:
    """Every step rewrites the whole state, and its connection stays open until the plugin ends."""
    logins = Counter(step.plain["connection"]["host"] for step in up.of(REMOTE) if step.inputs.get("create"))
    first = case.cfg.hosts[case.cfg.bootstrap_controller].address
    assert logins == {host.address: 6 if host.address == first else 3 for host in case.cfg.hosts.values()}


def test_nothing_is_written_before_every_host_has_passed(run: Run) -> None:
    preflights = {step.urn for step in run.of(REMOTE) if step.name.endswith("-preflight")}
    others = [step for step in run.of(REMOTE) if step.urn not in preflights]
    assert others
    for step in others:
        assert preflights <= run.before(step), step.name


def test_nothing_is_installed_before_every_host_has_its_downloads(run: Run) -> None:
    downloads = {step.urn for step in run.of(REMOTE) if step.name.endswith("-download")}
    nodes = [step for step in run.of(REMOTE) if step.name.endswith("-node")]
    assert len(downloads) == len(nodes) > 0
    for step in nodes:
        assert downloads <= run.before(step), step.name


@pytest.mark.sweep
def test_the_graph_grows_with_the_hosts_and_not_with_their_square() -> None:
    def of(workers: int) -> tuple[int, int]:
        """Dependencies, and bytes of what steps bring, with that many workers."""
        raw = read("baremetal")
        gpu = raw["hosts"].pop("gpu")
        for number in range(workers):
            key = (
                Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            )
            own = {"address": f"192.168.7.{100 + number}", "hostKey": key.decode()}
            raw["hosts"][f"worker-{number}"] = gpu | own
        run = program(raw)
        steps = [step for step in run.of(REMOTE) if step.name.rpartition("-")[2] != "handover"]
        return sum(len(each.dependencies) for each in run.resources), sum(
            len(data) for step in steps for data in step.files.values()
        )

    (few, brings_few), (more, brings_more), (most, brings_most) = of(1), of(2), of(3)
    assert most - more == more - few > 0
    assert brings_most - brings_more == brings_more - brings_few > 0


def _barriers(run: Run) -> list[Registered]:
    return [
        each
        for each in run.of("pulumi:index:Stash")
        if each.name not in RECORDS and not each.name.endswith(("-intent", "-labels"))
    ]


@pytest.mark.parametrize("case", swept(CASES), indirect=True)
def test_a_barrier_is_the_same_whatever_the_hosts(case: Case) -> None:
    raw = read(case.name)
    raw["hosts"].popitem()
    few, all_of_them = (
        {each.name: each.inputs for each in _barriers(run)}
        for run in (program(raw), ran(case.name, preview=True))
    )
    assert few == all_of_them
    cluster = case.cfg.name
    assert few.keys() == {f"{cluster}-hosts-passed", f"{cluster}-hosts-downloaded"}
    assert not has(Unknown, few)


@pytest.mark.parametrize("case", swept(CASES), indirect=True)
def test_a_cluster_without_barriers_gets_them_and_nothing_else(case: Case) -> None:
    before = ran(case.name)
    barriers = {each.urn: each.name for each in _barriers(before)}
    preview = program(read(case.name), preview=True, state=before.without(*barriers.values()))
    assert changed(before.without(*barriers.values()), preview) == barriers.keys()


def test_hosts_that_are_clones_are_refused() -> None:
    same = {REMOTE: lambda *_: {"stdout": f"Welcome to node!\nmachine-id=1234\nhostname=node\n{DONE}"}}
    with pytest.raises(pulumi.RunError, match=r"have the same machine-id, 1234: .*systemd-machine-id-setup"):
        program(read("lab"), answers=same)


def test_a_root_who_only_says_who_may_log_in_is_told_and_another_user_is_looked_at_anew() -> None:
    """With exit status 0, as old cloud images have it. Nothing comes after the preflights then."""
    refused = {REMOTE: lambda *_: {"stdout": 'Please login as the user "debian".'}}
    raw = read("baremetal")
    with pytest.raises(pulumi.RunError, match=r"says: Please login as .*\nset kubepivot:hosts\.\w+\.user"):
        program(raw, answers=refused)
    hosts = {name: {**host, "user": "debian"} for name, host in raw["hosts"].items()}
    before, after = (
        {step.name: step.plain for step in program(each).of(REMOTE) if step.name.endswith("-preflight")}
        for each in (raw, raw | {"hosts": hosts})
    )
    assert before.keys() == after.keys()
    for name, step in before.items():
        assert {key for key in step if step[key] != after[name][key]} >= {"connection"}


# -- what users get ------------------------------------------------------------------------------------------


def test_outputs(up: Run, case: Case) -> None:
    assert isinstance(up.outputs["kubeconfig"], Secret)
    assert up.outputs | {"kubeconfig": "", "ca_certificate": ""} == {
        "api_endpoint": case.api_endpoint,
        "ca_certificate": "",
        "kubeconfig": "",
        "kubernetes_version": case.cfg.kubernetes_version,
        "nodes": {
            name: {"role": host.role, "address": host.address} for name, host in case.cfg.hosts.items()
        },
        "backups": {},
    }
    assert up.outputs["ca_certificate"] == pki_texts(case.name)["ca.crt"]


def test_outputs_of_a_preview_are_unknown_where_they_have_to_be(case: Case) -> None:
    outputs = ran(case.name, preview=True).outputs
    assert {key for key, value in outputs.items() if has(Unknown, value)} == {
        "kubeconfig",
        "ca_certificate",
    }


# -- platforms and modes -------------------------------------------------------------------------------------


def test_the_lab_makes_a_container_for_every_host() -> None:
    run = ran("lab")
    containers = run.of(LOCAL)
    assert {each.name for each in containers} == {"lab-controller-1-container", "lab-worker-1-container"}
    for each in containers:
        assert "docker rm --force --volumes" in each.inputs["delete"]
        assert isinstance(each.inputs["stdin"], Secret)
        assert each.delete_before_replace
    for step in run.of(REMOTE):
        assert {each.urn for each in containers} & run.before(step), step.name


@pytest.mark.parametrize("changed", swept([{"image": "kubepivot/host:other"}, {"network": "other"}]))
def test_the_lab_makes_another_container_where_one_cannot_bechanged(changed: dict[str, str]) -> None:
    def triggers(run: Run) -> Any:
        return run.only("lab-controller-1-container").inputs["triggers"]

    assert triggers(program(read("lab") | {"lab": changed})) != triggers(ran("lab"))


def test_bare_metal_makes_nothing_on_this_machine_and_gives_the_hosts_back() -> None:
    run, case = ran("baremetal"), load("baremetal")
    resets = run.of(LOCAL)
    assert {each.name for each in resets} == {f"metal-{host}-reset" for host in case.cfg.hosts}
    for each in resets:
        assert "docker" not in each.inputs["create"] + each.inputs["delete"]
        assert isinstance(each.inputs["stdin"], Secret)
    # Made first, so that they are deleted last, when nothing else needs the hosts.
    for host in case.cfg.hosts:
        assert {each.urn for each in resets} <= run.before(run.only(f"metal-{host}-download"))


@pytest.mark.parametrize(("name", "preview"), [("lab", True), ("baremetal", False)])
def test_render_touches_no_host(name: str, preview: bool) -> None:
    run = program(read(name) | {"mode": "render", "assetDirectory": "out dir"}, preview=preview)
    assert run.of(REMOTE, "kubernetes:", "pulumi:providers:kubernetes") == []
    (assets,) = run.of(LOCAL)
    assert "'out dir'" in assets.inputs["create"]
    assert "docker" not in assets.inputs["create"]
    assert "delete" not in assets.inputs
    assert run.outputs == {}
