"""Fairness on the event loop: what many wait for is given to one in each round of it, so that calls come through."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable


class Turns:
    """Lets one go on in each round of the event loop, in the order in which they came.

    An event that five hundred watch would otherwise make five hundred coroutines ready at once, and a call has to
    wait for all of them at each of its own ten to twenty steps. This bounds a round, not the throughput: the next
    round follows at once.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def mine(self) -> None:
        """Wait for a turn."""
        turn = asyncio.get_running_loop().create_future()
        self.give([turn])
        await turn

    def give(self, turns: Iterable[asyncio.Future[None]]) -> None:
        """Set the result of each, one in each round."""
        begun = bool(self._waiting)
        self._waiting.extend(turns)
        if self._waiting and not begun:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else whoever waited for it has given up
                turn.set_result(None)
                break
        if self._waiting:
            loop.call_soon(self._next, loop)
