"""How the program itself asks the cluster's API."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pulumi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from components.api import ASK_SECONDS, _proxy, ask, client


def _ask(monkeypatch: pytest.MonkeyPatch, answers: list[Any]) -> Any:
    """Asks an API that answers so, at last for ever the same. No time goes by."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def answer(_: httpx.Request) -> httpx.Response:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return httpx.Response(200, **found) if isinstance(found, dict) else httpx.Response(found)

    monkeypatch.setattr("components.api.sleep", sleep)
    monkeypatch.setattr("components.api.monotonic", lambda: now)

    async def main() -> Any:
        async with httpx.AsyncClient(base_url="https://api", transport=httpx.MockTransport(answer)) as api:
            return await ask(api, "/api/v1/nodes")

    try:
        return asyncio.run(main())
    finally:
        assert now <= ASK_SECONDS + 1


def test_an_api_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [httpx.ConnectError("refused"), 503, {"text": "no JSON"}, {"json": {"items": []}}]
    assert _ask(monkeypatch, answers) == {"items": []}


def test_an_api_that_stays_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pulumi.RunError, match="the API does not answer: ConnectError refused"):
        _ask(monkeypatch, [httpx.ConnectError("refused")])


def _pem() -> Iterator[str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    begin = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(begin).not_valid_after(begin + timedelta(days=1))
    yield made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    yield key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def test_the_key_is_in_a_private_file_that_is_gone_afterwards(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    modes: list[int] = []
    load_pair = ssl.SSLContext.load_cert_chain

    def load(context: ssl.SSLContext, path: Any) -> None:
        modes.extend(each.stat().st_mode & 0o777 for each in tmp_path.iterdir())
        load_pair(context, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load)
    certificate, key = _pem()
    asyncio.run(client("https://api:6443", certificate, certificate + key).aclose())
    assert modes == [0o600]
    assert not list(tmp_path.iterdir())


PROXY = "http://proxy:3128"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has these proxies in the environment, and no others."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)

    def give(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return give


@pytest.mark.parametrize(
    ("host", "listed", "direct"),
    [
        ("172.30.0.11", "example.com, 172.16.0.0/12", True),
        ("172.30.0.11", "10.0.0.0/8,example.com/12", False),
        ("172.30.0.11", "fd00::/8,[::1],172.30.0.11", True),
        ("172.30.0.11", "", False),
        ("api.example.com", "172.16.0.0/12,.example.com", True),
        ("api.example.com", "172.16.0.0/12", False),
        ("api.example.com", "*", True),
        ("api.example.com", "10.0.0.0/8, *", True),
        ("127.0.0.1", "", True),
    ],
)
@pytest.mark.parametrize("names", [("HTTPS_PROXY", "NO_PROXY"), ("https_proxy", "no_proxy")])
def test_the_proxy_is_the_one_of_the_providers_go(
    environment: Callable[..., None], names: tuple[str, str], host: str, listed: str, direct: bool
) -> None:
    environment(**dict(zip(names, (PROXY, listed), strict=True)))
    assert _proxy(host) == (None if direct else PROXY)


def test_a_proxy_without_a_scheme_is_one_of_http(environment: Callable[..., None]) -> None:
    environment(HTTPS_PROXY="proxy:3128")
    assert _proxy("172.30.0.11") == PROXY


def test_what_go_passes_over_is_passed_over(environment: Callable[..., None]) -> None:
    environment(ALL_PROXY="socks5://proxy:1080", NO_PROXY="fd00::/8,[::1]")
    certificate, key = _pem()
    asyncio.run(client("https://172.30.0.11:6443", certificate, certificate + key).aclose())


@pytest.mark.parametrize("proxy", ["socks5h://user:secret@proxy:1080", "ftp://user:secret@proxy:21"])
def test_a_proxy_of_no_use_is_told_without_its_password(environment: Callable[..., None], proxy: str) -> None:
    environment(HTTPS_PROXY=proxy)
    certificate, key = _pem()
    with pytest.raises(pulumi.RunError) as raised:
        client("https://172.30.0.11:6443", certificate, certificate + key)
    assert "HTTPS_PROXY can't be used" in str(raised.value)
    assert "https://172.30.0.11:6443 in NO_PROXY" in str(raised.value)
    assert "secret" not in str(raised.value)
