"""What tells a service that it shall end: signals, and where so set the end of the process that started it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterator

_PARENT_INTERVAL = 0.5
_SIGNALLED = 128  # and the number: the exit status by which shells tell a signal

log = logging.getLogger(__name__)


@contextlib.contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set; a second one ends the process. The handler is the loop's, since
    KeyboardInterrupt reaches no coroutine."""
    stopping, told = asyncio.Event(), False
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        nonlocal told
        if told:
            # Everything accepted and journaled is on disk, and workers notice by themselves: as after a kill.
            log.warning(
                "told to stop a second time: ends at once, its jobs go on after the next start"
            )
            os._exit(_SIGNALLED + number)
        told = True
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        yield stopping
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def notice_orphaned(stopping: asyncio.Event) -> None:
    """Set the event once the process that started this one has ended."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - the kernel tells nobody but the child's poll
        await asyncio.sleep(_PARENT_INTERVAL)
    log.info("the parent process has ended")
    stopping.set()
