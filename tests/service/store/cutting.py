"""A proxy before PostgreSQL that loses the answer to a commit or to the request for the lock, or the commit itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import urlsplit

_COMMIT = b"COMMIT;\x00"
_LOCK = b"pg_try_advisory_lock"

Loss = Literal["commit", "answer", "both ends", "lock"]
"""Of the next commit: it never arrives; it is carried out and not answered; nor is anybody told that the connection is
gone, so that both ends believe in it. `lock`: the last of these, of the next time that the lock is asked for."""


class Proxy:
    """Passes everything on, until it is told to lose something."""

    def __init__(self, port: int, server_port: int) -> None:
        self.port = port
        self.lose: Loss | None = None
        self.refusing = False
        self.silent = False
        """Nothing is passed on any more, and nobody is told."""
        self.lost = asyncio.Event()
        """Something has been lost."""
        self._server_port = server_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._writers.append(writer)
        if self.refusing:
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers.append(server_writer)
        ends = (reader, writer, server_reader, server_writer)
        task = asyncio.create_task(self._pass_on(*ends))
        self._tasks.add(task)

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        back = asyncio.create_task(_copy(server_reader, writer))
        before = b""
        try:
            while data := await reader.read(2**16):
                if self.silent:
                    await asyncio.Event().wait()
                # A statement is prepared first, and in the message that follows it is carried out.
                meant = _LOCK in before if self.lose == "lock" else _COMMIT in data
                loss, before = self.lose if meant else None, data
                if loss is not None:
                    self.lose = None
                    back.cancel()
                    await asyncio.wait([back])
                    if loss != "commit":
                        server_writer.write(data)
                        await server_reader.read(2**16)  # it is carried out
                    self.lost.set()
                    if loss in ("both ends", "lock"):
                        await asyncio.Event().wait()
                    break
                server_writer.write(data)
        finally:
            back.cancel()
            writer.close()
            server_writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def proxy(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before a server, and the URL of the database behind it."""
    port = urlsplit(url).port
    assert port is not None
    passing = Proxy(0, port)
    server = await asyncio.start_server(passing.serve, "127.0.0.1", 0)
    passing.port = server.sockets[0].getsockname()[1]
    try:
        yield passing, url.replace(f":{port}/", f":{passing.port}/")
    finally:
        server.close()
        await passing.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
    writer.close()
