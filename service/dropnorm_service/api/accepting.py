"""The gRPC server beneath the edge, which no call can end.

grpcio (1.85 does) decodes the name of a called method where nobody handles that it is not UTF-8: the first stranger to
call such a name would end the server. Names of our own methods are registered with gRPC's core, which compares bytes.
So whatever else is called is a method that nobody has, and its name need not be looked at.

It goes by names inside grpcio; tests/e2e/test_secured.py shows whether another version still has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import grpc

cygrpc: Any = import_module("grpc._cython.cygrpc")  # it has no stubs

_UNKNOWN = "/unknown/unknown"


def make_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor], options: Sequence[tuple[str, Any]]
) -> grpc.aio.Server:
    """What `grpc.aio.server` makes, for services from generated code alone: those register their methods."""
    plain, cygrpc.AioServer = cygrpc.AioServer, _Core  # its arguments are gRPC's own affair
    try:
        return grpc.aio.server(interceptors=interceptors, options=options)
    finally:
        cygrpc.AioServer = plain


class _Nothing:
    """Finds no handler for any method."""

    def resolve_handler(self, details: object) -> None:
        """Called by gRPC."""


class _Core(cygrpc.AioServer):  # type: ignore[misc]  # has no stubs
    """Accepts calls of methods that are not registered by itself; gRPC's loop waits for the others."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: None,
        handlers: Sequence[grpc.GenericRpcHandler],
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        *others: Any,
    ) -> None:
        super().__init__(loop, threads, handlers, interceptors, *others)
        self._before_all = tuple(interceptors)

    def _make_request_call_future(self, method: bytes | None) -> Any:
        """Called by gRPC's loop, for each registered method and, with None, for what is not registered."""
        if method is not None:
            return super()._make_request_call_future(method)
        return asyncio.create_task(self._refuse_unknown(), name="unknown methods")

    async def _refuse_unknown(self) -> None:
        """Answer UNIMPLEMENTED until gRPC's loop ends this, or accepts nothing more."""
        loop = asyncio.get_running_loop()
        answering: set[asyncio.Task[None]] = set()
        while True:
            call = await self._request_call()
            answer = cygrpc._handle_rpc(_UNKNOWN, _Nothing(), self._before_all, call, loop, False)
            task = loop.create_task(cygrpc._schedule_rpc_coro(answer, call, loop, _UNKNOWN))
            answering.add(task)
            task.add_done_callback(answering.discard)
