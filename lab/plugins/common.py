"""What the stand-in plugins share: serving, errors as the user sees them, unknown values, the engine's log.

A plugin is a `Provider` whose constructor takes an `EngineLog`, started by `serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc.aio
from google.protobuf.message import Message
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.provider import Provider
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime import rpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2_grpc, status_pb2

UNKNOWN = rpc.UNKNOWN
"""How a value that is not known yet looks in a preview: the SDK leaves the marker as a plain string."""

MESSAGE_LIMIT = 400 * 1024 * 1024
"""Bytes of one message; the engine's own limit."""


class ProviderError(Exception):
    """An error whose text reaches the user as it stands.

    `details` tells the engine more, such as what there is of a resource that was made only half.
    """

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        details: Message | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.details = details

    @property
    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The details as gRPC carries them."""
        if self.details is None:
            return ()
        status = status_pb2.Status(code=self.code.value[0], message=str(self))
        status.details.add().Pack(self.details)
        return (("grpc-status-details-bin", status.SerializeToString()),)


class EngineLog:
    """Writes messages about a resource to the engine at `address`; without an address they are dropped."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._stub: Any = None

    async def status(self, urn: str, message: str) -> None:
        """Show `message` beside the resource until the next one takes its place."""
        await self._log(severity=engine_pb2.INFO, message=message, urn=urn, ephemeral=True)

    async def warn(self, urn: str, message: str) -> None:
        """Show a warning about the resource, which stays."""
        await self._log(severity=engine_pb2.WARNING, message=message, urn=urn)

    async def _log(self, **message: Any) -> None:
        if self._address is None:
            return
        if self._stub is None:
            self._stub = engine_pb2_grpc.EngineStub(grpc.aio.insecure_channel(self._address))
        await self._stub.Log(engine_pb2.LogRequest(**message))


def resource_type(urn: str) -> str:
    """The type token in a URN, without the types of the parents that stand before it."""
    return urn.split("::")[-2].rsplit("$", 1)[-1]


def plain(value: PropertyValue) -> Any:
    """`value` as plain Python, secrets unwrapped; what is unknown is `UNKNOWN`."""
    inner = value.value
    if isinstance(inner, Mapping):
        return {key: plain(item) for key, item in inner.items()}
    if isinstance(inner, Sequence) and not isinstance(inner, str):
        return [plain(item) for item in inner]
    return inner


def property_value(value: Any, *, secret: bool = False) -> PropertyValue:
    """Plain Python as a property value."""
    if isinstance(value, Mapping):
        return PropertyValue({key: property_value(item) for key, item in value.items()}, is_secret=secret)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return PropertyValue([property_value(item) for item in value], is_secret=secret)
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return PropertyValue(value, is_secret=secret)


class _Errors(grpc.aio.ServerInterceptor):
    """Gives a ProviderError its code and text, where gRPC would print a traceback and name the class."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        method = handler.unary_unary

        async def call(request: Any, context: Any) -> Any:
            try:
                answer = method(request, context)
                return await answer if inspect.isawaitable(answer) else answer
            except NotImplementedError as error:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, str(error))
            except Exception as error:
                # The SDK raises one of its own in its place, whose text has the traceback.
                meant = error.__context__
                if not isinstance(meant, ProviderError):
                    raise
                await context.abort(meant.code, str(meant), meant.metadata)

        return grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


async def start(provider: Provider, version: str) -> tuple[grpc.aio.Server, int]:
    """Serve `provider` on a free loopback port; the running server and its port."""
    options = [
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ]
    server = grpc.aio.server(interceptors=[_Errors()], options=options)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(
        ProviderServicer([], version, provider, engine_address=""), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def serve(make: Callable[[EngineLog], Provider], version: str) -> None:
    """The plugin's process: serve until the engine ends it, and end when the engine is gone.

    The engine kills a plugin's process group when it is done. An engine that was itself killed cannot, so
    that its death is watched here: commands that nobody waits for must not go on changing hosts.
    """
    arguments = argparse.ArgumentParser()
    arguments.add_argument("engine", nargs="?", help="address of the engine, for log messages")
    address = arguments.parse_known_args()[0].engine
    engine = os.pidfd_open(os.getppid())

    async def run() -> None:
        provider = make(EngineLog(address))
        server, port = await start(provider, version)
        print(port, flush=True)
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(engine, gone.set)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, gone.set)
        await gone.wait()
        await provider.cancel()
        await server.stop(grace=None)

    asyncio.run(run())
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
