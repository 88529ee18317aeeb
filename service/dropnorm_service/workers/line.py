"""The line before a process that answers one request after the other: users take turns, whoever asks most."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Line:
    """Lets one through at a time: the users who wait in turn, and of each user who came first.

    So a user waits for one request of each other user who waits, and not for all that one of them has asked.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # in the order of the turns
        self._served: str | None = None  # whose turn it is now; None: nobody's, and nobody waits

    @asynccontextmanager
    async def turn(self, user: str, within: float) -> AsyncIterator[None]:
        """Have a turn within the block.

        Args:
            user: who asks.
            within: seconds to wait for it.

        Raises:
            TimeoutError: it did not come within that time.
        """
        async with asyncio.timeout(within):
            await self._come(user)
        try:
            yield
        finally:
            self._go()

    async def _come(self, user: str) -> None:
        if self._served is None:
            self._served = user
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came just now, and is another's
                self._go()
            raise

    def _go(self) -> None:
        assert self._served is not None
        if (others := self._waiting.pop(self._served, None)) is not None:
            self._waiting[self._served] = others  # behind those who came meanwhile
        self._served = None
        for user, turns in list(self._waiting.items()):
            while turns and turns[0].done():  # who gave up
                turns.popleft()
            if turns:
                self._served = user
                turns.popleft().set_result(None)
            if not turns:
                del self._waiting[user]
            if self._served is not None:
                return
