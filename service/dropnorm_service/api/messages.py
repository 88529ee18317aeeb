"""Requests as they come: waited for no longer than some time, weighed before they are parsed, and parsed strictly.

They arrive here as bytes, because a message gRPC itself cannot parse would be answered INTERNAL, and it is the
caller's mistake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from dropnorm.wire import unknown_fields
from dropnorm_service.jobs.errors import InvalidRequest

IDLE = 60.0
"""Seconds within which the message of a call has to be there, and the next one of a conversation."""

_MOST_UNKNOWN = 16 * 2**10  # bytes

Parse = Callable[[bytes], Any]


async def the_message(context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """The one message of a call.

    Raises:
        InvalidRequest: it does not come.
    """
    try:
        async with asyncio.timeout(IDLE):
            message = await context.read()
    except TimeoutError:
        text = f"the message of the call has not come within {IDLE:g} seconds; call again"
        raise InvalidRequest.of("", text) from None
    if message is grpc.aio.EOF:
        raise InvalidRequest.of("", "the call has no message; a call of this method has one")
    assert isinstance(message, bytes)
    return message


async def until_idle(requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What is asked in a conversation, which is over when nothing has been asked for long."""
    waiting = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(IDLE):
                request = await anext(waiting, None)
        except TimeoutError:
            return
        if request is None:
            return
        yield request


def parsed(parse: Parse, request: bytes, largest: int) -> Any:
    """A message.

    Args:
        parse: makes it of its bytes.
        request: its bytes.
        largest: how many it may have.

    Raises:
        InvalidRequest: it is larger, is none of its type, or has fields that nobody knows.
    """
    if len(request) > largest:
        text = f"the request has {len(request):,} bytes, and one of this method has at most {largest:,}; send less"
        raise InvalidRequest.of("", text)
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
