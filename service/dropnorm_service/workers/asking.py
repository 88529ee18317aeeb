"""A process of its own that answers one request after the other."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from dropnorm_service.workers.forks import ForkServer
from dropnorm_service.workers.line import Line
from dropnorm_service.workers.messages import AnyMessage, Message
from dropnorm_service.workers.process import Child

_TRIES = 2

log = logging.getLogger(__name__)


class Died(Exception):
    """The process died over a request, and so did the one that took its place."""


class Busy(Exception):
    """The process answered others all the time that a request may wait."""


class AskedProcess:
    """A forked process that is sent numbered requests. One that dies or does not answer is replaced.

    Users take turns, see `Line`.

    Args:
        forks: where processes come from; running.
        entry: what the process runs, `package.module:function`.
        environment: variables to set before that.
        memory_limit: bytes of memory that it can get.
    """

    def __init__(
        self,
        forks: ForkServer,
        entry: str,
        environment: Mapping[str, str],
        memory_limit: int | None = None,
    ) -> None:
        self._forks = forks
        self._entry = entry
        self._environment = dict(environment)
        self._memory_limit = memory_limit
        self._numbers = itertools.count(1)
        self._line = Line()
        self._works: set[asyncio.Task[AnyMessage]] = set()
        self._process: Child | None = None

    async def start(self) -> None:
        """Start the process, which the first request would do otherwise."""
        self._process = await self._forks.fork(
            self._entry, self._environment, memory_limit=self._memory_limit
        )

    async def end(self) -> None:
        """End the process, and what it works on; the next request would start another."""
        for work in self._works:
            work.cancel()
        await self._stop()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.end()

    async def ask(self, request: Callable[[int], Message], within: float, user: str = "") -> Any:
        """The reply to a request.

        When the caller goes, the process works on, and it is nobody's turn until that is through: otherwise those
        who go would leave it more and more to do before the next.

        Args:
            request: makes it of its number, which the reply has as well.
            within: seconds it may take, and may wait for its turn before.
            user: who asks.

        Raises:
            Busy: its turn did not come within that time.
            TimeoutError: no answer within that time.
            Died: the process died over it twice.
        """
        async with AsyncExitStack() as turn:
            try:
                await turn.enter_async_context(self._line.turn(user, within))
            except TimeoutError:
                raise Busy from None
            work = asyncio.create_task(self._within(turn.pop_all(), request, within))
        self._works.add(work)
        work.add_done_callback(self._through)
        return await asyncio.shield(work)

    async def _within(
        self, turn: AsyncExitStack, request: Callable[[int], Message], within: float
    ) -> AnyMessage:
        async with turn:
            return await self._ask(request, within)

    def _through(self, work: asyncio.Task[AnyMessage]) -> None:
        self._works.discard(work)
        if not work.cancelled():
            work.exception()  # is seen, though the caller may have gone

    async def _ask(self, request: Callable[[int], Message], within: float) -> AnyMessage:
        number = next(self._numbers)
        message = request(number)
        try:
            async with asyncio.timeout(within):
                for _ in range(_TRIES):
                    if reply := await self._try(number, message):
                        return reply
        except TimeoutError:
            await self._stop()  # it may work on this request for ever
            raise
        raise Died

    async def _try(self, number: int, message: Message) -> AnyMessage | None:
        """Ask once; None: the process died over it."""
        if self._process is None or self._process.gone:
            await self.start()
        process = self._process
        assert process is not None
        process.send(message)
        while reply := await process.receive():
            # An answer to another number is late: whoever asked has gone.
            if getattr(reply, "number", None) == number:
                return reply
        log.error("%s died", self._entry, extra={"status": await process.exit_status()})
        return None
