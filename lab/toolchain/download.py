"""Official downloads: a file counts only if it has the checksum that its site publishes."""

from __future__ import annotations

import hashlib
import re
import ssl
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath

import httpx

from lab.errors import LabError
from lab.progress import Progress
from lab.toolchain.tools import Official

CONNECT_SECONDS = 5
READ_SECONDS = 30
FILE_SECONDS = 1800
ATTEMPTS = 3


class UnavailableError(Exception):
    """The official file cannot be had from here; there may be another way."""


class Sites:
    """The official sites. Each is probed once, so that an unreachable one costs its time-out once a run.

    `moved` maps the start of a URL to another one: the tests' local server.
    """

    def __init__(self, moved: Mapping[str, str] | None = None) -> None:
        self._moved = dict(moved or {})
        self._unreachable: dict[str, str] = {}  # site: reason, empty when it answered

    def unreachable(self, url: str) -> str:
        """Return why the site of `url` cannot be reached, or an empty string."""
        site = str(httpx.URL(self._where(url)).copy_with(raw_path=b"/"))
        if site not in self._unreachable:
            try:
                with self._client() as client:
                    client.head(site)
                self._unreachable[site] = ""
            except httpx.TransportError as error:
                self._unreachable[site] = f"{httpx.URL(url).host} cannot be reached ({error})"
        return self._unreachable[site]

    def fetch(self, official: Official, target: Path, progress: Progress) -> str:
        """Download `official` to `target`, verify it and return the text of its checksum file.

        Raises UnavailableError where the site or the file cannot be had, LabError for a wrong checksum.
        """
        checksums = target.parent / f".{target.name}.checksums"
        try:
            self.download(official.checksums, checksums, progress)
            text = checksums.read_text(errors="replace")
        finally:
            checksums.unlink(missing_ok=True)
        expected = _checksum(text, official)
        actual = self.download(official.url, target, progress)
        if actual != expected:
            target.unlink()
            raise LabError(
                f"{official.url} has SHA-256 {actual}, but {official.checksums} says {expected}",
                "run again; if it stays so, something between this machine and the site alters the file",
            )
        return text

    def download(self, url: str, target: Path, progress: Progress) -> str:
        """Download `url` to `target`, unverified, and return its SHA-256.

        Raises UnavailableError where the site or the file cannot be had.
        """
        if reason := self.unreachable(url):
            raise UnavailableError(reason)
        with self._client() as client:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return self._stream(client, url, target, progress)
                except httpx.RequestError as error:
                    if attempt == ATTEMPTS:
                        raise UnavailableError(f"{url} broke off {ATTEMPTS} times ({error})") from error
        raise AssertionError("not reached: the last attempt returns or raises")

    def _stream(self, client: httpx.Client, url: str, target: Path, progress: Progress) -> str:
        digest = hashlib.sha256()
        deadline = time.monotonic() + FILE_SECONDS
        with client.stream("GET", self._where(url), follow_redirects=True) as response:
            if response.status_code != httpx.codes.OK:
                raise UnavailableError(f"{url} answered {response.status_code}")
            size = int(response.headers.get("Content-Length", 0))
            with target.open("wb") as file:
                for chunk in response.iter_bytes():  # as they come: a trickle must not outlast the deadline
                    if time.monotonic() > deadline:
                        raise UnavailableError(f"{url} took longer than {FILE_SECONDS // 60} minutes")
                    digest.update(chunk)
                    file.write(chunk)
                    progress.detail(f"{file.tell() >> 20} of {size >> 20} MB from {httpx.URL(url).host}")
        return digest.hexdigest()

    def _where(self, url: str) -> str:
        for start, moved in self._moved.items():
            if url.startswith(start):
                return moved + url.removeprefix(start)
        return url

    def _client(self) -> httpx.Client:
        return httpx.Client(
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            verify=_authorities(),
        )


@cache
def _authorities() -> ssl.SSLContext:
    """Trust what this system trusts: a company's proxy may have its own authority there."""
    return ssl.create_default_context()


def _checksum(text: str, official: Official) -> str:
    """Find the file's sum in a checksum file: the sum alone, or `sum  name` lines."""
    name = PurePosixPath(official.url).name
    for line in text.splitlines():
        found = re.fullmatch(r"([0-9a-f]{64})(?:\s+\*?(\S+))?", line.strip())
        if found and (found[2] is None or PurePosixPath(found[2]).name == name):
            return found[1]
    raise LabError(
        f"{official.checksums} has no SHA-256 of {name}",
        "open the URL: a login page or a proxy's notice may be there in its place",
    )
