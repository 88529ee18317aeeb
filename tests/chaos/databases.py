"""The stores that chaos runs on, and what can go wrong with each."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path

from tests import postgres
from tests.chaos.faults import Database, Fault
from tests.chaos.wires import Wire
from tests.postgres import Cluster

_LOCKED = (0.5, 12.0)  # the store waits 10 s for a lock before it says that it is not available
_AWAY = (0.0, 3.0)
_STALLED = (0.5, 4.0)

Open = Callable[[Path], AbstractAsyncContextManager[Database]]
"""Makes a store for a service with this data folder."""


class Sqlite:
    """The service's own database file, which somebody else locks now and then."""

    url: str | None = None

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "dropnorm.db"

    def faults(self, chance: random.Random) -> Mapping[str, Fault]:
        async def lock() -> bool:
            return await asyncio.to_thread(self._lock, chance.uniform(*_LOCKED))

        return {"database locked": lock}

    def _lock(self, seconds: float) -> bool:
        connection = sqlite3.connect(self._path, timeout=1.0, isolation_level=None)
        with contextlib.closing(connection):
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:  # not made yet, or the service never let go
                return False
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        return True


@asynccontextmanager
async def sqlite(data_dir: Path) -> AsyncIterator[Database]:
    yield Sqlite(data_dir)


class Postgres:
    """A database on a real server, behind a wire; the server crashes and comes back now and then."""

    def __init__(self, cluster: Cluster, url: str, wire: Wire) -> None:
        self.url: str | None = url.replace(f":{cluster.port}/", f":{wire.port}/")
        self._cluster = cluster
        self._wire = wire

    def faults(self, chance: random.Random) -> Mapping[str, Fault]:
        async def restart() -> bool:
            crash = asyncio.create_task(asyncio.to_thread(self._crash, chance.uniform(*_AWAY)))
            try:
                await asyncio.shield(crash)
            finally:
                await (
                    crash
                )  # also when the storm ends meanwhile: it comes back before anything is checked
            return True

        async def cut() -> bool:
            connections = self._wire.connections
            self._wire.cut()
            return connections > 0

        async def stall() -> bool:
            await self._wire.stall(chance.uniform(*_STALLED))
            return self._wire.connections > 0

        return {
            "database restarted": restart,
            "database connections cut": cut,
            "database connections stalled": stall,
        }

    def _crash(self, seconds: float) -> None:
        self._cluster.stop()
        time.sleep(seconds)
        self._cluster.start()


@asynccontextmanager
async def postgresql(data_dir: Path) -> AsyncIterator[Database]:
    with ExitStack() as stack:
        cluster = await asyncio.to_thread(stack.enter_context, postgres.running())
        url = await asyncio.to_thread(stack.enter_context, cluster.database())
        async with Wire(lambda: cluster.port) as wire:
            yield Postgres(cluster, url, wire)


DATABASES: Mapping[str, Open] = {"SQLite": sqlite, "PostgreSQL": postgresql}
"""The stores by name."""
