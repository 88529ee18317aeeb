"""What belongs to one call: its request id, in every log record written while it is served, and its caller."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar
from typing import Any

import grpc

from dropnorm_service.jobs.callers import Caller

REQUEST_ID_HEADER = "x-request-id"

request_id: ContextVar[str] = ContextVar("request_id", default="")

caller: ContextVar[Caller] = ContextVar("caller")
"""Whom the call comes from; set before a servicer is entered, and not outside of calls."""

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")


def adopt_request_id(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The caller's own id where it is a plain token (it ends up in logs), otherwise a new one."""
    given = dict(context.invocation_metadata() or ()).get(REQUEST_ID_HEADER, "")
    text = given if isinstance(given, str) and _ACCEPTED.fullmatch(given) else uuid.uuid4().hex
    request_id.set(text)
    return text
