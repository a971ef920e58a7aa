"""Config of the mirror that hosts download from."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from components.config.addresses import Url
from components.config.base import Section
from components.config.images import REPOSITORY

__all__ = ["MirrorConfig"]


def _registry(url: str) -> str:
    """Returns the URL if images can be below it; ValueError with the mend if not."""
    path = urlsplit(url).path.removeprefix("/")
    if path and not re.fullmatch(REPOSITORY, path):
        raise ValueError("use a path as images have it, of lower-case letters, digits, '.', '_' and '-'")
    return url


RegistryUrl = Annotated[Url, AfterValidator(_registry)]


class MirrorConfig(Section):
    """Where hosts download from instead of the official sites. Left out: from those."""

    artifacts: Url = Field(
        description="An HTTP tree with the official sites' paths and checksum files.",
        examples=["http://mirror.example.com:8080"],
    )
    images: RegistryUrl = Field(
        description="A registry with the images under their official names, such as registry.k8s.io/pause, "
        "or below a path: with https://harbor.example.com/proxy hosts ask for "
        "https://harbor.example.com/v2/proxy/registry.k8s.io/pause.",
        examples=["http://mirror.example.com:5000"],
    )
