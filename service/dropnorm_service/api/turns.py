"""Fairness on the event loop: what is told to many is told to a few in each round of it, so that calls come through."""

from __future__ import annotations

import asyncio
from collections import deque

# A message takes some 50 us of the loop, so that a round of these takes less than a millisecond.
_PER_ROUND = 8


class Turns:
    """Lets so many go on in each round of the event loop, in the order in which they came.

    An event that five hundred watch would otherwise make five hundred coroutines ready at once, and a call has to
    wait for all of them at each of its own few steps. The number bounds a round, not the throughput: the next round
    follows at once.
    """

    def __init__(self, per_round: int = _PER_ROUND) -> None:
        self._per_round = per_round
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def mine(self) -> None:
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._grant, loop)
        await turn

    def _grant(self, loop: asyncio.AbstractEventLoop) -> None:
        granted = 0
        while self._waiting and granted < self._per_round:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                turn.set_result(None)
                granted += 1
        if self._waiting:
            loop.call_soon(self._grant, loop)
