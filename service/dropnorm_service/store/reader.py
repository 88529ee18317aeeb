"""Reads, on connections of their own, that a caller who goes away does not break off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncEngine

from dropnorm_service.store.engines import translated


class Reader:
    """Reads the database.

    A read that is cancelled while its connection is opened would leave that open for ever, so each
    is finished, also when nobody wants its answer any more.

    Args:
        engine: what it reads with.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reads: set[asyncio.Task[Sequence[Row[Any]]]] = set()

    async def read(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """Every row of a query.

        Raises:
            StoreUnavailable: the database cannot be used.
        """
        task = asyncio.create_task(self._read(query))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Finish what is being read."""
        if self._reads:
            await asyncio.wait(self._reads)

    async def _read(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with translated():
            async with self._engine.connect() as connection:
                rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
                return rows
