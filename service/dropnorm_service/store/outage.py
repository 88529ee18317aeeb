"""How long a database that is away is waited for."""

from __future__ import annotations

import asyncio
import time

_PAUSE = 0.2


class Outage:
    """The current outage of a database for one use of it, to write or to read, if there is one.

    A restart takes seconds, and whoever waits that long hears nothing of it. Later on each use is tried once and
    fails at once, so that nothing piles up.

    Args:
        patience: seconds from its beginning in which an outage is waited out.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None

    def over(self) -> None:
        """The database has done what was asked."""
        self._since = None

    async def wait(self) -> bool:
        """The database has failed: wait a moment, unless that has gone on for too long; whether to try again."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since >= self._patience:
            return False
        await asyncio.sleep(_PAUSE)
        return True
