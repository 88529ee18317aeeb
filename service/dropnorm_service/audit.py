"""The audit log: who changed what, and who tried to. A logger of its own, `dropnorm.audit`."""

from __future__ import annotations

import logging
import time

LOGGER = "dropnorm.audit"

SERVICE = "service"
"""Who made a change that nobody asked for; such a record has neither a token nor a peer."""

_log = logging.getLogger(LOGGER)


def record(
    action: str, resource: str, outcome: str, *, user: str, token: str, peer: str, **more: object
) -> None:
    """One event.

    Args:
        action: what was asked for, the name of an rpc or of a command.
        resource: what it was about, as its caller named it, or as it was named once it was made.
        outcome: `OK`, or the status by which it was refused or failed.
        user: who asked; empty: nobody knows.
        token: the id of their token; empty: they had none.
        peer: from where.
        more: other fields.
    """
    fields = {
        "action": action,
        "resource": resource,
        "outcome": outcome,
        "user": user,
        "token": token,
        "peer": peer,
        **more,
    }
    _log.info("audit", extra=fields)


def record_own(action: str, resource: str, why: str) -> None:
    """One change that the service made by itself, which nobody asked for.

    Args:
        action: the rpc by which a caller would have made it.
        resource: what was changed.
        why: the reason.
    """
    record(action, resource, "OK", user=SERVICE, token="", peer="", why=why)


class Limiter:
    """Lets so many records of failed authentication pass that they cannot fill a disk.

    Args:
        burst: records that may come at once.
        rate: records a second after that.
    """

    def __init__(self, burst: int = 20, rate: float = 1.0) -> None:
        self._burst = burst
        self._rate = rate
        self._left = float(burst)
        self._then = time.monotonic()
        self._suppressed = 0

    def admit(self) -> int | None:
        """How many records were left out since the last one; None: leave this one out too."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._then) * self._rate)
        self._then = now
        if self._left < 1.0:
            self._suppressed += 1
            return None
        self._left -= 1.0
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
