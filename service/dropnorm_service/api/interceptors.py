"""What surrounds every call of dropnorm's own services: request id, access log, parsing, the error catalogue.

Requests arrive here as bytes, because a message gRPC itself cannot parse would be answered INTERNAL, and it is the
caller's mistake. Replies may leave as bytes already, so that a message many callers read is serialised once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from grpc.aio import AbortError, ServicerContext

from dropnorm.spec import Problem
from dropnorm_service.api.context import REQUEST_ID_HEADER, adopt_request_id, caller
from dropnorm_service.api.errors import to_status
from dropnorm_service.jobs.callers import LOCAL
from dropnorm_service.jobs.errors import InvalidRequest, ServiceError

log = logging.getLogger(__name__)

Handler = Any  # grpc.RpcMethodHandler is generic for type checkers alone
Parse = Callable[[bytes], Any]


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of dropnorm's services; health and reflection pass through."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The handler, wrapped."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/dropnorm."):
            return handler
        parse = handler.request_deserializer
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                _receiving(handler.stream_unary, parse, method), None, _serialize
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _streaming(handler.unary_stream, parse, method), None, _serialize
            )
        return grpc.unary_unary_rpc_method_handler(
            _unary(handler.unary_unary, parse, method), None, _serialize
        )


def _serialize(reply: Message | bytes) -> bytes:
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def _unary(behavior: Any, parse: Parse, method: str) -> Any:
    async def call(request: bytes, context: ServicerContext[Any, Any]) -> Any:
        async with _served(context, method):
            return await behavior(_parse(parse, request), context)

    return call


def _receiving(behavior: Any, parse: Parse, method: str) -> Any:
    async def call(requests: AsyncIterator[bytes], context: ServicerContext[Any, Any]) -> Any:
        async with _served(context, method):
            return await behavior((_parse(parse, each) async for each in requests), context)

    return call


def _streaming(behavior: Any, parse: Parse, method: str) -> Any:
    async def call(request: bytes, context: ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        async with _served(context, method):
            async for reply in behavior(_parse(parse, request), context):
                yield reply

    return call


def _parse(parse: Parse, request: bytes) -> Any:
    try:
        message = parse(request)
    except DecodeError as error:
        raise InvalidRequest.of(
            "", "the request is not a valid protobuf message of this method's type"
        ) from error
    # Of the request itself; what it holds is read strictly by `wire`.
    unknown = UnknownFieldSet(message)
    numbers = sorted({unknown[index].field_number for index in range(len(unknown))})
    if numbers:
        raise InvalidRequest(
            [
                Problem("", f"field number {number} is not known to this version of the service")
                for number in numbers
            ]
        )
    return message


@asynccontextmanager
async def _served(context: ServicerContext[Any, Any], method: str) -> AsyncIterator[None]:
    """One call: its id goes out with the reply, its end into the log, its error through the catalogue."""
    identity = adopt_request_id(context)
    context.set_trailing_metadata(((REQUEST_ID_HEADER, identity),))
    peer = context.peer()  # once the caller has gone, asking gRPC for it is no longer safe
    started = time.perf_counter()
    code = grpc.StatusCode.OK.name
    caller.set(LOCAL)
    try:
        yield
    except AbortError:
        code = _code_name(context.code())
        raise
    except (asyncio.CancelledError, GeneratorExit):
        code = grpc.StatusCode.CANCELLED.name
        raise
    except Exception as error:
        status = to_status(error, identity)
        code = _code_name(status.code)
        if not isinstance(error, ServiceError) and code == grpc.StatusCode.INTERNAL.name:
            log.exception("unexpected error", extra={"method": method})
        await context.abort(
            _CODES[status.code],
            status.message,
            (
                (REQUEST_ID_HEADER, identity),
                ("grpc-status-details-bin", status.SerializeToString()),
            ),
        )
    finally:
        log.log(
            logging.DEBUG if code == grpc.StatusCode.OK.name else logging.INFO,
            "call",
            extra={
                "method": method,
                "code": code,
                "milliseconds": round((time.perf_counter() - started) * 1e3, 3),
                "peer": peer,
            },
        )


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _code_name(code: Any) -> str:
    return code.name if isinstance(code, grpc.StatusCode) else _CODES[int(code or 0)].name
