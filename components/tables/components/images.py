"""Images that several components have, or that are named alike."""

from __future__ import annotations

from components.tables.components.row import Image

__all__ = ["PYTHON_IMAGE", "kubernetes_image"]


def kubernetes_image(name: str) -> Image:
    """The release's own image of a component of that name."""
    return Image(
        key=name,
        reference=f"registry.k8s.io/{name}:v${{kubernetes}}",
        example=f"registry.example.com/{name}:fix1",
    )


PYTHON_IMAGE = Image(
    key="pod-checkpointer",
    title="the pod-checkpointer, any with Python 3.11 or newer",
    reference="docker.io/library/python:${python}",
    example="docker.io/library/python:3.12-slim-bookworm",
)
