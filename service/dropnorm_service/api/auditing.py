"""From calls to records of the audit log."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from functools import reduce
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from dropnorm_service import audit
from dropnorm_service.api.errors import code_of
from dropnorm_service.api.guard import Visitor
from dropnorm_service.jobs.errors import Unauthenticated
from dropnorm_service.unbroken import Undertaking

Reply = TypeVar("Reply")

_OK = grpc.StatusCode.OK.name
_INTERNAL = grpc.StatusCode.INTERNAL.name
_UNKNOWN = grpc.StatusCode.UNKNOWN.name
_MAX_RESOURCE_LENGTH = 200

log = logging.getLogger(__name__)


class Account:
    """What the audit log will be told of one call."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._path = visitor.rule.changes if visitor.rule else ""
        self._resource = ""
        self._rehearsal = False
        self._work: Undertaking[Any] | None = None

    def asks(self, request: Message) -> None:
        """Take from a request what it is about; of a stream, the first message says it."""
        if self._path and not self._resource:
            self._resource = str(reduce(getattr, self._path.split("."), request))
            self._rehearsal = getattr(request, "validate_only", False)

    async def witness(self, work: Coroutine[Any, Any, Reply]) -> Reply:
        """Have what was asked for carried out, what changes something to its end, though its caller may hang up.

        Args:
            work: the reply comes of it.
        """
        if not self._path:
            return await work
        undertaking = Undertaking(work)
        self._work = undertaking
        return await undertaking.through()

    def settle(self, outcome: str, peer: str, strangers: audit.Limiter) -> None:
        """Write the record, if the call is one for the audit log.

        Args:
            outcome: the status of the call, as its caller hears of it who is still there.
            peer: from where it came.
            strangers: how many records there may be of callers whom nobody knows.
        """
        visitor, more = self._visitor, {}
        changes = self._path and not self._rehearsal
        if not changes and not isinstance(visitor.refusal, Unauthenticated):
            return
        if visitor.caller is None:
            suppressed = strangers.admit()
            if suppressed is None:
                return
            more = {"suppressed": suppressed} if suppressed else {}
        else:
            outcome = self._came_of_it(outcome)
        audit.record(
            visitor.method.rpartition("/")[2],
            self._resource[:_MAX_RESOURCE_LENGTH],
            outcome,
            user=visitor.caller.user if visitor.caller else "",
            token=visitor.token.id if visitor.token else "",
            peer=peer,
            **more,
        )

    def _came_of_it(self, code: str) -> str:
        """The status of what was asked for, whose caller may have gone, or been sent away, before it was through."""
        if self._work is None or not (self._work.may_have_changed or code == _OK):
            return code
        task = self._work.task
        if not task.done() or task.cancelled():  # it was broken off halfway
            return _UNKNOWN
        if error := task.exception():
            came = code_of(error)
            if came == _INTERNAL != code:
                log.error("a change that nobody waits for any more failed", exc_info=error)
            return came
        self._answered(task.result())
        return _OK

    def _answered(self, reply: Message | bytes) -> None:
        """Take from a reply what the thing is called now."""
        message = reply if isinstance(reply, Message) else _parsed(reply, self._visitor.method)
        self._resource = getattr(message, "name", "") or self._resource


def _parsed(reply: bytes, method: str) -> Any:
    name = method[1:].replace("/", ".")
    described = descriptor_pool.Default().FindMethodByName(name)
    return message_factory.GetMessageClass(described.output_type).FromString(reply)
