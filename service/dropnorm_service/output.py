"""What other processes print, as records of this one's log: what they print is not theirs to format."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Self

_LONGEST_LINE = 8000
_PATIENCE = 1.0


class Output(asyncio.Protocol):
    """A pipe for the standard output and error of processes; each line of it is a warning in the log.

    Whoever started them closes `descriptor` once they have it. The pipe ends with the last process that has it.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._rest = b""
        self._ended = asyncio.Event()
        self._transport: asyncio.BaseTransport | None = None

    @classmethod
    async def to(cls, log: logging.Logger) -> tuple[Self, int]:
        """An open pipe, and the descriptor to print to."""
        reading, writing = os.pipe()
        try:
            _, output = await asyncio.get_running_loop().connect_read_pipe(
                lambda: cls(log), os.fdopen(reading, "rb", buffering=0)
            )
        except BaseException:
            os.close(writing)
            raise
        return output, writing

    @property
    def ended(self) -> bool:
        """Whether no process has it any more."""
        return self._ended.is_set()

    async def close(self) -> None:
        """Read what is still there, for a moment at most."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._ended.wait()
        except TimeoutError:  # a process has it that is none of ours any more
            if self._transport is not None:
                self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._tell(line)
        if len(rest) > _LONGEST_LINE:
            self._tell(rest)
            rest = b""
        self._rest = rest

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._tell(self._rest)
        self._ended.set()

    def _tell(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        for start in range(0, len(text), _LONGEST_LINE):
            self._log.warning("%s", text[start : start + _LONGEST_LINE])
