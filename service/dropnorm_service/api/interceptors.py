"""What surrounds every call: its caller and request id, the logs, parsing, the error catalogue.

Requests arrive here as bytes, because a message gRPC itself cannot parse would be answered INTERNAL, and it is the
caller's mistake. Replies may leave as bytes already, so that a message many callers read is serialised once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from grpc.aio import AbortError, ServicerContext

from dropnorm.wire import unknown_fields
from dropnorm_service import audit
from dropnorm_service.api.auditing import Account
from dropnorm_service.api.authorization import authorize
from dropnorm_service.api.context import REQUEST_ID_HEADER, adopt_request_id, caller
from dropnorm_service.api.errors import to_status
from dropnorm_service.api.guard import Guard, Visitor
from dropnorm_service.api.observers import Ended, Observers
from dropnorm_service.jobs.errors import InvalidRequest, ServiceError, Unauthenticated
from dropnorm_service.jobs.limits import Places, call_places
from dropnorm_service.turns import Turns

log = logging.getLogger(__name__)

DEFAULT_MAX_CALLS = 10_000

_IDLE = 60.0  # seconds without a request after which a conversation ends
_MOST_UNKNOWN = 16 * 2**10  # bytes

Context = ServicerContext[Any, Any]
Handler = Any  # grpc.RpcMethodHandler is generic for type checkers alone
Parse = Callable[[bytes], Any]


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler but those that anybody may call.

    Args:
        guard: knows the callers.
        observers: look on.
        max_calls: served at once, but for those that anybody may make.
    """

    def __init__(
        self,
        guard: Guard | None = None,
        observers: Observers | None = None,
        max_calls: int = DEFAULT_MAX_CALLS,
    ) -> None:
        self._guard = guard or Guard()
        self._observers = observers or Observers()
        self._strangers = audit.Limiter()
        self._turns = Turns()
        self._places = call_places(max_calls)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The handler, wrapped."""
        handler = await continuation(handler_call_details)
        if handler is None:
            self._observers.unknown()
            return handler
        visitor = await self._guard.visitor(
            handler_call_details.method, handler_call_details.invocation_metadata or ()
        )
        if visitor.caller is None and visitor.refusal is None:
            return handler
        edge = _Edge(
            handler,
            visitor,
            self._guard,
            self._strangers,
            self._observers,
            self._turns,
            self._places,
        )
        if visitor.refusal is not None:  # whatever it asks for: not a byte of it is read
            return grpc.stream_unary_rpc_method_handler(edge.refuse, None, _serialize)
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(edge.converse, None, _serialize)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(edge.receive, None, _serialize)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(edge.stream, None, _serialize)
        return grpc.unary_unary_rpc_method_handler(edge.answer, None, _serialize)


class _Edge:
    """One call of a handler, in each of the four forms that a method may have."""

    def __init__(
        self,
        handler: Handler,
        visitor: Visitor,
        guard: Guard,
        strangers: audit.Limiter,
        observers: Observers,
        turns: Turns,
        places: Places,
    ) -> None:
        self._handler = handler
        self._visitor = visitor
        self._guard = guard
        self._strangers = strangers
        self._observers = observers
        self._turns = turns
        self._places = places

    async def refuse(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async with self._served(context):
            assert self._visitor.refusal is not None
            raise self._visitor.refusal

    async def answer(self, request: bytes, context: Context) -> Any:
        async with self._served(context) as account, self._guard.leash(self._visitor):
            reply = await self._handler.unary_unary(self._read(request, account), context)
            account.answers(reply)
            return reply

    async def receive(self, requests: AsyncIterator[bytes], context: Context) -> Any:
        async with self._served(context) as account, self._guard.leash(self._visitor):
            self._authorize()  # who may not call it need not send anything to hear so
            reply = await self._handler.stream_unary(self._each(requests, account), context)
            account.answers(reply)
            return reply

    # Replies are written, not yielded: so it is always this coroutine that waits, and can be cut off.

    async def stream(self, request: bytes, context: Context) -> None:
        await self._turns.mine()  # hundreds may begin at once
        async with self._served(context) as account, self._guard.leash(self._visitor):
            await self._tell(
                self._handler.unary_stream(self._read(request, account), context), context
            )

    async def converse(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async with self._served(context) as account, self._guard.leash(self._visitor):
            self._authorize()
            asked = self._each(_until_idle(requests), account)
            await self._tell(self._handler.stream_stream(asked, context), context)

    async def _tell(self, replies: AsyncGenerator[Any, None], context: Context) -> None:
        async with aclosing(replies):
            async for reply in replies:
                await self._turns.mine()
                await context.write(reply)

    def _served(self, context: Context) -> AbstractAsyncContextManager[Account]:
        handler = self._handler
        ended = self._observers.began(
            self._visitor.method,
            dict(context.invocation_metadata() or ()),
            lasting=handler.request_streaming or handler.response_streaming,
        )
        return _served(context, self._visitor, self._strangers, ended, self._places)

    def _read(self, request: bytes, account: Account) -> Any:
        message = _parse(self._handler.request_deserializer, request)
        account.asks(message)
        self._authorize()
        return message

    async def _each(self, requests: AsyncIterator[bytes], account: Account) -> AsyncIterator[Any]:
        async for request in requests:
            yield self._read(request, account)

    def _authorize(self) -> None:
        visitor = self._visitor
        assert visitor.caller is not None
        assert visitor.rule is not None
        authorize(visitor.caller, visitor.rule, visitor.method)


async def _until_idle(requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What is asked in a conversation, which is over when nothing has been asked for long."""
    waiting = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(_IDLE):
                request = await anext(waiting, None)
        except TimeoutError:
            return
        if request is None:
            return
        yield request


def _serialize(reply: Message | bytes) -> bytes:
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def _parse(parse: Parse, request: bytes) -> Any:
    try:
        message = parse(request)
    except DecodeError as error:
        raise InvalidRequest.of(
            "", "the request is not a valid protobuf message of this method's type"
        ) from error
    _refuse_unknown(message, len(request))
    return message


def _refuse_unknown(message: Message, size: int) -> None:
    """Refuse fields of the request itself that are unknown; what it holds is read strictly by `wire`.

    To name each takes 5 us, and a request may have millions of them.
    """
    if size > _MOST_UNKNOWN and (unknown := _unknown_bytes(message)) > _MOST_UNKNOWN:
        text = f"{unknown:,} bytes of it are of fields that are not known to this version of the service"
        raise InvalidRequest.of("", text)
    if problems := unknown_fields(message, ""):
        raise InvalidRequest(problems)


def _unknown_bytes(message: Message) -> int:
    """Of all that a message holds."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return message.ByteSize() - known.ByteSize()


@asynccontextmanager
async def _served(
    context: Context,
    visitor: Visitor,
    strangers: audit.Limiter,
    ended: Ended,
    places: Places,
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
        with places.taken("service"):
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
        # Strangers could fill the disk by it; the audit log counts them.
        quiet = code == grpc.StatusCode.OK.name or isinstance(visitor.refusal, Unauthenticated)
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
        await context.abort(_CODES[failure.code], failure.message, trailers)


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _code_name(code: Any) -> str:
    return code.name if isinstance(code, grpc.StatusCode) else _CODES[int(code or 0)].name
