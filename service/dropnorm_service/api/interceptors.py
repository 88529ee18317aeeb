"""What surrounds every call: its caller and request id, its place, the logs, its message, the error catalogue.

A method of one request is served as if it took a stream of them: so the call has its caller, its place and its end
before its message is waited for, and gRPC takes in no more than a first part of it until then. Callers see no
difference. Replies may leave as bytes already, so that a message many callers read is serialised once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc.aio import AbortError, ServicerContext

from dropnorm_service import audit
from dropnorm_service.api.auditing import Account
from dropnorm_service.api.authorization import authorize
from dropnorm_service.api.context import REQUEST_ID_HEADER, adopt_request_id, caller
from dropnorm_service.api.errors import CODES, to_status
from dropnorm_service.api.guard import Guard, Visitor
from dropnorm_service.api.messages import parsed, the_message, until_idle
from dropnorm_service.api.observers import Ended, Observers
from dropnorm_service.api.places import CallLimits, CallPlaces, Doorstep, Lines
from dropnorm_service.jobs.errors import ServiceError
from dropnorm_service.turns import Turns

log = logging.getLogger(__name__)

Context = ServicerContext[Any, Any]
Handler = Any  # grpc.RpcMethodHandler is generic for type checkers alone


@dataclass(frozen=True)
class _Common:
    """What all calls have in common."""

    guard: Guard
    observers: Observers
    places: CallPlaces
    lines: Lines = field(default_factory=Lines)
    doorstep: Doorstep = field(default_factory=Doorstep)
    turns: Turns = field(default_factory=Turns)
    strangers: audit.Limiter = field(default_factory=audit.Limiter)


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler.

    Args:
        guard: knows the callers.
        observers: look on.
        limits: of calls at once.
    """

    def __init__(
        self,
        guard: Guard | None = None,
        observers: Observers | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        places = CallPlaces(limits or CallLimits())
        self._common = _Common(guard or Guard(), observers or Observers(), places)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The handler, wrapped."""
        handler = await continuation(handler_call_details)
        if handler is None:
            self._common.observers.unknown()
            return handler
        visitor = await self._common.guard.visitor(
            handler_call_details.method, handler_call_details.invocation_metadata or ()
        )
        edge = _Edge(handler, visitor, self._common)
        if visitor.refusal is not None:  # whatever it asks for: not a byte of it is read
            return grpc.stream_unary_rpc_method_handler(edge.refuse, None, _serialize)
        if visitor.stranger:
            return grpc.stream_stream_rpc_method_handler(edge.greet, None, _serialize)
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(edge.converse, None, _serialize)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(edge.receive, None, _serialize)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(edge.stream, None, _serialize)
        return grpc.stream_unary_rpc_method_handler(edge.answer, None, _serialize)


class _Edge:
    """One call of a handler: of one that nobody may make, of one that anybody may, or in each of the four forms."""

    def __init__(self, handler: Handler, visitor: Visitor, common: _Common) -> None:
        self._handler = handler
        self._visitor = visitor
        self._common = common

    async def refuse(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async with self._served(context):
            assert self._visitor.refusal is not None
            raise self._visitor.refusal

    async def greet(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async with self._served(context) as account:
            async with self._common.doorstep.stepped_on():
                request = self._parse(await the_message(context), account)
                if not self._handler.response_streaming:
                    # Written here, and not returned: so it is also at the doorstep that one does not listen.
                    await context.write(await self._handler.unary_unary(request, context))
                    return
            await self._tell(self._handler.unary_stream(request, context), context)

    async def answer(self, requests: AsyncIterator[bytes], context: Context) -> Any:
        async with self._served(context) as account, self._common.guard.leash(self._visitor):
            request = await self._asked(context, account)
            return await account.witness(self._handler.unary_unary(request, context))

    async def receive(self, requests: AsyncIterator[bytes], context: Context) -> Any:
        async with self._served(context) as account, self._common.guard.leash(self._visitor):
            self._authorize()  # who may not call it need not send anything to hear so
            asked = self._each(requests, account)
            return await account.witness(self._handler.stream_unary(asked, context))

    # Replies are written, not yielded: so it is always this coroutine that waits, and can be cut off.

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        await self._common.turns.mine()  # hundreds may begin at once
        async with self._served(context) as account, self._common.guard.leash(self._visitor):
            request = await self._asked(context, account)
            await self._tell(self._handler.unary_stream(request, context), context)

    async def converse(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async with self._served(context) as account, self._common.guard.leash(self._visitor):
            self._authorize()
            asked = self._each(until_idle(requests), account)
            await self._tell(self._handler.stream_stream(asked, context), context)

    async def _tell(self, replies: AsyncGenerator[Any, None], context: Context) -> None:
        async with aclosing(replies):
            async for reply in replies:
                await self._common.turns.mine()
                await context.write(reply)

    def _served(self, context: Context) -> AbstractAsyncContextManager[Account]:
        handler = self._handler
        ended = self._common.observers.began(
            self._visitor.method,
            dict(context.invocation_metadata() or ()),
            lasting=handler.request_streaming or handler.response_streaming,
        )
        return _served(context, self._visitor, self._common.strangers, ended, self._place)

    def _place(self, context: Context) -> None:
        """Take the call's place, which is free again when the last of its reply has gone out.

        Raises:
            LimitReached: there is none.
        """
        if self._visitor.caller is None:  # it is refused, or has its place at the doorstep
            return
        place = ExitStack()
        sending = self._handler.request_streaming
        place.enter_context(self._common.places.serving(self._visitor.caller, sending=sending))
        free: Any = lambda _: place.close()  # noqa: E731 - its type in the stubs is one that nothing has
        context.add_done_callback(free)

    async def _asked(self, context: Context, account: Account) -> Any:
        """The one message of a call, of somebody who may send it."""
        assert self._visitor.caller is not None
        async with self._common.lines.passed(self._visitor.caller):
            message = self._parse(await the_message(context), account)
        await self._common.guard.confirm(self._visitor)
        self._authorize()
        return message

    async def _each(self, requests: AsyncIterator[bytes], account: Account) -> AsyncIterator[Any]:
        confirmed = False
        async for request in requests:
            message = self._parse(request, account)
            if not confirmed:
                await self._common.guard.confirm(self._visitor)
                confirmed = True
            yield message

    def _parse(self, request: bytes, account: Account) -> Any:
        assert self._visitor.rule is not None
        message = parsed(self._handler.request_deserializer, request, self._visitor.rule.largest)
        account.asks(message)
        return message

    def _authorize(self) -> None:
        visitor = self._visitor
        assert visitor.caller is not None
        assert visitor.rule is not None
        authorize(visitor.caller, visitor.rule, visitor.method)


def _serialize(reply: Message | bytes) -> bytes:
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


@asynccontextmanager
async def _served(
    context: Context,
    visitor: Visitor,
    strangers: audit.Limiter,
    ended: Ended,
    place: Callable[[Context], None],
) -> AsyncIterator[Account]:
    """One call: its id goes out with the reply, its end into the logs, its error through the catalogue."""
    identity = adopt_request_id(context)
    if visitor.caller is not None:
        caller.set(visitor.caller)
    context.set_trailing_metadata(((REQUEST_ID_HEADER, identity),))
    peer = context.peer()  # once the caller has gone, asking gRPC for it is no longer safe
    started = time.perf_counter()
    code = grpc.StatusCode.OK.name
    account = Account(visitor)
    failure: status_pb2.Status | None = None
    try:
        place(context)
        yield account
    except AbortError:
        code = _code_name(context.code())
        raise
    except (asyncio.CancelledError, GeneratorExit):
        code = grpc.StatusCode.CANCELLED.name
        raise
    except Exception as error:
        failure = to_status(error, identity)
        code = _code_name(failure.code)
        if not isinstance(error, ServiceError) and code == grpc.StatusCode.INTERNAL.name:
            log.exception("unexpected error", extra={"method": visitor.method})
    finally:  # before the caller hears of it
        ended(code)
        # Strangers could fill the disk by it; the audit log and the metrics count them.
        quiet = code == grpc.StatusCode.OK.name or visitor.caller is None
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "call",
            extra={
                "method": visitor.method,
                "code": code,
                "user": visitor.caller.user if visitor.caller else "",
                "milliseconds": round((time.perf_counter() - started) * 1e3, 3),
                "peer": peer,
            },
        )
        account.settle(code, peer, strangers)
    if failure is not None:
        trailers = (
            (REQUEST_ID_HEADER, identity),
            ("grpc-status-details-bin", failure.SerializeToString()),
        )
        await context.abort(CODES[failure.code], failure.message, trailers)


def _code_name(code: Any) -> str:
    return code.name if isinstance(code, grpc.StatusCode) else CODES[int(code or 0)].name
