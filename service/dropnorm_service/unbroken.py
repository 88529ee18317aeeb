"""Work that a caller who goes away does not break off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Carry work out, and be cancelled only when it is done.

    For sections that write files: a thread that writes cannot be broken off, and who waits for it holds locks that
    others must not get before.

    Args:
        work: ends within the time that a disk takes.
    """
    task = asyncio.create_task(work)
    cancelled = await _ended(task, lambda: None)
    if cancelled is None:
        return task.result()
    if failure := task.exception():
        log.error("work that nobody waits for any more failed", exc_info=failure)
    raise cancelled


class Undertaking(Generic[T]):
    """Work that is given up with who waits for it, but not once it may have changed something (`changing`).

    Args:
        work: begins at once. Its waits have limits of their own.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._mark = _Mark()
        context = copy_context()
        context.run(_mark.set, self._mark)
        self.task = asyncio.create_task(work, context=context)

    @property
    def may_have_changed(self) -> bool:
        """Whether it came so far that it may have changed something."""
        return self._mark.changing

    async def through(self) -> T:
        """What comes of it. Who is cancelled meanwhile is so when it has ended, or is given up."""
        cancelled = await _ended(self.task, self._left)
        if cancelled is not None:
            raise cancelled
        return self.task.result()

    def _left(self) -> None:
        if not self._mark.changing:
            self.task.cancel()


def changing() -> None:
    """Say that from here on something may have changed; without effect outside of an `Undertaking`."""
    if mark := _mark.get():
        mark.changing = True


class _Mark:
    """How far an undertaking has come. What it starts may outlive it, and keeps no more of it than this."""

    changing = False


_mark: ContextVar[_Mark | None] = ContextVar("mark", default=None)


async def _ended(
    task: asyncio.Task[Any], left: Callable[[], None]
) -> asyncio.CancelledError | None:
    """Wait until a task is done; how the wait was cancelled meanwhile, if it was.

    Args:
        task: what is waited for.
        left: called when the wait is cancelled for the first time.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            if cancelled is None:
                left()
            cancelled = error
    return cancelled
