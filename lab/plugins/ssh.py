"""SSH connections of the command stand-in, by the settings of a Pulumi `connection`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncssh
import grpc

from lab.plugins.common import ProviderError

RETRY_SECONDS = 0.1
RETRY_FACTOR = 1.5
RETRY_LIMIT_SECONDS = 5.0

KEEPALIVE_SECONDS = 30
"""After three unanswered ones the connection counts as lost; the official plugin would wait without end."""


async def dial(
    connection: Mapping[str, Any], status: Callable[[str], Awaitable[None]]
) -> asyncssh.SSHClientConnection:
    """Connect, trying again `dialErrorLimit` times (-1: without end), `perDialTimeout` seconds each time
    (0: without limit).

    `status` is told of each failure; the last one is raised. The timeout bounds the handshake too, where the
    official plugin waits without end for a server that never answers.
    """
    limit = int(connection["dialErrorLimit"])
    options = _options(connection)
    wait = RETRY_SECONDS
    failed = 0
    while True:
        try:
            return await _connect(options, float(connection["perDialTimeout"]))
        except ProviderError as error:
            failed += 1
            if 0 <= limit < failed:
                raise ProviderError(f"after {limit} failed attempts: {error}", error.code) from error
        await status(f"Dial {failed}/{'inf' if limit < 0 else limit} failed: retrying")
        await asyncio.sleep(wait)
        wait = min(wait * RETRY_FACTOR, RETRY_LIMIT_SECONDS)


async def _connect(options: Mapping[str, Any], seconds: float) -> asyncssh.SSHClientConnection:
    """Connect once; errors in the words of the official plugin."""
    address = f"{options['host']}:{options['port']}"
    try:
        async with asyncio.timeout(seconds or None):
            return await asyncssh.connect(**options)
    except TimeoutError as error:
        code = grpc.StatusCode.DEADLINE_EXCEEDED
        raise ProviderError(f"dial tcp {address}: i/o timeout", code) from error
    except socket.gaierror as error:
        raise ProviderError(f"dial tcp: lookup {options['host']}: {error.strerror}") from error
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise ProviderError(f"dial tcp {address}: connect: {reason}") from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise ProviderError("ssh: handshake failed: ssh: host key mismatch") from error
    except asyncssh.PermissionDenied as error:
        tried = [
            "none",
            *["publickey"] * bool(options["client_keys"]),
            *["password"] * bool(options["password"]),
        ]
        raise ProviderError(
            f"ssh: handshake failed: ssh: unable to authenticate, attempted methods [{' '.join(tried)}], "
            "no supported methods remain"
        ) from error
    except asyncssh.Error as error:
        raise ProviderError(f"ssh: handshake failed: {error}") from error


def _options(connection: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `asyncssh.connect`: nothing comes from ~/.ssh or an agent, no host key means any."""
    options = {
        "host": connection["host"],
        "port": int(connection["port"]),
        "username": connection["user"],
        "password": connection.get("password"),
        "client_keys": None,
        "known_hosts": None,
        "agent_path": None,
        "config": None,
        "keepalive_interval": KEEPALIVE_SECONDS,
    }
    try:
        if key := connection.get("privateKey"):
            password = connection.get("privateKeyPassword")
            options["client_keys"] = [asyncssh.import_private_key(key, password)]
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ProviderError(f"connection.privateKey: {error}") from error
    try:
        if key := connection.get("hostKey"):
            known = asyncssh.import_public_key(key)
            options["known_hosts"] = ([known], [], [])
            # Of an RSA key the official plugin asks for a signature with SHA-1, which sshd no longer makes.
            options["server_host_key_algs"] = [known.get_algorithm()]
    except asyncssh.KeyImportError as error:
        raise ProviderError(f"connection.hostKey: {error}") from error
    return options
