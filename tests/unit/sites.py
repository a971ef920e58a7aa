"""A local server in the place of the official sites, and a go command that only says what it was asked."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lab import pins
from lab.toolchain.download import Sites

HOSTS = ("get.pulumi.com", "dl.k8s.io", "github.com", "api.github.com", "modules.example")


class OfficialSites:
    """Serves `files`, by host and path, and remembers what was asked for. What is not there is a 404.

    A path in `broken` is announced with its length and ends after half of it, one in `circling` is sent
    back to itself.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.broken: set[str] = set()
        self.circling: set[str] = set()
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(200)
                self.end_headers()

            def do_GET(self) -> None:
                path = self.path.lstrip("/")
                outer.asked.append(path)
                if path in outer.circling:
                    self.send_response(302)
                    self.send_header("Location", self.path)
                    self.end_headers()
                    return
                content = outer.files.get(path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if path in outer.broken else content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> OfficialSites:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def moved(self) -> dict[str, str]:
        """What `Sites` needs to find this server in the place of the official ones."""
        return {f"https://{host}": f"http://127.0.0.1:{self._server.server_port}/{host}" for host in HOSTS}

    def sites(self) -> Sites:
        """Return the sites as a new run sees them."""
        return Sites(self.moved)

    def publish(self, url: str, content: bytes, checksums: str) -> None:
        """Serve a file and its checksum file."""
        self.files[url.removeprefix("https://")] = content
        self.files[checksums.removeprefix("https://")] = sha256_line(url, content)


def unreachable() -> Sites:
    """Return sites of which none can be reached."""
    return Sites({f"https://{host}": "http://127.0.0.1:9" for host in HOSTS})  # the discard port


def sha256_line(url: str, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {url.rsplit('/', 1)[1]}\n".encode()


def archive(members: dict[str, bytes]) -> bytes:
    """Return a .tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class FakeGo:
    """A `go` that writes `built <package>` where it is told to, and a line to `calls` for each build.

    It is the pinned Go unless told otherwise; `fails` makes it end with an error, `seconds` makes it slow.
    """

    def __init__(
        self, directory: Path, *, version: str = f"go{pins.GO}", fails: bool = False, seconds: float = 0
    ) -> None:
        directory.mkdir(exist_ok=True)
        self._log = directory / "go.log"
        source = directory / "module"
        (source / "python" / "cmd").mkdir(parents=True, exist_ok=True)
        (source / "python/cmd/pulumi-language-python-exec").write_text("script\n")
        self.program = directory / "go"
        self.program.write_text(
            f"""#!/bin/sh
case "$1 $2" in
version*) echo "go version {version} linux/amd64" ;;
"mod download") echo '{{"Dir": "{source}"}}' ;;
build*)
  line="CGO_ENABLED=$CGO_ENABLED $*"
  while [ $# -gt 1 ]; do
    [ "$1" = -o ] && target=$2
    shift
  done
  echo "$1 $line" >> {self._log}
  echo "compiling $1" >&2
  {f"/bin/sleep {seconds}" if seconds else ""}
  {"echo no space left on device >&2; exit 1" if fails else ""}
  printf 'built %s' "$1" > "$target" ;;
esac
"""
        )
        self.program.chmod(0o755)

    @property
    def built(self) -> list[str]:
        """The packages that it was asked to build, in order."""
        return [line.split()[0] for line in self.calls]

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []
