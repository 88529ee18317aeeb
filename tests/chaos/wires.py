"""A TCP relay on loopback that can be cut and stalled, as a bad network is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from tests.chaos.relay import Relay

_CHUNK = 2**16


class Wire(Relay):
    """Relays connections to a port of this machine."""

    def __init__(self, target: Callable[[], int]) -> None:
        """A relay, not yet listening.

        Args:
            target: the port that a new connection goes to; asked each time, since it may move.
        """
        super().__init__()
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    def cut(self) -> None:
        """Reset every connection; what was under way on it is lost."""
        for writer in self._writers:
            writer.transport.abort()

    async def stall(self, seconds: float) -> None:
        """Carry nothing for a while; what was sent meanwhile arrives afterwards, all at once."""
        self._flows.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._flows.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target())
        ends = {writer, far_writer}
        self._writers |= ends
        ways = [
            asyncio.create_task(self._carry(reader, far_writer)),
            asyncio.create_task(self._carry(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._writers -= ends
            far_writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
