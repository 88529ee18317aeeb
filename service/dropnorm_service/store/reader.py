"""Reads, on connections of their own, that a caller who goes away does not break off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncEngine

from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.store.engines import connected
from dropnorm_service.store.outage import Outage


class Reader:
    """Reads the database.

    A read that is cancelled while its connection is opened would leave that open for ever, so each
    is finished, also when nobody wants its answer any more.

    Args:
        engine: what it reads with.
        outage: how long it waits for a database that is away.
    """

    def __init__(self, engine: AsyncEngine, outage: Outage) -> None:
        self._engine = engine
        self._outage = outage
        self._reads: set[asyncio.Task[Sequence[Row[Any]]]] = set()
        self._closed = False

    async def read(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """Every row of a query.

        Raises:
            StoreUnavailable: the database cannot be used.
        """
        if self._closed:  # or a connection would be opened that nobody closes any more
            raise StoreUnavailable("The database of jobs is closed.")
        task = asyncio.create_task(self._read(query))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Finish what is being read."""
        self._closed = True
        if self._reads:
            await asyncio.wait(self._reads)

    async def _read(self, query: Select[Any]) -> Sequence[Row[Any]]:
        while True:
            try:
                async with connected(self._engine) as connection:
                    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
            except StoreUnavailable:
                if self._closed or not await self._outage.wait():
                    raise
            else:
                self._outage.over()
                return rows
