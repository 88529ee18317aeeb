"""From calls to records of the audit log."""

from __future__ import annotations

from functools import reduce
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from dropnorm_service import audit
from dropnorm_service.api.guard import Visitor
from dropnorm_service.jobs.errors import Unauthenticated

_OK = grpc.StatusCode.OK.name
_MAX_RESOURCE_LENGTH = 200


class Account:
    """What the audit log will be told of one call."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._path = visitor.rule.changes if visitor.rule else ""
        self._resource = ""
        self._rehearsal = False

    def asks(self, request: Message) -> None:
        """Take from a request what it is about; of a stream, the first message says it."""
        if self._path and not self._resource:
            self._resource = str(reduce(getattr, self._path.split("."), request))
            self._rehearsal = getattr(request, "validate_only", False)

    def answers(self, reply: Message | bytes) -> None:
        """Take from a reply what the thing is called now."""
        if not self._path:
            return
        message = reply if isinstance(reply, Message) else _parsed(reply, self._visitor.method)
        self._resource = getattr(message, "name", "") or self._resource

    def settle(self, outcome: str, peer: str, strangers: audit.Limiter) -> None:
        """Write the record, if the call is one for the audit log.

        Args:
            outcome: the status of the call.
            peer: from where it came.
            strangers: how many records there may be of callers whom nobody knows.
        """
        visitor, more = self._visitor, {}
        if isinstance(visitor.refusal, Unauthenticated):
            suppressed = strangers.admit()
            if suppressed is None:
                return
            more = {"suppressed": suppressed} if suppressed else {}
        elif not self._path or self._rehearsal:
            return
        audit.record(
            visitor.method.rpartition("/")[2],
            self._resource[:_MAX_RESOURCE_LENGTH],
            outcome,
            user=visitor.caller.user if visitor.caller else "",
            token=visitor.token.id if visitor.token else "",
            peer=peer,
            **more,
        )


def _parsed(reply: bytes, method: str) -> Any:
    name = method[1:].replace("/", ".")
    described = descriptor_pool.Default().FindMethodByName(name)
    return message_factory.GetMessageClass(described.output_type).FromString(reply)
