"""A process of its own that answers one request after the other."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from dropnorm_service.workers.forks import ForkServer
from dropnorm_service.workers.messages import AnyMessage, Message
from dropnorm_service.workers.process import Child

_TRIES = 2

log = logging.getLogger(__name__)


class Died(Exception):
    """The process died over a request, and so did the one that took its place."""


class AskedProcess:
    """A forked process that is sent numbered requests. One that dies or does not answer is replaced.

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
        self._turn = asyncio.Lock()
        self._process: Child | None = None

    async def start(self) -> None:
        """Start the process, which the first request would do otherwise."""
        self._process = await self._forks.fork(
            self._entry, self._environment, memory_limit=self._memory_limit
        )

    async def end(self) -> None:
        """End the process; the next request would start another."""
        process, self._process = self._process, None
        if process is not None:
            await process.end()

    async def ask(self, request: Callable[[int], Message], within: float) -> Any:
        """The reply to a request.

        Args:
            request: makes it of its number, which the reply has as well.
            within: seconds it may take, with its time in the queue.

        Raises:
            TimeoutError: no answer within that time.
            Died: the process died over it twice.
        """
        deadline = asyncio.get_running_loop().time() + within
        async with asyncio.timeout_at(deadline):
            await self._turn.acquire()
        try:
            return await self._ask(request, deadline)
        finally:
            self._turn.release()

    async def _ask(self, request: Callable[[int], Message], deadline: float) -> AnyMessage:
        number = next(self._numbers)
        message = request(number)
        try:
            async with asyncio.timeout_at(deadline):
                for _ in range(_TRIES):
                    if reply := await self._try(number, message):
                        return reply
        except TimeoutError:
            await self.end()  # it may work on this request for ever
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
