"""Names, and projects with what costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.digitalocean.server import Api
from tests.plugins.digitalocean_api.asking import active, ask, refused

if TYPE_CHECKING:
    from pydo import Client


def test_records(api: Api, client: Client) -> None:
    client.domains.create({"name": "example.com", "ip_address": "192.0.2.1"})
    record = {
        "type": "A",
        "name": "api",
        "data": "192.0.2.2",
        "priority": 0,
        "port": 0,
        "weight": 0,
        "flags": 0,
    }
    made = client.domains.create_record("example.com", record)["domain_record"]
    assert made == {
        "id": made["id"],
        "type": "A",
        "name": "api",
        "data": "192.0.2.2",
        "ttl": 1800,
        **dict.fromkeys(("priority", "port", "weight", "flags", "tag")),
    }
    client.domains.create_record("example.com", {**record, "data": "192.0.2.3", "ttl": 60})
    listed = client.domains.list_records("example.com", name="api.example.com", type="A")["domain_records"]
    assert [(each["data"], each["ttl"]) for each in listed] == [("192.0.2.2", 60), ("192.0.2.3", 60)]
    alias = {"type": "CNAME", "name": "www", "data": "api.example.com."}
    assert client.domains.create_record("example.com", alias)["domain_record"]["data"] == "api.example.com"
    for wrong in (
        {**record, "data": "example.com."},
        {**alias, "name": "other", "data": "api.example.com"},
        {**alias, "name": "api"},
        {"type": "MX", "name": "@", "data": "mail.example.com."},
        {**record, "ttl": 5},
    ):
        assert ask(api, "POST", "/v2/domains/example.com/records", wrong).status_code == 422
    changed = client.domains.update_record("example.com", made["id"], {"type": "A", "data": "192.0.2.9"})
    assert (changed["domain_record"]["name"], changed["domain_record"]["data"]) == ("api", "192.0.2.9")
    assert api.everything() == {
        "domains": ["example.com"],
        "records": ["A api.example.com", "A api.example.com", "A example.com", "CNAME www.example.com"],
    }
    assert "api.example.com. 60 IN A 192.0.2.9" in client.domains.get("example.com")["domain"]["zone_file"]
    client.domains.delete_record("example.com", made["id"])
    assert client.domains.get_record("example.com", made["id"])["id"] == "not_found"
    client.domains.delete("example.com")
    assert api.everything() == {}


def test_projects(api: Api, client: Client) -> None:
    default = client.projects.get_default()["project"]
    project = client.projects.create({"name": "p", "purpose": "mine", "environment": "production"})["project"]
    assert (project["purpose"], project["environment"], project["is_default"]) == (
        "Other: mine",
        "Production",
        False,
    )
    made = active(client)
    urn = f"do:droplet:{made['id']}"
    assert [each["urn"] for each in client.projects.list_resources(default["id"])["resources"]] == [urn]
    (assigned,) = client.projects.assign_resources(project["id"], {"resources": [urn]})["resources"]
    assert assigned["links"] == {"self": f"{api.endpoint}/v2/droplets/{made['id']}"}
    assert client.projects.list_resources(default["id"])["resources"] == []
    assert (
        ask(api, "POST", f"/v2/projects/{project['id']}/resources", {"resources": ["do:vpc:x"]}).status_code
        == 422
    )
    answer = ask(api, "DELETE", f"/v2/projects/{project['id']}")
    assert (answer.status_code, answer.json()["id"]) == (412, "precondition_failed")
    assert answer.json()["message"].startswith("cannot delete a project with resources")
    assert api.everything()["projects"] == ["p"]
    client.projects.assign_resources_default({"resources": [urn]})
    client.projects.delete(project["id"])
    assert client.projects.patch(default["id"], {"description": "d"})["project"]["description"] == "d"
    assert refused(lambda: client.projects.delete(default["id"]))[0] == 403
