"""How others look on while calls are served: what they measure and trace is no business of the edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

Ended = Callable[[str], None]
"""To be called once with the name of the status that a call ended with."""

Headers = Mapping[str, str | bytes]
"""A call's metadata; of a key that came more than once, the last."""


class CallObserver(Protocol):
    """Looks on. No method may raise, or wait."""

    def began(self, method: str, headers: Headers, *, lasting: bool) -> Ended:
        """A call begins; runs in its context, so that variables set here are seen by all that serves it.

        Args:
            method: full name, `/dropnorm.v1.Service/Method`; always one that there is.
            headers: its metadata.
            lasting: the caller decides how long it takes: it uploads, or watches.
        """

    def unknown(self) -> None:
        """A method was called that there is not."""

    def received(self, size: int) -> None:
        """So many bytes of an upload have come."""


class Observers:
    """Several of them as one; none cost next to nothing."""

    def __init__(self, observers: Sequence[CallObserver] = ()) -> None:
        self._observers = tuple(observers)

    def began(self, method: str, headers: Headers, *, lasting: bool) -> Ended:
        """See `CallObserver.began`."""
        ends = [each.began(method, headers, lasting=lasting) for each in self._observers]

        def ended(code: str) -> None:
            for end in ends:
                end(code)

        return ended

    def unknown(self) -> None:
        """See `CallObserver.unknown`."""
        for each in self._observers:
            each.unknown()

    def received(self, size: int) -> None:
        """See `CallObserver.received`."""
        for each in self._observers:
            each.received(size)
