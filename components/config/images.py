"""Config of container images to use instead of a release's."""

from __future__ import annotations

import re
from dataclasses import asdict
from string import Template
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, create_model

from components.assets.networks import NETWORKS
from components.config.base import DERIVED, ByComponent
from components.config.releases import Release
from components.tables.components import WORKLOADS, Image

__all__ = ["IMAGES", "REPOSITORY", "ImageReference", "ImagesConfig", "release_images"]

_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
# Without a dot or a port it would be the first part of a path.
_HOST = rf"((localhost|{_LABEL}(\.{_LABEL})+)(:[0-9]{{1,5}})?|{_LABEL}:[0-9]{{1,5}})"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = rf"{_PART}(/{_PART})*"
"""What a registry knows images by, as a regular expression."""
_TAG = r":\w[\w.-]{0,127}"
_DIGEST = r"@sha256:[0-9a-f]{64}"
_REFERENCE = re.compile(rf"({_HOST}/)?{REPOSITORY}({_TAG}({_DIGEST})?|{_DIGEST})", re.ASCII)


def _image_reference(text: str) -> str:
    """Returns the text if it names one image, by tag or digest; ValueError with the mend if not."""
    port = re.match(r"[^/]*:([0-9]+)/", text)
    if not _REFERENCE.fullmatch(text) or (port and not 1 <= int(port[1]) <= 65535):
        raise ValueError(
            "use an image reference with a tag or a digest, for example "
            "registry.example.com/coredns/coredns:v1.14.2"
        )
    return text


ImageReference = Annotated[str, AfterValidator(_image_reference)]


IMAGES: dict[str, Image] = {
    image.key: image
    for workload in (*WORKLOADS, *(network.workload for network in NETWORKS.values()))
    for image in workload.images
}
"""Every image that may be named, by its key."""


def release_images(release: Release) -> dict[str, str]:
    """References of all of them in a release, by the same keys."""
    versions = asdict(release)
    return {key: Template(image.reference).substitute(versions) for key, image in IMAGES.items()}


def _field(image: Image) -> tuple[Any, Any]:
    return ImageReference | None, Field(
        default=None,
        description=f"The image of {image.title or image.key}, with a tag or a digest.",
        examples=[image.example],
        json_schema_extra={DERIVED: "the release's"},
    )


_DOC = """Images to use instead of the release's. A mirror is asked for those of the release's registries."""

# To a type checker a model that is made is a value, not a type.
if TYPE_CHECKING:
    ImagesConfig = ByComponent
else:
    ImagesConfig = create_model(
        "ImagesConfig",
        __base__=ByComponent,
        __doc__=_DOC,
        **{key.replace("-", "_"): _field(image) for key, image in IMAGES.items()},
    )
