"""The gRPC server beneath the edge, which no call can end.

grpcio (1.85 does) decodes the name of a called method where nobody handles that it is not UTF-8: the first stranger to
call such a name would end the server. Names of our own methods are registered with gRPC's core, which compares bytes.
So whatever else is called is a method that nobody has, and its name need not be looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server as aio

_UNKNOWN = "/unknown/unknown"


def make_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor], options: Sequence[tuple[str, Any]]
) -> grpc.aio.Server:
    """What `grpc.aio.server` makes, for services from generated code alone: those register their methods."""
    return cast(grpc.aio.Server, _Server(tuple(interceptors), tuple(options)))


class _Server(aio.Server):
    def __init__(
        self,
        interceptors: tuple[grpc.aio.ServerInterceptor, ...],
        options: tuple[tuple[str, Any], ...],
    ) -> None:
        # Not the base's own, which makes a core that cannot be taken back.
        self._loop = asyncio.get_running_loop()
        self._server = _Core(self._loop, None, (), interceptors, options, None)
        self._server.interceptors = interceptors


class _Nothing:
    """Finds no handler for any method."""

    def resolve_handler(self, details: object) -> None:
        """Called by gRPC."""


class _Core(cygrpc.AioServer):  # type: ignore[misc]  # has no stubs
    """Accepts calls of methods that are not registered by itself; gRPC's loop waits for the others."""

    interceptors: tuple[grpc.aio.ServerInterceptor, ...]

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
            answer = cygrpc._handle_rpc(_UNKNOWN, _Nothing(), self.interceptors, call, loop, False)
            task = loop.create_task(cygrpc._schedule_rpc_coro(answer, call, loop, _UNKNOWN))
            answering.add(task)
            task.add_done_callback(answering.discard)
