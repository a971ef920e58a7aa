"""The gRPC side: answers that the SDK's server cannot give as the official plugin does."""

from __future__ import annotations

from typing import Any

from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime.proto import provider_pb2


class Servicer(ProviderServicer):
    """The SDK's server, put right in Configure, DiffConfig and Read."""

    async def Configure(self, request: Any, context: Any) -> Any:
        """Claim to know about automatic names, so that the engine leaves them to the check."""
        response = await super().Configure(request, context)
        response.supports_autonaming_configuration = True
        return response

    async def DiffConfig(self, request: Any, context: Any) -> Any:
        """Give the verdict too. The differences are by argument only, without detail."""
        response = await super().DiffConfig(request, context)  # type: ignore[no-untyped-call]
        response.hasDetailedDiff = False
        verdict = provider_pb2.DiffResponse
        response.changes = verdict.DIFF_SOME if response.diffs else verdict.DIFF_NONE
        return response

    async def Read(self, request: Any, context: Any) -> Any:
        """Leave state and inputs out for an object that is gone."""
        response = await super().Read(request, context)  # type: ignore[no-untyped-call]
        return response if response.id else provider_pb2.ReadResponse()
