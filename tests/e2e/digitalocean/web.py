"""A droplet's program that tells who answers: HTTP on 8080; HTTPS on 6443, and `/readyz` while it is ready.

Standard library only: it runs on the droplet.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

UNREADY = Path("/run/unready")
CERTIFICATE = "/run/web.pem"


class Handler(BaseHTTPRequestHandler):
    """Answers with the name of the host. It keeps a connection that the client keeps."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Fails for `/readyz` only."""
        body = socket.gethostname().encode()
        self.send_response(500 if self.path == "/readyz" and UNREADY.exists() else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


def main() -> None:
    """Serves on both ports."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"),
            *("-subj", "/CN=nobody", "-keyout", CERTIFICATE, "-out", CERTIFICATE),
        ],
        check=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    plain, encrypted = (ThreadingHTTPServer(("", port), Handler) for port in (8080, 6443))
    encrypted.socket = context.wrap_socket(encrypted.socket, server_side=True)
    threading.Thread(target=encrypted.serve_forever, daemon=True).start()
    plain.serve_forever()


if __name__ == "__main__":
    main()
