"""Projects: names for objects that belong together. What names none is in the default project."""

from __future__ import annotations

import uuid
from typing import Literal

from pydantic import Field

from tests.e2e.digitalocean.account import Account, Project, now
from tests.e2e.digitalocean.calls import NOTHING, Answer, Body, Call, Json, Refused, Route, invalid, missing

OWNER_ID = 258_992
PATHS = {
    "droplet": "droplets",
    "loadbalancer": "load_balancers",
    "domain": "domains",
    "reservedip": "reserved_ips",
    "floatingip": "reserved_ips",
}
PURPOSES = (
    "Just trying out DigitalOcean",
    "Class project / Educational purposes",
    "Website or blog",
    "Web Application",
    "Service or API",
    "Mobile Application",
    "Machine learning / AI / Data processing",
    "IoT",
    "Operational / Developer tooling",
)

Environment = Literal["", "Development", "Staging", "Production", "development", "staging", "production"]


class _Create(Body):
    name: str = Field(min_length=1, max_length=175)
    purpose: str = Field(min_length=1, max_length=255)
    description: str = Field(default="", max_length=255)
    environment: Environment = ""


class _Put(_Create):
    is_default: bool = False


class _Patch(Body):
    name: str | None = Field(default=None, min_length=1, max_length=175)
    purpose: str | None = Field(default=None, min_length=1, max_length=255)
    description: str | None = Field(default=None, max_length=255)
    environment: Environment | None = None
    is_default: bool | None = None


class _Resources(Body):
    resources: list[str]


def make_default(account: Account) -> None:
    """Makes the project that every account has."""
    project = _new("first-project", "What names no other project", PURPOSES[0], "Development")
    account.projects[project.id] = project
    account.default_project = project.id


def assign_default(account: Account, urn: str) -> None:
    assign(account, urn, account.default_project)


def assign(account: Account, urn: str, project: str) -> None:
    account.assigned[urn] = (project, now())


def known(account: Account, project: str) -> str:
    """The project, or the default one for "". Refused if there is none."""
    if project and project not in account.projects:
        raise invalid("project_id", f"there is no project {project}")
    return project or account.default_project


def _new(name: str, description: str, purpose: str, environment: str) -> Project:
    return Project(
        id=str(uuid.uuid4()),
        name=name,
        description=description,
        purpose=_purpose(purpose),
        environment=environment.capitalize(),
        created_at=now(),
        updated_at=now(),
    )


def _purpose(text: str) -> str:
    return text if text in PURPOSES or text.startswith("Other: ") else f"Other: {text}"


def _check_name(account: Account, name: str, own: str | None) -> None:
    if any(project.name == name and project.id != own for project in account.projects.values()):
        raise Refused(409, "name is already in use")


def _create(account: Account, call: Call) -> Answer:
    body = call.read(_Create)
    _check_name(account, body.name, None)
    project = _new(body.name, body.description, body.purpose, body.environment)
    account.projects[project.id] = project
    return Answer(status=201, body={"project": _show(account, project)})


def _list(account: Account, call: Call) -> Answer:
    return call.listed("projects", [*account.projects.values()], lambda project: _show(account, project))


def _get(account: Account, call: Call) -> Answer:
    return Answer(body={"project": _show(account, _find(account, call))})


def _put(account: Account, call: Call) -> Answer:
    project, body = _find(account, call), call.read(_Put)
    return _update(account, project, {**body.model_dump(), "is_default": body.is_default or None})


def _patch(account: Account, call: Call) -> Answer:
    project, body = _find(account, call), call.read(_Patch)
    return _update(account, project, body.model_dump(exclude_none=True))


def _update(account: Account, project: Project, fields: Json) -> Answer:
    default = fields.pop("is_default", None)
    _check_name(account, fields.get("name", project.name), project.id)
    if default is False and project.id == account.default_project:
        raise invalid("is_default", "cannot be unset; make another project the default")
    if default:
        account.default_project = project.id
    for name, value in fields.items():
        setattr(project, name, value)
    project.purpose = _purpose(project.purpose)
    project.environment = project.environment.capitalize()
    project.updated_at = now()
    return Answer(body={"project": _show(account, project)})


def _delete(account: Account, call: Call) -> Answer:
    project = _find(account, call)
    if project.id == account.default_project:
        raise Refused(403, "cannot delete the default project")
    if any(each == project.id for each, _ in account.assigned.values()):
        raise Refused(412, "cannot delete a project with resources. move or remove the resources first")
    del account.projects[project.id]
    return NOTHING


def _list_resources(account: Account, call: Call) -> Answer:
    project = _find(account, call)
    urns = [urn for urn, (each, _) in account.assigned.items() if each == project.id]
    return call.listed("resources", urns, lambda urn: _show_resource(account, call, urn))


def _assign(account: Account, call: Call) -> Answer:
    project = _find(account, call)
    urns = [urn.replace("do:floatingip:", "do:reservedip:") for urn in call.read(_Resources).resources]
    for urn in urns:
        if urn not in account.assigned:
            raise invalid("resources", f"there is no {urn} that could be in a project")
    for urn in urns:
        assign(account, urn, project.id)
    return Answer(body={"resources": [_show_resource(account, call, urn) for urn in urns]})


def _find(account: Account, call: Call) -> Project:
    which = call.arguments["project_id"]
    if project := account.projects.get(account.default_project if which == "default" else which):
        return project
    raise missing()


def _show_resource(account: Account, call: Call, urn: str) -> Json:
    _, kind, name = urn.split(":", 2)
    return {
        "urn": urn,
        "assigned_at": account.assigned[urn][1],
        "links": {"self": f"{call.origin}/v2/{PATHS[kind]}/{name}"},
        "status": "ok",
    }


def _show(account: Account, project: Project) -> Json:
    return {
        "id": project.id,
        "owner_uuid": account.uuid,
        "owner_id": OWNER_ID,
        "name": project.name,
        "description": project.description,
        "purpose": project.purpose,
        "environment": project.environment,
        "is_default": project.id == account.default_project,
        "created_at": project.created_at,
        "updated_at": project.updated_at,
    }


ROUTES = (
    Route("POST", "/v2/projects", _create, "project:create"),
    Route("GET", "/v2/projects", _list, "project:read"),
    Route("GET", "/v2/projects/{project_id}", _get, "project:read"),
    Route("PUT", "/v2/projects/{project_id}", _put, "project:update"),
    Route("PATCH", "/v2/projects/{project_id}", _patch, "project:update"),
    Route("DELETE", "/v2/projects/{project_id}", _delete, "project:delete"),
    Route("GET", "/v2/projects/{project_id}/resources", _list_resources, "project:read"),
    Route("POST", "/v2/projects/{project_id}/resources", _assign, "project:assign_resource"),
)
