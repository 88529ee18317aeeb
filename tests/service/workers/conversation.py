"""Running attempts and listening to them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeVar

from dropnorm.results import Payload
from dropnorm_service.jobs.ports import Launch, Outcome
from dropnorm_service.workers import LocalExecutor

Kind = TypeVar("Kind")


class Attempt:
    """An attempt that runs in the background, and all it has said."""

    def __init__(self, executor: LocalExecutor, launch: Launch) -> None:
        self.said: list[Payload] = []
        self._executor = executor
        self._launch = launch
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._listen())

    async def outcome(self) -> Outcome:
        """Wait for it."""
        return await self._task

    async def until(self, kind: type[Kind], count: int = 1) -> Kind:
        """Wait until it has said so many payloads of a kind; the last of them."""
        while len(found := [each for each in self.said if isinstance(each, kind)]) < count:
            if self._task.done():
                raise AssertionError(f"it ended without: {self._task.result()}")
            self._news.clear()
            news = asyncio.create_task(self._news.wait())
            await asyncio.wait({news, self._task}, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
        return found[count - 1]

    def abandon(self) -> None:
        """Stop listening in the midst of it."""
        self._task.cancel()

    async def _listen(self) -> Outcome:
        async with contextlib.aclosing(self._executor.run(self._launch)) as items:
            async for item in items:
                if isinstance(item, Outcome):
                    return item
                self.said.append(item[1])
                self._news.set()
        raise AssertionError("an attempt without outcome")


@contextlib.asynccontextmanager
async def running(executor: LocalExecutor, launch: Launch) -> AsyncIterator[Attempt]:
    """An attempt that does not outlive the block."""
    attempt = Attempt(executor, launch)
    await asyncio.sleep(0)  # its first step takes the slot
    try:
        yield attempt
    finally:
        attempt.abandon()
        with contextlib.suppress(asyncio.CancelledError):
            await attempt.outcome()
