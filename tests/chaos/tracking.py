"""What stands before a real MLflow tracking server and can be down, slow, broken, or cut off before it answers."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from tests.chaos.relay import Relay

_BROKEN = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Trouble(StrEnum):
    """What is wrong with the server."""

    NONE = "none"
    DOWN = "down"
    """Connections are reset before anything is read."""
    SLOW = "slow"
    """Each request waits `delay` seconds."""
    BROKEN = "broken"
    """Everything is answered with 500, and nothing is done."""
    READ_ONLY = "read-only"
    """As before, but only what would change something."""
    DEAF = "deaf"
    """Everything is done, and the connection breaks before the answer: what was asked may be asked again."""


class Front(Relay):
    """An HTTP relay to a tracking server. One request to a connection.

    Attributes:
        trouble: what is wrong now.
        delay: seconds that each request waits while it is slow.
        spoilt: requests that met trouble, by its kind.
    """

    def __init__(self, target: int, *, delay: float = 2.0) -> None:
        super().__init__()
        self.trouble = Trouble.NONE
        self.delay = delay
        self.spoilt = dict.fromkeys(Trouble, 0)
        self._target = target

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._answer(reader, writer)
        writer.close()
        await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trouble = self.trouble
        if trouble is not Trouble.READ_ONLY:
            self.spoilt[trouble] += 1
        if trouble is Trouble.DOWN:
            return
        request = await _read_request(reader)
        if trouble is Trouble.READ_ONLY and _changes(request):
            self.spoilt[trouble] += 1
            writer.write(_BROKEN)
            return
        if trouble is Trouble.BROKEN:
            writer.write(_BROKEN)
            return
        if trouble is Trouble.SLOW:
            await asyncio.sleep(self.delay)
        answer = await self._ask(request)
        if trouble is not Trouble.DEAF:
            writer.write(answer)
            await writer.drain()

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read()  # to its end: it was asked to close
        finally:
            writer.transport.abort()


def _changes(request: bytes) -> bool:
    """Whether a request is more than a question; searches are posted too."""
    method, path, _ = request.split(b" ", 2)
    return method != b"GET" and not path.endswith(b"/search")


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, made the last one of its connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    fields = [line for line in lines if not line.lower().startswith(b"connection:")]
    lengths = [
        int(line.partition(b":")[2])
        for line in fields
        if line.lower().startswith(b"content-length:")
    ]
    body = await reader.readexactly(lengths[0]) if lengths else b""
    return b"\r\n".join([first, *fields, b"Connection: close", b"", b""]) + body
