"""Home directories with SSH keys, for configs that name them, and what the program asks for in each case."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.cases import Case
from tests.unit.recorder import Run, ran


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory with keys of every kind."""
    home = tmp_path_factory.mktemp("home")
    ssh = home / ".ssh"
    ssh.mkdir()
    key = ed25519.Ed25519PrivateKey.generate()
    (ssh / "id_ed25519").write_bytes(_private(key))
    (ssh / "id_ed25519.pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    (ssh / "id_ed25519_pkcs8").write_bytes(_private(key, serialization.PrivateFormat.PKCS8))
    curve = ec.generate_private_key(ec.SECP256R1())
    (ssh / "id_ecdsa").write_bytes(_private(curve))
    (ssh / "id_ecdsa_pkcs8").write_bytes(_private(curve, serialization.PrivateFormat.PKCS8))
    (ssh / "id_bitcoin").write_bytes(
        _private(ec.generate_private_key(ec.SECP256K1()), serialization.PrivateFormat.PKCS8)
    )
    modulus = rsa.generate_private_key(65537, 2048)
    for form in (serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8):
        (ssh / f"id_rsa_{form.name.lower()}").write_bytes(_private(modulus, form))
    locked = serialization.BestAvailableEncryption(b"passphrase")
    (ssh / "id_locked").write_bytes(_private(key, serialization.PrivateFormat.PKCS8, locked))
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    (ssh / "id_locked_pem").write_bytes(_private(curve, traditional, locked))
    (ssh / "id_torn").write_bytes(_private(key)[:120] + b"\n-----END OPENSSH PRIVATE KEY-----\n")
    (ssh / "binary").write_bytes(bytes(range(256)))
    return home


@pytest.fixture
def home(keys: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory that `~` in a path means."""
    monkeypatch.setenv("HOME", str(keys))
    return keys


@pytest.fixture(params=[False, True], ids=["up", "preview"])
def run(case: Case, request: pytest.FixtureRequest) -> Run:
    """What the program asks for in a run and in a preview without a state."""
    return ran(case.name, preview=request.param)


@pytest.fixture
def up(case: Case) -> Run:
    """What the program asks for in a run."""
    return ran(case.name)


def _private(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    form: serialization.PrivateFormat = serialization.PrivateFormat.OpenSSH,
    encryption: serialization.KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, encryption or serialization.NoEncryption())
