"""A forked process, as the server sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from dropnorm_service.workers.channel import Channel
from dropnorm_service.workers.messages import AnyMessage, Message

# It is slow to say so where the machine is at its end, and there most of all is it good to know.
_EXIT_TIME = 30.0
_REAP_TIME = 1.0


class Child:
    """A forked process: its connection, and how it ended."""

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self._channel = channel
        self.heard = asyncio.get_running_loop().time()
        """When it last said something, by the loop's clock."""
        self._exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        """Whether it has closed its connection or ended."""
        known = self._exited.done() and self._exited.result() is not None
        return known or self._channel.closed.is_set()

    def send(self, message: Message) -> None:
        """Send it a message; without effect when it is gone."""
        self._channel.send(message)

    async def receive(self) -> AnyMessage | None:
        """Its next message; None when there will be none."""
        message = await self._channel.receive()
        self.heard = asyncio.get_running_loop().time()
        return message

    async def exit_status(self, within: float = _EXIT_TIME) -> int | None:
        """Wait for its end: the exit status, or minus a signal's number; None when nobody knows.

        Args:
            within: seconds after its end in which the fork server may say how it was.
        """
        await self._channel.closed.wait()
        try:
            async with asyncio.timeout(within):
                return await asyncio.shield(self._exited)
        except TimeoutError:
            return None

    def kill(self) -> None:
        """End it and the processes it started, at once."""
        # While its connection is open it lives, so that its number cannot mean another process.
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._channel.expect_no_more()

    async def end(self, within: float = 0.0) -> None:
        """Wait for its end for some seconds, then kill it; returns when it is gone."""
        try:
            async with asyncio.timeout(within):
                await self._channel.closed.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()
        await self.exit_status(_REAP_TIME)
        self._channel.close()

    def note_exit(self, status: int | None) -> None:
        """The fork server says how it ended, or (None) can no longer say."""
        if not self._exited.done():
            self._exited.set_result(status)
