"""`python -m lab.plugins.kubernetes <engine address>`: the plugin's process."""

from __future__ import annotations

from typing import Any

from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime.proto import provider_pb2

from lab.plugins.common import serve
from lab.plugins.kubernetes.provider import Kubernetes

VERSION = "4.29.0"


class Servicer(ProviderServicer):
    """Adds what the SDK's server cannot say about a provider's configuration."""

    async def Configure(self, request: Any, context: Any) -> Any:
        """Claim to know about automatic names, so that the engine leaves them to the check."""
        response = await super().Configure(request, context)
        response.supports_autonaming_configuration = True
        return response

    async def DiffConfig(self, request: Any, context: Any) -> Any:
        """The differences by argument name only; the SDK's server leaves the verdict out."""
        response = await super().DiffConfig(request, context)
        response.hasDetailedDiff = False
        verdict = provider_pb2.DiffResponse
        response.changes = verdict.DIFF_SOME if response.diffs else verdict.DIFF_NONE
        return response


if __name__ == "__main__":
    serve(Kubernetes, VERSION, Servicer)
