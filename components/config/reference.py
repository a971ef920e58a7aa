"""Generates the configuration reference and the editors' JSON Schema, and the list of ports.

`python -m components.config.reference` writes them anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.assets.networks import NETWORKS
from components.config import ClusterConfig
from components.config.base import DERIVED
from components.config.errors import PROJECT
from components.config.releases import LATEST
from components.tables.ports import PORTS, Port

__all__ = ["EXAMPLE", "files"]

DOCS = Path(__file__).parents[2] / "docs"

EXAMPLE = f"""\
# yaml-language-server: $schema=docs/kubepivot.schema.json
config:
  kubepivot:platform: baremetal
  kubepivot:name: prod
  kubepivot:kubernetesVersion: {LATEST}
  kubepivot:hosts:
    controller-1:
      role: controller
      address: 192.168.1.11
      key: ~/.ssh/id_ed25519
      hostKey: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIArwvbnKlP9VYIeKDcJ3CdSTHv2dbmbL5SL3bd0uNiDd
    worker-1:
      role: worker
      address: 192.168.1.21
      user: admin
      key: ~/.ssh/id_ed25519
      hostKey: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMZwGaLvLlTF2dGZEj4SvvRkS1SLEITSUjm8yFg3eKcX
      labels:
        topology.kubernetes.io/zone: rack-1
  kubepivot:network:
    hosts: 192.168.1.0/24
  kubepivot:mirror:
    artifacts: http://mirror.example.com:8080
    images: http://mirror.example.com:5000
"""

_HEAD = f"""\
<!-- Made by `python -m components.config.reference` from components/config/: change it there. -->
# Configuration

The config of a stack stands in `Pulumi.<stack>.yaml`, every key under the project's name, `{PROJECT}:`. It is
checked in whole before the first resource: an error names the key, its value and what to do, all of them come
at once, and an unknown key is an error too. What may seem a mistake but is allowed, such as an even number of
controllers, is a warning. An editor that knows YAML schemas completes and checks the file by the comment in
the first line of the example.

A private key can also stand in the stack's file, encrypted by Pulumi:
`pulumi config set --secret --path {PROJECT}:hosts.worker-1.key < ~/.ssh/id_ed25519`

## A complete example

Two machines that exist already, and a mirror because they do not reach the official download sites:
```yaml
{EXAMPLE}```
"""

_SECURE = {
    "type": "object",
    "properties": {"secure": {"type": "string"}},
    "required": ["secure"],
    "additionalProperties": False,
}


def files() -> dict[Path, str]:
    """The generated files' text by path."""
    schema = _schema()
    return {
        DOCS / "configuration.md": _markdown(schema),
        DOCS / "ports.md": _ports(),
        DOCS / "kubepivot.schema.json": json.dumps(_stack_schema(schema), indent=2, ensure_ascii=False)
        + "\n",
    }


def _schema() -> dict[str, Any]:
    """The schema of what stands below the project's namespace. A null is never needed, so none is offered."""
    schema = ClusterConfig.model_json_schema()
    sections = (schema, *schema["$defs"].values())
    for section in sections:
        del section["title"]
        # A docstring has line ends, a row of a table has none.
        section["description"] = " ".join(section["description"].split())
    for section in sections:
        section["properties"] = {key: _property(field) for key, field in section["properties"].items()}
        for field in section["properties"].values():
            if "$ref" in field:
                field["description"] = schema["$defs"][_reference(field)]["description"]
    return schema


def _property(field: dict[str, Any]) -> dict[str, Any]:
    field = {key: value for key, value in field.items() if key != "title"}
    for choice in field.pop("anyOf", ()):
        if choice.get("type") != "null":
            field = {**choice, **field}
    if "$ref" in field or field.get("default", ...) is None or DERIVED in field:
        field.pop("default", None)
    if field.get("writeOnly"):
        del field["type"], field["format"], field["writeOnly"]
        field["anyOf"] = [{"type": "string"}, _SECURE]
    return field


def _stack_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a whole Pulumi.<stack>.yaml; other namespaces and Pulumi's own keys are left alone."""
    text = json.dumps(
        {
            # The newest draft that the YAML language server knows.
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "kubepivot's Pulumi.<stack>.yaml",
            "type": "object",
            "required": ["config"],
            "properties": {
                "config": {
                    "type": "object",
                    "required": [f"{PROJECT}:{key}" for key in schema["required"]],
                    "properties": {f"{PROJECT}:{key}": field for key, field in schema["properties"].items()},
                    "patternProperties": {f"^(?!{PROJECT}:)": {}},
                    "additionalProperties": False,
                }
            },
            "$defs": schema["$defs"],
        }
    )
    plain: dict[str, Any] = json.loads(text, object_hook=_without_derived)
    return plain


def _without_derived(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key != DERIVED}


def _markdown(schema: dict[str, Any]) -> str:
    sections = _sections(schema, schema, "")
    return "\n".join([_HEAD, _section("Top-level keys", f"{PROJECT}:", schema), *sections])


def _sections(schema: dict[str, Any], holder: dict[str, Any], path: str) -> Iterator[str]:
    """The sections that the keys of one hold, each followed by its own."""
    for key, field in holder["properties"].items():
        reference = _reference(field)
        if reference:
            entry = ".<name>." if "additionalProperties" in field else "."
            section = schema["$defs"][reference]
            yield _section(f"`{path}{key}`", f"{PROJECT}:{path}{key}{entry}", section)
            yield from _sections(schema, section, f"{path}{key}{entry}")


def _section(title: str, prefix: str, section: dict[str, Any]) -> str:
    rows = [
        f"## {title}",
        "",
        f"{section['description']} Keys begin with `{prefix}`.",
        "",
        "| key | type | default | meaning | example |",
        "|---|---|---|---|---|",
    ]
    for key, field in section["properties"].items():
        default = "required" if key in section.get("required", ()) else _default(field)
        example = f"`{_yaml(field['examples'][0])}`" if "examples" in field else ""
        title = f"{prefix.removeprefix(f'{PROJECT}:')}{key}"
        rows.append(f"| `{key}` | {_type(title, field)} | {default} | {field['description']} | {example} |")
    return "\n".join([*rows, ""])


_PORTS_HEAD = """\
<!-- Made by `python -m components.config.reference` from components/tables/ports.py and the networks in
components/assets/networks/: change it there. -->
# Ports

What a firewall has to let in, and what hosts keep to themselves. To be let out is TCP 443 to the sites that
hosts download from, or what their [mirror](configuration.md#mirror) has. What hosts have to *forward* is in
[operations](operations.md#ports-and-firewalls).
"""


def _ports() -> str:
    rows = sorted(
        (*PORTS, *(port for network in NETWORKS.values() for port in network.ports)),
        key=lambda port: (port.controllers_only, port.first),
    )
    reached = [
        f"| {_hosts(port)} | {_number(port)} | {port.clients} | {port.listener} | {port.purpose} |"
        for port in rows
        if port.clients
    ]
    own = [
        f"| {_hosts(port)} | {_number(port)} | {port.listener} | {port.purpose} |"
        for port in rows
        if not port.clients
    ]
    return "\n".join(
        [
            _PORTS_HEAD,
            "## From one machine to another",
            "",
            "| to | port | from | who listens | for |",
            "|---|---|---|---|---|",
            *reached,
            "",
            "## On the loopback",
            "",
            "| of | port | who listens | for |",
            "|---|---|---|---|",
            *own,
            "",
        ]
    )


def _hosts(port: Port) -> str:
    return "controllers" if port.controllers_only else "all hosts"


def _number(port: Port) -> str:
    number = f"{port.first}-{port.last}" if port.last else str(port.first)
    return f"{port.protocol} {number}" + (f", or `{port.key}`" if port.key else "")


def _default(field: dict[str, Any]) -> str:
    if DERIVED in field:
        return str(field[DERIVED])
    if "$ref" in field:
        return ""
    return f"`{_yaml(field['default'])}`" if field.get("default") not in (None, "", {}, []) else "none"


def _type(title: str, field: dict[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{choice}`" for choice in field["enum"])
    if _reference(field):
        several = "additionalProperties" in field
        anchor = title.replace(".", "").lower()
        return f"map of names to [host keys](#{anchor})" if several else f"map, see [{title}](#{anchor})"
    match field:
        case {"format": "ipv4"}:
            return "IPv4 address"
        case {"format": "uri"}:
            return "URL"
        case {"type": "integer", "minimum": low, "maximum": high}:
            return f"number, {low} to {high}"
        case {"type": "boolean"}:
            return "`true` or `false`"
        case {"type": "object"}:
            return "map of text"
        case {"type": "array"}:
            return "list of text"
        case {"anyOf": _}:
            return "text or secret"
        case _:
            return "text"


def _reference(field: dict[str, Any]) -> str:
    """The name of the section that a field holds, "" for none."""
    holder = field.get("additionalProperties", field)
    return str(holder.get("$ref", "")).rpartition("/")[2] if isinstance(holder, dict) else ""


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
