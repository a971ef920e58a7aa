"""An imitation of DigitalOcean's API for tests, as its public OpenAPI description says.

    with Api(machinery, token="…", default_vpcs=["fra1"]) as api:
        … api.endpoint …
        assert api.everything() == {}

It is as strict as the real one or stricter: a key that it does not know is refused (422), and so is what it
does not offer.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.e2e.digitalocean import (
    actions,
    balancers,
    catalogue,
    dns,
    droplet_actions,
    droplets,
    firewalls,
    keys,
    limits,
    projects,
    reserved_ips,
    tags,
    vpcs,
)
from tests.e2e.digitalocean.account import Account, Delays
from tests.e2e.digitalocean.calls import ERROR_IDS, Answer, Call, Json, Refused, Route, missing
from tests.e2e.digitalocean.enforcement import Enforcement
from tests.e2e.digitalocean.faults import Faults
from tests.e2e.digitalocean.limits import Limits
from tests.e2e.digitalocean.machinery import Machinery
from tests.e2e.digitalocean.workers import Ended

__all__ = ["Api", "Delays", "Request"]

PUBLIC_NETWORK = "172.30.200.0/24"  # of the lab's network, from which the engine hands out other addresses
GENERATED_VPCS = "10.104.0.0/13"
ROUTES: tuple[Route, ...] = (
    *actions.ROUTES,
    *balancers.ROUTES,
    *catalogue.ROUTES,
    *dns.ROUTES,
    *droplet_actions.ROUTES,
    *droplets.ROUTES,
    *firewalls.ROUTES,
    *keys.ROUTES,
    *limits.ROUTES,
    *projects.ROUTES,
    *reserved_ips.ROUTES,
    *tags.ROUTES,
    *vpcs.ROUTES,
)
PATTERNS = [(re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path)), route) for route in ROUTES]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request that was answered (`path` with its query), or whose answer was lost."""

    method: str
    path: str
    status: int
    time: datetime


class Api:
    """The API on a port of the loopback, as long as its `with` lasts.

    `token` may do everything, or what `scopes` say; `tokens` can be changed while it runs. `default_vpcs` are
    regions in which the account has a default VPC from the start, as most real accounts do: in any other the
    first VPC becomes the default, which nothing can delete. A VPC that names no range gets one out of
    `generated_vpcs`; reserved IPs are `reserved_addresses` where there are some, else of the public network.
    Failures of the machinery are raised at the end.
    """

    def __init__(
        self,
        machinery: Machinery,
        *,
        token: str,
        scopes: Collection[str] | None = None,
        delays: Delays | None = None,
        public_network: str = PUBLIC_NETWORK,
        reserved_addresses: Sequence[str] = (),
        generated_vpcs: str = GENERATED_VPCS,
        default_vpcs: Sequence[str] = (),
        droplet_limit: int = 25,
        reserved_ip_limit: int = 5,
        requests_a_minute: int = 250,
    ) -> None:
        self.account = Account(
            machinery,
            delays=delays or Delays(),
            public_network=public_network,
            reserved_addresses=reserved_addresses,
            generated_vpcs=generated_vpcs,
            droplet_limit=droplet_limit,
            reserved_ip_limit=reserved_ip_limit,
        )
        self.faults = Faults(self.account)
        self.tokens: dict[str, Collection[str] | None] = {token: scopes}
        self.requests: list[Request] = []
        self._limits: dict[str, Limits] = {}
        self._requests_a_minute = requests_a_minute
        self._default_vpcs = default_vpcs
        self._given: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        projects.make_default(self.account)
        for region in self._default_vpcs:
            vpcs.make_default(self.account, region)
        self._given = frozenset(self.account.vpcs)
        self.account.workers.start(Enforcement(self.account).run)
        self._server = _Server(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="digitalocean")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self.account.workers.end()
        self._server.end()
        if failures := self.account.workers.failures:
            raise ExceptionGroup("behind the API there failed", failures)

    def everything(self) -> dict[str, list[str]]:
        """All that costs or remains, by noun; records are `A www.example.com`, all others names or addresses.

        Not what the account had from the start, nor a domain's own name servers. A noun of which there is
        nothing isn't there.
        """
        account = self.account
        with account.lock:
            found = {
                "droplets": [each.name for each in account.droplets.values()],
                "firewalls": [each.asked.name for each in account.firewalls.values()],
                "load_balancers": [each.asked.name for each in account.balancers.values()],
                "ssh_keys": [each.name for each in account.keys.values()],
                "vpcs": [each.name for each in account.vpcs.values() if each.id not in self._given],
                "tags": [*account.tags],
                "domains": [*account.domains],
                "records": [record for each in account.domains.values() for record in dns.own_records(each)],
                "reserved_ips": [*account.reserved_ips],
                "projects": [
                    each.name for each in account.projects.values() if each.id != account.default_project
                ],
            }
        return {noun: sorted(names) for noun, names in found.items() if names}

    def answer(
        self, method: str, target: str, authorization: str, content: bytes
    ) -> tuple[Answer, dict[str, str], bool]:
        """The answer to a request, headers, and whether it is to be lost."""
        headers = {"x-request-id": str(uuid.uuid4())}
        fault = None
        try:
            token = authorization.removeprefix("Bearer ")
            if token == authorization or token not in self.tokens:
                raise Refused(401, "Unable to authenticate you")
            with self.account.lock:
                limit = self._limits.setdefault(token, Limits(self._requests_a_minute))
                try:
                    limit.check(method, urlsplit(target).path)
                finally:
                    headers |= limit.headers()
            fault = self.faults.strike(method, urlsplit(target).path)
            answer = self._route(method, target, self.tokens[token], content)
        except Refused as refusal:
            if refusal.retry_after is not None:
                headers["retry-after"] = str(refusal.retry_after)
            answer = _refusal(refusal.status, refusal.message, headers["x-request-id"])
        except Exception as error:
            self.account.workers.failures.append(error)
            answer = _refusal(500, "Unexpected server-side error", headers["x-request-id"])
        request = Request(method=method, path=target, status=answer.status, time=datetime.now(UTC))
        self.requests.append(request)
        if fault and fault.hold:
            self.faults.keep_answer(fault.hold)
        return answer, headers, fault is not None and fault.loses_answer

    def _route(self, method: str, target: str, scopes: Collection[str] | None, content: bytes) -> Answer:
        url = urlsplit(target)
        for pattern, route in PATTERNS:
            if route.method != method or not (found := pattern.fullmatch(url.path)):
                continue
            call = Call(
                origin=self.endpoint,
                path=url.path,
                arguments={name: unquote(value) for name, value in found.groupdict().items()},
                query=dict(parse_qsl(url.query, keep_blank_values=True)),
                content=content,
                scopes=scopes,
            )
            if not call.may(route.scope):
                raise Refused(403, "You are not authorized to perform this operation")
            if route.slow:
                answer = route.answer(self.account, call)
            else:
                with self.account.lock:
                    answer = route.answer(self.account, call)
            if method != "GET":
                self.account.change()
            return answer
        raise missing()


def _refusal(status: int, message: str, request_id: str) -> Answer:
    error: Json = {"id": ERROR_IDS.get(status, "error"), "message": message, "request_id": request_id}
    return Answer(status=status, body=error)


class _Server(ThreadingHTTPServer):
    """Ends its threads too, which wait for the next request on connections that clients keep."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, api: Api) -> None:
        self.api = api
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):  # a client may be killed
            self.api.account.workers.failures.append(error)

    def end(self) -> None:
        for connection in [*self._connections]:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has been closed meanwhile
                continue
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits for the acknowledgement of its headers
    wbufsize = -1

    def do_GET(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        authorization = self.headers.get("authorization", "")
        try:
            answer, headers, loses = self.server.api.answer(self.command, self.path, authorization, content)
        except Ended:
            loses = True
        if loses:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if answer.body is None:
            self.end_headers()
        else:
            text = json.dumps(answer.body).encode()
            self.send_header("content-type", "application/json; charset=utf-8")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing: `Api.requests` has it."""
