"""Group commit: what is asked for while one transaction is being synced to disk shares the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.ports import Change
from dropnorm_service.store.changes import write_changes
from dropnorm_service.store.engines import translated

_MOST = 256

Work = Callable[[AsyncConnection], Awaitable[Any]]


class Commit(NamedTuple):
    """A transaction of the writer, for those who measure it."""

    seconds: float
    """From its begin until it was on disk, or had failed."""
    orders: int
    """Changes that shared it."""
    failed: bool
    """The database could not be used."""


OnCommit = Callable[[Commit], None]


def ignore(commit: Commit) -> None:
    """For a writer that nobody measures."""


@dataclass(frozen=True)
class _Order:
    what: Change | Work
    done: asyncio.Future[None]

    def settle(self, refusal: Exception | None) -> None:
        if self.done.done():  # nobody waits any more
            return
        if refusal is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(refusal)


class Writer:
    """The only writer of the database.

    Changes are written in the order in which they come; what else shares their transaction comes
    after them. An order that fails fails alone.

    Args:
        engine: with a single connection.
        on_commit: told of every transaction.
    """

    def __init__(self, engine: AsyncEngine, on_commit: OnCommit = ignore) -> None:
        self._engine = engine
        self._on_commit = on_commit
        self._orders: asyncio.Queue[_Order | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(), name="store writer")
        self._closed = False

    async def write(self, what: Change | Work) -> None:
        """Write it; when this returns it is on disk.

        Raises:
            RequestAccepted, JobAlreadyExists: the change is refused.
            StoreUnavailable: the database cannot be used; nothing is written.
        """
        if self._closed:
            raise StoreUnavailable("The database of jobs is closed.")
        order = _Order(what, asyncio.get_running_loop().create_future())
        self._orders.put_nowait(order)
        await order.done

    async def close(self) -> None:
        """Write what has been asked for, then stop."""
        self._closed = True
        self._orders.put_nowait(None)
        await self._task

    async def _run(self) -> None:
        last = False
        while not last:
            batch = [await self._orders.get()]
            while not self._orders.empty() and len(batch) < _MOST:
                batch.append(self._orders.get_nowait())
            last = None in batch
            orders = [order for order in batch if order is not None]
            if orders and not await self._write(orders):
                for order in orders:
                    await self._write([order])

    async def _write(self, orders: Sequence[_Order]) -> bool:
        """Write orders in one transaction and settle them; False: one of several failed, none is written."""
        started, failed = time.perf_counter(), False
        try:
            with translated():
                async with self._engine.begin() as connection:
                    refusals = await _carry_out(connection, orders)
        except Exception as error:
            failed = isinstance(error, StoreUnavailable)
            if len(orders) > 1:
                return False
            orders[0].settle(error)
        else:
            for order, refusal in zip(orders, refusals, strict=True):
                order.settle(refusal)
        finally:
            self._on_commit(Commit(time.perf_counter() - started, len(orders), failed))
        return True


async def _carry_out(
    connection: AsyncConnection, orders: Sequence[_Order]
) -> Sequence[Exception | None]:
    changes = [order.what for order in orders if isinstance(order.what, Change)]
    refusals = iter(await write_changes(connection, changes))
    for order in orders:
        if not isinstance(order.what, Change):
            await order.what(connection)
    return [next(refusals) if isinstance(order.what, Change) else None for order in orders]
