"""The spans of an attempt: its phases and epochs. Made here, sent by the server, without any tracing library.

A worker that is killed leaves those that it had finished, since each goes out at once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dropnorm.results import EpochCompleted, EpochMetrics, Payload, Progressed
from dropnorm_service.workers.child.link import Link
from dropnorm_service.workers.messages import Span

_NANOSECONDS = 1e9
_EPOCHS = ("training", "validating")
"""Phases that belong to an epoch, and change too often to be told of one by one."""


class AttemptSpans:
    """Listens to what a training tells, and makes spans of it.

    Args:
        link: where they go.
        traceparent: the context that they belong to (W3C); None: nobody wants any, and nothing is done.
    """

    def __init__(self, link: Link, traceparent: str | None) -> None:
        self._link = link
        self._wanted = traceparent is not None
        _, self._trace, self._parent, _ = (traceparent or "---").split("-")
        self._phase = ""
        self._since = time.time_ns()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """What goes on within it when it ends, however it ends, is a span too."""
        try:
            yield
        except BaseException as error:
            self._end(type(error).__name__)
            raise
        self._end()

    def enter(self, phase: str) -> None:
        """Another phase begins, and the one before ends."""
        if phase != self._phase:
            self._end()
            self._phase, self._since = phase, time.time_ns()

    def hear(self, payload: Payload) -> None:
        """Take note of what the training tells."""
        if not self._wanted:
            return
        match payload:
            case Progressed(progress=progress):
                self.enter("epoch" if progress.phase in _EPOCHS else progress.phase)
            case EpochCompleted(metrics=metrics):
                self._end_epoch(metrics)

    def _end_epoch(self, metrics: EpochMetrics) -> None:
        now = time.time_ns()
        if _told(metrics.epoch):
            epoch = self._send("epoch", self._since, now, self._parent, epoch=metrics.epoch)
            judged = now - int(metrics.evaluation_seconds * _NANOSECONDS)
            trained = judged - int(metrics.seconds * _NANOSECONDS)
            self._send("training", max(self._since, trained), judged, epoch)
            self._send("validating", judged, now, epoch)
        self._phase, self._since = "epoch", now

    def _end(self, error: str = "") -> None:
        """End the phase; an epoch is ended by its own event, and is here one that came to no end."""
        if self._wanted and self._phase and (self._phase != "epoch" or error):
            self._send(self._phase, self._since, time.time_ns(), self._parent, error)
        self._phase = ""

    def _send(
        self, name: str, start: int, end: int, parent: str, error: str = "", **attributes: int
    ) -> str:
        identity = secrets.token_hex(8)
        span = Span(
            name=name,
            trace_id=self._trace,
            span_id=identity,
            parent_id=parent,
            start_ns=start,
            end_ns=max(start, end),
            attributes=attributes,
            error=error,
        )
        self._link.send(span)
        return identity


def _told(epoch: int) -> bool:
    """Whether an epoch has a span of its own: the first hundred, of the first thousand each tenth, and so on."""
    step: int = 10 ** max(0, len(str(epoch - 1)) - 2)
    return epoch % step == 0
