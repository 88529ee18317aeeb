"""What a failed call carries: the details of its google.rpc.Status."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from dropnorm.spec import Problem

AnyMessage = TypeVar("AnyMessage", bound=Message)


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    return status_pb2.Status.FromString(packed)


def details(status: status_pb2.Status, kind: type[AnyMessage]) -> list[AnyMessage]:
    found = []
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found


def violations(status: status_pb2.Status) -> list[Problem]:
    [bad] = details(status, error_details_pb2.BadRequest)
    return [Problem(each.field, each.description) for each in bad.field_violations]


async def failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """How a call failed."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def refused(call: Awaitable[Any]) -> list[str]:
    """The fields that an INVALID_ARGUMENT blames."""
    error = await failure(call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    return [problem.field for problem in violations(status_of(error))]
