"""By what SSH knows users and hosts: private keys that any client can use, public ones that any can check."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from components.config import parse, sshkeys
from tests.sweeps import swept
from tests.unit.raw_configs import HOST_KEY, baremetal, with_value

pytestmark = pytest.mark.usefixtures("home")

KEYS = ("id_ed25519", "id_ecdsa", "id_ecdsa_pkcs8", "id_rsa_traditionalopenssl", "id_rsa_pkcs8")


@pytest.mark.parametrize("name", KEYS)
def test_a_private_key_is_a_path_or_its_text(home: Path, name: str) -> None:
    text = (home / ".ssh" / name).read_text()
    for value in (f"~/.ssh/{name}", str(home / ".ssh" / name), text, text.rstrip("\n")):
        key = parse(with_value(baremetal(), "hosts worker-1 key", value), stack="dev").hosts["worker-1"].key
        assert key is not None
        assert key.get_secret_value() == text


@pytest.mark.parametrize("name", swept(KEYS))
def test_a_private_key_is_made_what_ssh_keygen_would_have_written(
    keys: Path, tmp_path: Path, name: str
) -> None:
    text = (keys / ".ssh" / name).read_text()
    written = {
        "crlf": text.replace("\n", "\r\n"),
        "marked": f"\ufeff{text}",
        "commented": f"the key of worker-1\n{text}\n# its end\n",
        "indented": "".join(f"    {line}\n" for line in text.splitlines()),
        "folded": " ".join(text.splitlines()),
        "blank": text.replace("\n", "\n\n"),
    }
    for how, damaged in written.items():
        assert sshkeys.private_key(damaged) == text, how
        file = tmp_path / how
        file.write_bytes(damaged.encode())
        assert sshkeys.private_key(str(file)) == text, how


@pytest.mark.parametrize("name", KEYS)
def test_the_ssh_client_reads_what_is_taken(keys: Path, tmp_path: Path, name: str) -> None:
    """The reset hands the key to ssh-add, which reads a key as ssh-keygen does."""
    file = tmp_path / name
    file.touch(mode=0o600)
    file.write_text(sshkeys.private_key((keys / ".ssh" / name).read_text().replace("\n", "\r\n")))
    ran = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(("ssh-", "ecdsa-"))


def test_a_host_key_loses_its_comment() -> None:
    raw = with_value(baremetal(), "hosts worker-1 hostKey", f" {HOST_KEY}  root@worker-1\n")
    assert parse(raw, stack="dev").hosts["worker-1"].host_key == HOST_KEY


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        *(ec.generate_private_key(curve()) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)),
    ],
)
def test_a_host_key_that_every_client_can_check_is_taken(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    openssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    text = key.public_key().public_bytes(*openssh).decode()
    assert sshkeys.host_key(text) == text
