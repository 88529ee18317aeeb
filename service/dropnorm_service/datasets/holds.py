"""Who relies on a name, and who takes it away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Holds:
    """Names that any number may rely on together, and that one alone may take away.

    Who takes one away waits for those who rely on it, and who comes meanwhile waits for him. Different names have
    nothing to do with each other.
    """

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._taken: set[str] = set()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def held(self, name: str) -> AsyncIterator[None]:
        """Nobody takes a name away within the block."""
        while name in self._taken:
            await self._news.wait()
        self._held[name] += 1
        try:
            yield
        finally:
            self._held[name] -= 1
            self._held += Counter()  # drops what nobody holds
            self._tell()

    @asynccontextmanager
    async def taken(self, name: str) -> AsyncIterator[None]:
        """Nobody relies on a name within the block."""
        while name in self._taken:
            await self._news.wait()
        self._taken.add(name)
        try:
            while self._held[name]:
                await self._news.wait()
            yield
        finally:
            self._taken.remove(name)
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
