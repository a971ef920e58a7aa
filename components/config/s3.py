"""Config of S3-compatible storage for copies of snapshots."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from components.config.addresses import Url
from components.config.base import Section

__all__ = ["S3Config"]

_SHORTEST_KEY = 20
"""Letters of an encryption key: all that stands between who has a copy and the cluster's Secrets."""


def _bucket(text: str) -> str:
    """Returns the text if it can be a bucket's name; ValueError with the mend if not."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text) or ".." in text:
        raise ValueError("use 3 to 63 lower-case letters, digits, dots and hyphens")
    return text


def _prefix(text: str) -> str:
    """Returns the text if it is empty or a path below a bucket; ValueError with the mend if not."""
    if text and not all(re.fullmatch(r"[\w][\w.-]*", part, re.ASCII) for part in text.split("/")):
        raise ValueError(
            "use names of letters, digits, dots, hyphens and underscores, with / between but not around them"
        )
    return text


def _region(text: str) -> str:
    """Returns the text if it can be a region's name; ValueError with the mend if not."""
    if not re.fullmatch(r"[\w-]+", text, re.ASCII):
        raise ValueError("use the region's name of letters, digits and hyphens, for example eu-central-1")
    return text


def _credential(value: object) -> object:
    """Returns the value unless it is text that no credential has; ValueError with the mend then."""
    if isinstance(value, str) and not re.fullmatch(r"[!-~]+", value):
        raise ValueError("use the text that the storage gave you, without spaces and line breaks")
    return value


def _encryption_key(value: object) -> object:
    """Returns the value unless it is too short to keep a secret; ValueError with the mend then."""
    value = _credential(value)
    if isinstance(value, str) and len(value) < _SHORTEST_KEY:
        raise ValueError(
            f"use at least {_SHORTEST_KEY} letters, for example those of `openssl rand -base64 32`"
        )
    return value


Bucket = Annotated[str, AfterValidator(_bucket)]
Credential = Annotated[SecretStr, BeforeValidator(_credential)]
EncryptionKey = Annotated[SecretStr, BeforeValidator(_encryption_key)]
Prefix = Annotated[str, AfterValidator(_prefix)]
Region = Annotated[str, AfterValidator(_region)]


class S3Config(Section):
    """S3-compatible storage that snapshots are copied to, encrypted on the host before they leave it."""

    endpoint: Url = Field(description="The URL of the storage.", examples=["https://s3.example.com"])
    bucket: Bucket = Field(description="A bucket that exists already.", examples=["backups"])
    prefix: Prefix = Field(
        default="",
        description="A path in the bucket. The copies are below it, in a directory of the cluster's name "
        "with one of each host's name.",
        examples=["kubernetes"],
    )
    region: Region = Field(
        default="us-east-1",
        description="The region; storage that has none takes the default.",
        examples=["eu-central-1"],
    )
    access_key: Credential = Field(
        description="The id of the access key, which may list, read, write and delete objects in the bucket.",
        examples=["AKIAIOSFODNN7EXAMPLE"],
    )
    secret_key: Credential = Field(
        description="The secret of the access key (`pulumi config set --secret --path`).",
        examples=["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"],
    )
    encryption_key: EncryptionKey = Field(
        description=f"What the copies are encrypted with, at least {_SHORTEST_KEY} letters "
        "(`pulumi config set --secret --path`). Keep it elsewhere too: without it no copy can be read.",
        examples=["Sl6w0zQy1gE9v8mJkq4cXwJr7n2bT5hU"],
    )
