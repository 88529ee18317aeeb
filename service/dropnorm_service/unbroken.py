"""Work that a caller who goes away does not break off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

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
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if failure := task.exception():
        log.error("work that nobody waits for any more failed", exc_info=failure)
    raise cancelled
