"""The metadata service of a droplet: the document `metadata.json` as a whole, and each of its values as text.

Standard library only: it runs on the droplet. Returns when the service listens; it goes on by itself.

    metadata.py ADDRESS
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any

ROOT = "/metadata/v1"
PORT = 80

# Keys of the document that have another name in a path.
NAMES = {
    "droplet_id": "id",
    "user_data": "user-data",
    "public_keys": "public-keys",
    "ip_address": "address",
}


def pages(path: str, value: Any) -> dict[str, str]:
    """A value and all below it as text by path; the path of an index ends with a slash."""
    match value:
        case dict():
            children = {NAMES.get(key, key): child for key, child in value.items()}
        case [dict(), *_]:
            children = {str(number): child for number, child in enumerate(value)}
        case list():
            return {path: "\n".join(value)}
        case _:
            return {path: str(value)}
    below = [pages(f"{path}/{name}", child) for name, child in children.items()]
    index = [next(iter(each)).removeprefix(f"{path}/") for each in below]
    return {f"{path}/": "\n".join(index), **{name: text for each in below for name, text in each.items()}}


class Handler(BaseHTTPRequestHandler):
    """Answers GET, and asks nobody for a token."""

    def __init__(self, document: dict[str, Any], *arguments: Any) -> None:
        self.document = document
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """The document, a value, an index, or what is wrong."""
        path = self.path.partition("?")[0]
        texts = pages(ROOT, self.document)
        if path == f"{ROOT}.json":
            self.answer(HTTPStatus.OK, json.dumps(self.document), "application/json")
        elif path in texts:
            self.answer(HTTPStatus.OK, texts[path])
        elif f"{path}/" in texts:
            self.answer(HTTPStatus.MOVED_PERMANENTLY, "", location=f"{path}/")
        else:
            self.answer(HTTPStatus.NOT_FOUND, "not found")

    def answer(self, status: HTTPStatus, text: str, kind: str = "text/plain", location: str = "") -> None:
        """Sends it."""
        body = text.encode()
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing: its output is the host's console."""


def main() -> None:
    """Listens, then leaves a process that serves."""
    document = json.loads(Path(__file__).with_name("metadata.json").read_text())
    for interfaces in document["interfaces"].values():
        for interface in interfaces:
            link = {"public": "eth0", "private": "eth1"}[interface["type"]]
            interface["mac"] = Path("/sys/class/net", link, "address").read_text().strip()
    # Not http.server's own: that one looks its address up in the DNS.
    server = ThreadingTCPServer((sys.argv[1], PORT), partial(Handler, document))
    if os.fork() == 0:
        os.setsid()
        server.serve_forever()


if __name__ == "__main__":
    main()
