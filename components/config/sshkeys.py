"""Validates and normalizes SSH login keys and host keys."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

__all__ = ["host_key", "is_path", "login", "private_key", "public_key"]

_HOST_KEY_MEND = 'use the line that `ssh-keyscan` prints, without the host\'s name: "ssh-ed25519 AAAA…"'
_HOST_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_PRIVATE_KEY = re.compile(r"(-----BEGIN ([A-Z]+ )*PRIVATE KEY-----)(.*?)(-----END [A-Z ]+-----)", re.DOTALL)
_RSA_BITS = 1024
_PERSONS_RSA_BITS = 2048  # what Debian 12 and Ubuntu 24.04 take
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_NEW_KEY = "make one with ssh-keygen -t ed25519"
_NO_PASSPHRASE = (
    "the key is encrypted with a passphrase; use one without "
    "(on a copy: ssh-keygen -p -N '' -f copy-of-the-key)"
)


def is_path(value: object) -> bool:
    """Whether the value of a private key is the path of a file."""
    return isinstance(value, str) and value.startswith(("/", "~", "./", "../")) and "\n" not in value


def private_key(text: str) -> str:
    """The private key that the text is or, for a path, that the file holds, as ssh-keygen would write it:
    ssh-add takes no other line ends, no indentation and nothing around the key.

    ValueError with the mend if there is none, or one that the SSH clients can't use. No message has the key's
    text.
    """
    if is_path(text):
        text = _read(Path(text))
    found = _PRIVATE_KEY.search(text)
    if found is None:
        raise ValueError(
            "this is a public key; name the private one, which has no .pub at its end"
            if text.strip().startswith(("ssh-", "ecdsa-"))
            else "this is not a private key; use the path of one (beginning with / or ~ or ./) or, "
            "as a secret, its text in OpenSSH or PEM form"
        )
    begin, _, body, end = found.groups()
    if "Proc-Type: 4,ENCRYPTED" in body:
        raise ValueError(_NO_PASSPHRASE)
    key = "\n".join([begin, *body.split(), end]) + "\n"
    openssh = "OPENSSH" in begin
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        loaded = load(key.encode(), password=None)
    except TypeError:
        raise ValueError(_NO_PASSPHRASE) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"this private key is damaged or of an unknown kind; {_NEW_KEY}") from None
    match loaded:
        case ed25519.Ed25519PrivateKey() if openssh:
            return key
        case ed25519.Ed25519PrivateKey():
            raise ValueError(f"an ed25519 key has to be in OpenSSH's own form, for ssh-add; {_NEW_KEY}")
        case rsa.RSAPrivateKey() if loaded.key_size >= _RSA_BITS:
            return key
        case ec.EllipticCurvePrivateKey() if isinstance(loaded.curve, _CURVES):
            return key
        case _:
            raise ValueError(f"SSH takes no key of this kind or size; {_NEW_KEY}")


def login(text: str) -> str:
    """Returns the text if it can be a login name; ValueError with the mend if not."""
    if not re.fullmatch(r"\w[\w.-]*", text, re.ASCII):
        raise ValueError("use a login name of letters, digits, '_', '.' and '-', for example admin")
    return text


def host_key(text: str) -> str:
    """The host's public key as "type base64"; ValueError with the mend if the text is none, or of a type that
    not every SSH client takes by that name: an RSA key's stands for signatures with SHA-1.
    """
    words = text.split()
    if text.lstrip().startswith(("ssh-", "ecdsa-", "sk-")) and words[0] not in _HOST_KEY_TYPES:
        raise ValueError(
            f"a host key of type {words[0]} can't be checked; use the host's of type ssh-ed25519 or "
            "ecdsa-sha2-nistp256, as `ssh-keyscan -t ed25519,ecdsa ADDRESS` prints it"
        )
    try:
        serialization.load_ssh_public_key(" ".join(words).encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(_HOST_KEY_MEND) from None
    return " ".join(words[:2])


def public_key(text: str) -> str:
    """A person's public key on one line; ValueError with the mend if the text is none."""
    mend = "use the line of a .pub file, for example of ~/.ssh/id_ed25519.pub"
    if is_path(text) or "PRIVATE" in text or text.startswith("ssh-dss"):
        raise ValueError(mend)
    if len(text.strip().splitlines()) > 1:
        raise ValueError("write every key as an entry of its own")
    line = " ".join(text.split())
    try:
        loaded = serialization.load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(mend) from None
    if isinstance(loaded, rsa.RSAPublicKey) and loaded.key_size < _PERSONS_RSA_BITS:
        raise ValueError(f"an RSA key below {_PERSONS_RSA_BITS} bits logs in nowhere; {_NEW_KEY}")
    return line


def _read(path: Path) -> str:
    try:
        # Editors of Windows begin a text with a mark that is no part of it.
        return path.expanduser().read_text("utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise ValueError(f"there is no such file: correct the path, or {_NEW_KEY}") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory for ~user
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"the file cannot be read ({reason}); name a readable private key") from None
