"""What keys and certificates become in files: tokens, kubeconfigs, and values of manifests."""

from __future__ import annotations

import base64

import pytest
import yaml

from components.assets.controlplane import COMPONENTS
from components.assets.credentials import (
    client_kubeconfig,
    control_plane_files,
    kubeconfig,
    secret_keys,
)
from components.assets.manifests import manifests
from components.pki import apiserver_sans
from components.programs.reuseport import INCUMBENT
from tests.cases import Case, load, manifest_values


def test_a_kubeconfig_has_one_context_and_the_endpoint(case: Case) -> None:
    config = yaml.safe_load(
        kubeconfig(case.cfg, case.machines.api_host, ca="authority", user="somebody", token="a.b")
    )
    assert config["current-context"] == config["contexts"][0]["name"] == case.cfg.name
    assert config["contexts"] == [
        {"name": case.cfg.name, "context": {"cluster": case.cfg.name, "user": "somebody"}}
    ]
    assert config["clusters"] == [
        {
            "name": case.cfg.name,
            "cluster": {
                "server": case.api_endpoint,
                "certificate-authority-data": base64.b64encode(b"authority").decode(),
            },
        }
    ]
    assert config["users"] == [{"name": "somebody", "user": {"token": "a.b"}}]


def test_a_client_kubeconfig_has_the_leaf_and_its_key(case: Case) -> None:
    text = client_kubeconfig(case.cfg, INCUMBENT, case.texts, "admin")
    config = yaml.safe_load(text)
    cluster = config["clusters"][0]["cluster"]
    assert cluster["server"] == f"https://{INCUMBENT}:{case.cfg.api.port}"
    assert cluster["tls-server-name"] in apiserver_sans(case.cfg, case.machines)
    user = config["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]).decode() == case.texts["admin.crt"]
    assert base64.b64decode(user["client-key-data"]).decode() == case.texts["admin.key"]


@pytest.mark.parametrize("component", ["kube-controller-manager", "kube-scheduler"])
def test_the_control_plane_speaks_to_the_apiserver_beside_it(case: Case, component: str) -> None:
    """To the one that serves, and not to the endpoint, which may be a load balancer that waits for it."""
    (name,) = [each for each in COMPONENTS if each == component]
    text = control_plane_files(name, case.cfg, case.texts, "self-hosted")["kubeconfig"]
    server = yaml.safe_load(text)["clusters"][0]["cluster"]["server"]
    assert server == f"https://{INCUMBENT}:{case.cfg.api.port}"


def test_manifests_ask_for_every_value_and_no_other(case: Case) -> None:
    values = manifest_values(case.cfg, case.texts)
    asked: set[str] = set()

    def value(name: str) -> str:
        asked.add(name)
        return values[name]

    manifests(case.cfg, case.machines, value)
    assert asked == values.keys()


def test_which_objects_there_are_does_not_depend_on_values(case: Case) -> None:
    values = manifest_values(case.cfg, case.texts)
    known, unknown = (
        manifests(case.cfg, case.machines, values.__getitem__),
        manifests(case.cfg, case.machines, lambda name: f"<{name}>"),
    )
    assert known.keys() == unknown.keys()
    assert [found["kind"] for found in known.values()] == [found["kind"] for found in unknown.values()]


def test_values_of_a_secret_are_base64_of_its_files(case: Case) -> None:
    values = manifest_values(case.cfg, case.texts)
    for component in COMPONENTS:
        files = control_plane_files(component, case.cfg, case.texts, "self-hosted")
        held = {key: values[source] for key, source in secret_keys(component).items()}
        assert {key: base64.b64decode(text).decode() for key, text in held.items()} == files


def test_a_missing_text_is_an_error() -> None:
    case = load("lab")
    texts = {name: text for name, text in case.texts.items() if name != "apiserver.crt"}
    with pytest.raises(KeyError, match=r"apiserver\.crt"):
        manifest_values(case.cfg, texts)
