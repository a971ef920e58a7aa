"""A cluster as its API server shows it: discovery, and requests that survive a server being replaced.

httpx instead of the official client: that one imports every model of the API (0.35 to 0.6 s more at each
start of the plugin), blocks a thread for each call and leaves the client's key in a temporary file when the
engine kills the plugin.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from lab.plugins.kubernetes.kubeconfig import Access
from lab.plugins.kubernetes.managers import CREATOR
from lab.plugins.kubernetes.objects import Object, name_of, namespace_of

_RETRY_DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_PROBE_DELAYS = (0.1, 0.3, 0.9)
_LONGEST_RETRY_AFTER = 10.0
_PARALLEL_REQUESTS = 32
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class ApiError(Exception):
    """The API server's refusal, with the text of its Status."""

    def __init__(self, code: int, status: Mapping[str, Any], *, repeated: bool) -> None:
        super().__init__(status.get("message") or f"the server answered with HTTP status {code}")
        self.code = code
        self.reason = status.get("reason", "")
        self.details: Mapping[str, Any] = status.get("details") or {}
        self.repeated = repeated
        """Whether an earlier attempt broke off and may have been carried out."""

    @property
    def missing_namespace(self) -> bool:
        """Whether what was not found is the namespace."""
        return self.code == 404 and self.details.get("kind") == "namespaces"


class UnreachableError(Exception):
    """The API server could not be spoken to."""


class NoMatchError(Exception):
    """The API server does not serve a kind."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Where a kind is served."""

    root: str
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        """The path of an object or, without a name, of the collection."""
        scope = f"/namespaces/{namespace or 'default'}" if self.namespaced else ""
        return f"{self.root}{scope}/{self.plural}{f'/{name}' if name else ''}"


class Cluster:
    """The API server that `access` leads to.

    Requests that meet a broken or refused connection, 429 or 503 are repeated for about six seconds.
    """

    def __init__(self, access: Access) -> None:
        self._server = access.server
        self._extensions = {"sni_hostname": access.server_name} if access.server_name else {}
        self._http = httpx.AsyncClient(
            base_url=access.server,
            verify=access.tls,
            headers={**access.headers, "Accept": _JSON, "User-Agent": "kubepivot-lab"},
            limits=httpx.Limits(max_connections=_PARALLEL_REQUESTS),
            timeout=httpx.Timeout(35.0, connect=10.0),
            trust_env=False,
        )
        self._kinds: dict[tuple[str, str], Resource] = {}

    async def discover(self, delays: Sequence[float] = _PROBE_DELAYS) -> None:
        """Learn which kinds are served. A reachable server answers this to everyone who may log in."""
        kinds: dict[tuple[str, str], Resource] = {}
        for path in ("/api", "/apis"):
            groups = await self._request("GET", path, accept=_DISCOVERY, delays=delays)
            for group in groups["items"]:
                name = group.get("metadata", {}).get("name", "")
                for version in group["versions"]:
                    api_version = f"{name}/{version['version']}" if name else version["version"]
                    for resource in version.get("resources", []):
                        kinds[api_version, resource["responseKind"]["kind"]] = Resource(
                            root=f"{path}/{api_version}",
                            plural=resource["resource"],
                            namespaced=resource["scope"] == "Namespaced",
                        )
        self._kinds = kinds

    async def close(self) -> None:
        """End the connections."""
        await self._http.aclose()

    async def resource(self, api_version: str, kind: str) -> Resource:
        """Where a kind is served; discovery is asked again about one not seen so far."""
        if (api_version, kind) not in self._kinds:
            await self.discover(_RETRY_DELAYS)
        try:
            return self._kinds[api_version, kind]
        except KeyError:
            raise NoMatchError(f'no matches for kind "{kind}" in version "{api_version}"') from None

    async def get(self, like: Object) -> Object:
        """The live object with the identity of `like`."""
        return await self._answer("GET", await self._path(like))

    async def select(self, api_version: str, kind: str, namespace: str, selector: str) -> list[Object]:
        """The objects of a namespace that match a label selector."""
        path = (await self.resource(api_version, kind)).path(namespace)
        answer = await self._request("GET", path, query={"labelSelector": selector})
        return [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]

    async def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Create `obj`; fails if it exists."""
        query = {"fieldManager": CREATOR, "fieldValidation": "Strict", **_dry_run(dry_run)}
        resource = await self.resource(obj["apiVersion"], obj["kind"])
        try:
            return await self._answer("POST", resource.path(namespace_of(obj)), query=query, body=obj)
        except ApiError as error:
            # The server may have died between doing and answering: then what exists is ours.
            if error.reason != "AlreadyExists" or not error.repeated:
                raise
            live = await self.get(obj)
            managers = {entry.get("manager") for entry in live["metadata"].get("managedFields", [])}
            if CREATOR not in managers:
                raise
            return live

    async def apply(self, obj: Object, *, manager: str, force: bool = False, dry_run: bool = False) -> Object:
        """Server-side apply of `obj`: creates it, or takes over the fields that it names."""
        query = {"fieldManager": manager, "fieldValidation": "Strict", **_dry_run(dry_run)}
        query["force"] = str(force).lower()
        return await self._answer("PATCH", await self._path(obj), query=query, body=obj, content_type=_APPLY)

    async def replace(self, obj: Object, *, manager: str, dry_run: bool = False) -> Object:
        """Put `obj` in place of the version that its resourceVersion names."""
        query = {"fieldManager": manager, "fieldValidation": "Strict", **_dry_run(dry_run)}
        return await self._answer("PUT", await self._path(obj), query=query, body=obj)

    async def patch(self, like: Object, operations: list[Object]) -> Object:
        """Apply a JSON patch."""
        return await self._answer("PATCH", await self._path(like), body=operations, content_type=_JSON_PATCH)

    async def delete(self, like: Object, *, propagation: str) -> None:
        """Ask for the deletion of an object; it may still be there on return."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        await self._request("DELETE", await self._path(like), body=body)

    async def _path(self, obj: Object) -> str:
        resource = await self.resource(obj["apiVersion"], obj["kind"])
        return resource.path(namespace_of(obj), name_of(obj))

    async def _answer(self, method: str, path: str, **options: Any) -> Object:
        answer: Object = await self._request(method, path, **options)
        return answer

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        delays: Sequence[float] = _RETRY_DELAYS,
    ) -> Any:
        headers = {"Accept": accept} | ({"Content-Type": content_type} if body is not None else {})
        content = json.dumps(body).encode() if body is not None else None
        repeated = False
        for delay in (*delays, None):
            try:
                response = await self._http.request(
                    method, path, params=query, content=content, headers=headers, extensions=self._extensions
                )
            except httpx.TransportError as error:
                if delay is None or not _passing(error):
                    raise UnreachableError(
                        f'{method.title()} "{self._server}{path}": {self._cause(error)}'
                    ) from error
                repeated |= not isinstance(error, _NOT_SENT)
            else:
                if response.is_success:
                    return response.json()
                if delay is None or response.status_code not in (429, 503):
                    raise ApiError(response.status_code, _status(response), repeated=repeated)
                asked = response.headers.get("Retry-After", "")
                delay = min(float(asked), _LONGEST_RETRY_AFTER) if asked.isdigit() else delay
            await asyncio.sleep(delay)
        raise AssertionError("the last attempt neither returned nor raised")

    def _cause(self, error: Exception) -> str:
        """A connection's failure in the words of the official plugin's client."""
        url = urlsplit(self._server)
        address = url.netloc if url.port else f"{url.netloc}:443"
        causes = list(_causes(error))
        if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            return f"dial tcp {address}: connect: connection refused"
        if any(isinstance(cause, ConnectionResetError) for cause in causes):
            return f"read tcp {address}: connection reset by peer"
        text = next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)
        return f"{address}: {text}"


def _dry_run(asked: bool) -> dict[str, str]:
    return {"dryRun": "All"} if asked else {}


def _status(response: httpx.Response) -> Mapping[str, Any]:
    try:
        status = response.json()
    except ValueError:
        return {"message": response.text.strip()}
    return status if isinstance(status, dict) else {}


def _causes(error: BaseException) -> Sequence[BaseException]:
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        group = following.exceptions if isinstance(following, BaseExceptionGroup) else ()
        following = group[0] if group else following.__cause__ or following.__context__
    return found


def _passing(error: Exception) -> bool:
    """Whether a failure can end by itself: one about certificates or names does not."""
    lasting = (ssl.SSLCertVerificationError, socket.gaierror)
    return not any(isinstance(cause, lasting) for cause in _causes(error))
