"""Config of container images to use instead of a release's."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from components.config.base import DERIVED, Section, component_name

__all__ = ["ImagesConfig"]

_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
# Without a dot or a port it would be the first part of a path.
_HOST = rf"((localhost|{_LABEL}(\.{_LABEL})+)(:[0-9]+)?|{_LABEL}:[0-9]+)"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_TAG = r":\w[\w.-]{0,127}"
_DIGEST = r"@sha256:[0-9a-f]{64}"
_REFERENCE = re.compile(rf"({_HOST}/)?{_PART}(/{_PART})*({_TAG}({_DIGEST})?|{_DIGEST})", re.ASCII)


def _image_reference(text: str) -> str:
    """Returns the text if it names one image, by tag or digest; ValueError with the mend if not."""
    if not _REFERENCE.fullmatch(text):
        raise ValueError(
            "use an image reference with a tag or a digest, for example "
            "registry.example.com/coredns/coredns:v1.14.2"
        )
    return text


ImageReference = Annotated[str, AfterValidator(_image_reference)]


def _image(name: str, example: str) -> Any:
    return Field(
        default=None,
        description=f"The image of {name}, with a tag or a digest.",
        examples=[example],
        json_schema_extra={DERIVED: "the release's"},
    )


class ImagesConfig(Section):
    """Images to use instead of the release's. A mirror is asked for those of the release's registries."""

    model_config = ConfigDict(alias_generator=component_name)

    kube_apiserver: ImageReference | None = _image(
        "kube-apiserver", "registry.example.com/kube-apiserver:v1.36.3-fix1"
    )
    kube_controller_manager: ImageReference | None = _image(
        "kube-controller-manager", "registry.example.com/kube-controller-manager:v1.36.3-fix1"
    )
    kube_scheduler: ImageReference | None = _image(
        "kube-scheduler", "registry.example.com/kube-scheduler:v1.36.3-fix1"
    )
    kube_proxy: ImageReference | None = _image("kube-proxy", "registry.example.com/kube-proxy:v1.36.3-fix1")
    coredns: ImageReference | None = _image("CoreDNS", "registry.example.com/coredns:v1.14.2")
    flannel: ImageReference | None = _image("flannel", "registry.example.com/flannel:v0.26.7")
    flannel_cni: ImageReference | None = _image(
        "flannel's CNI plugin, with BusyBox", "registry.example.com/flannel-cni-plugin:v1.6.2-flannel1"
    )
    pod_checkpointer: ImageReference | None = _image(
        "the pod-checkpointer, any with Python 3.11 or newer", "docker.io/library/python:3.12-slim-bookworm"
    )
