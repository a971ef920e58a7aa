"""By what SSH knows a user and a host."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

__all__ = ["host_key", "is_path", "login", "private_key"]

_HOST_KEY_MEND = 'use the line that `ssh-keyscan` prints, without the host\'s name: "ssh-ed25519 AAAA…"'


def is_path(value: object) -> bool:
    """Whether the value of a private key is the path of a file."""
    return isinstance(value, str) and value.startswith(("/", "~", "./", "../")) and "\n" not in value


def private_key(text: str) -> str:
    """The private key that the text is or, for a path, that the file holds.

    ValueError with the mend if there is none, or one that only a passphrase opens. No message has the
    key's text.
    """
    data = _read(Path(text)) if is_path(text) else text.encode()
    data = data.strip() + b"\n"
    if b"PRIVATE KEY" not in data:
        raise ValueError(
            "this is a public key; name the private one, which has no .pub at its end"
            if data.startswith((b"ssh-", b"ecdsa-"))
            else "this is not a private key; use the path of one (beginning with / or ~ or ./) or, "
            "as a secret, its text in OpenSSH or PEM form"
        )
    openssh = b"OPENSSH PRIVATE KEY" in data
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        load(data, password=None)
    except TypeError:
        raise ValueError(
            "the key is encrypted with a passphrase; use one without "
            "(on a copy: ssh-keygen -p -N '' -f copy-of-the-key)"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "this private key is damaged or of an unknown kind; make one with ssh-keygen -t ed25519"
        ) from None
    return data.decode()


def login(text: str) -> str:
    """The text itself if it can be a login name; ValueError with the mend if not."""
    if text.split() != [text] or text.startswith("-"):
        raise ValueError("use a login name, without spaces and without a dash in front, for example admin")
    return text


def host_key(text: str) -> str:
    """The host's public key as "type base64"; ValueError with the mend if the text is none."""
    words = text.split()
    try:
        serialization.load_ssh_public_key(" ".join(words).encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(_HOST_KEY_MEND) from None
    return " ".join(words[:2])


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except FileNotFoundError:
        raise ValueError("there is no such file; make one with ssh-keygen -t ed25519") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory for ~user
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"the file cannot be read ({reason}); name a readable private key") from None
