"""What cloud-init makes of a droplet's user data and keys: of its configuration, what this project uses."""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from components.archive import File

__all__ = ["CloudConfig", "first_boot_files"]

HEADER = "#cloud-config"

HostKeyPart = Literal[
    "ecdsa_private", "ecdsa_public", "ed25519_private", "ed25519_public", "rsa_private", "rsa_public"
]


def _lasting(path: str) -> str:
    if not path.startswith("/") or path.startswith(("/run/", "/tmp/")):
        raise ValueError("has to be absolute, and not below /run or /tmp, which the boot empties")
    return path


class WriteFile(BaseModel):
    """A file with its content; root owns it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    path: Annotated[str, AfterValidator(_lasting)]
    content: str
    permissions: Annotated[str, Field(pattern=r"^0[0-7]{3}$")] = "0644"


class CloudConfig(BaseModel):
    """User data as cloud-init reads it. A key that is not here is an error: cloud-init would act on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ssh_deletekeys: bool = True
    """Changes nothing: the image has no keys."""
    ssh_keys: dict[HostKeyPart, str] = {}
    ssh_authorized_keys: list[str] = []
    write_files: list[WriteFile] = []

    @classmethod
    def parse(cls, user_data: str) -> CloudConfig:
        """Reads user data, of which there may be none.

        Raises ValueError (pydantic's ValidationError is one) if it is of another kind than `#cloud-config`,
        or holds what is not understood here, and yaml.YAMLError if it is no YAML.
        """
        if not user_data:
            return cls()
        if user_data.splitlines()[0].rstrip() != HEADER:
            raise ValueError(f"user data has to begin with {HEADER}")
        return cls.model_validate(yaml.safe_load(user_data) or {})


def first_boot_files(config: CloudConfig, authorized_keys: tuple[str, ...]) -> dict[str, File]:
    """What is on the disk once cloud-init has run; `authorized_keys` are those of the droplet's order.

    Host keys are among it only if the config has them; else the first boot makes them.
    """
    files = {each.path: File(each.content, mode=int(each.permissions, 8)) for each in config.write_files}
    for part, text in config.ssh_keys.items():
        kind, _, half = part.partition("_")
        path = f"/etc/ssh/ssh_host_{kind}_key"
        files |= {path: File(text, mode=0o600)} if half == "private" else {f"{path}.pub": File(text)}
    keys = (*authorized_keys, *config.ssh_authorized_keys)
    files["/root/.ssh/authorized_keys"] = File("".join(f"{key.strip()}\n" for key in keys), mode=0o600)
    return files
