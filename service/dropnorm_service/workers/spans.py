"""Traces, as the workers' side of the server knows them: somebody else makes and sends them."""

from __future__ import annotations

from typing import Protocol

from dropnorm_service.jobs.ports import Launch, Outcome
from dropnorm_service.workers.messages import Span


class AttemptTraces(Protocol):
    """Traces attempts. No method may raise, or wait."""

    def begin(self, launch: Launch) -> str | None:
        """An attempt begins: the context (W3C traceparent) for its worker's spans; None: nobody wants any."""

    def take(self, span: Span) -> None:
        """A worker has finished a span."""

    def end(self, launch: Launch, outcome: Outcome | None) -> None:
        """An attempt that had begun has ended; None: it was broken off."""


class NoTraces:
    """Nobody wants any."""

    def begin(self, launch: Launch) -> str | None:
        """See `AttemptTraces.begin`."""
        return None

    def take(self, span: Span) -> None:
        """See `AttemptTraces.take`."""

    def end(self, launch: Launch, outcome: Outcome | None) -> None:
        """See `AttemptTraces.end`."""
