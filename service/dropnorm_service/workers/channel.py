"""The server's end of a connection to one of its processes."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from typing import Self

from pydantic import ValidationError

from dropnorm_service.workers.frames import Frames, decode, encode
from dropnorm_service.workers.messages import AnyMessage, Message

# So many unread messages, and the process on the other side has to wait for its reader.
_INBOX_FULL = 256
_INBOX_LOW = 64

log = logging.getLogger(__name__)


class Channel(asyncio.Protocol):
    """Messages to and from one process. Sending to a process that is gone has no effect."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._inbox: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._last_words = False
        self.closed = asyncio.Event()
        """The other end is closed, which a process's death does too; unnoticed while it waits for its reader."""

    @classmethod
    async def over(cls, connection: socket.socket) -> Self:
        """A channel over a connected socket, which it owns from now on."""
        try:
            _, channel = await asyncio.get_running_loop().create_connection(cls, sock=connection)
        except BaseException:
            connection.close()
            raise
        return channel

    def send(self, message: Message) -> None:
        """Send a message; the transport keeps what the socket cannot take yet."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    async def receive(self) -> AnyMessage | None:
        """The next message; None when there will be none. A cancelled call loses nothing."""
        while not self._inbox:
            if self.closed.is_set():
                return None
            self._arrived.clear()
            await self._arrived.wait()
        body = self._inbox.popleft()
        if len(self._inbox) <= _INBOX_LOW:
            self._read_on()
        try:
            return decode(body)
        except ValidationError:
            log.exception("a process sent what is no message")
            self.close()
            return None

    def expect_no_more(self) -> None:
        """The process is dead: take in what it has sent, a socket's buffer at most, so that its end is noticed."""
        self._last_words = True
        self._read_on()

    def close(self) -> None:
        """Close this end; the process notices."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        try:
            self._inbox.extend(self._frames.feed(data))
        except ValueError:
            log.exception("a process sent too long a message")
            self.close()
            return
        full = len(self._inbox) >= _INBOX_FULL and not self._last_words
        if full and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.closed.set()
        self._arrived.set()

    def _read_on(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
