"""Group commit: what is asked for while one transaction is being synced to disk shares the next one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.ports import Change
from dropnorm_service.store.changes import write_changes
from dropnorm_service.store.commits import Commits
from dropnorm_service.store.engines import connected
from dropnorm_service.store.errors import StoreInUse
from dropnorm_service.store.outage import Outage

_MOST = 256
_PAUSE = 0.5

log = logging.getLogger(__name__)

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
    after them. An order that fails fails alone, but one that finds the database away.

    When a commit is not answered, nobody knows whether it was carried out. Then whoever waits for it goes on waiting
    until the database is back and can say; nothing else is written before.

    Args:
        engine: with a single connection.
        commits: finds transactions again.
        outage: how long it waits for a database that is away.
        on_commit: told of every transaction.
    """

    def __init__(
        self, engine: AsyncEngine, commits: Commits, outage: Outage, on_commit: OnCommit = ignore
    ) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set when this service may not write the database any more: why."""
        self._engine = engine
        self._commits = commits
        self._outage = outage
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
            if orders := [order for order in batch if order is not None]:
                await self._settle(orders)

    async def _settle(self, orders: Sequence[_Order]) -> None:
        """Write orders in one transaction, if that goes, and say to each what became of it."""
        try:
            refusals = await self._write(orders)
        except StoreUnavailable as error:
            for order in orders:
                order.settle(error)
            self._refuse(error)  # or those who wait would grow in number, where each try takes long
        except Exception as error:
            if len(orders) == 1:
                orders[0].settle(error)
                return
            for order in orders:
                await self._settle([order])
        else:
            for order, refusal in zip(orders, refusals, strict=True):
                order.settle(refusal)

    async def _write(self, orders: Sequence[_Order]) -> Sequence[Exception | None]:
        while True:
            try:
                refusals = await self._transact(orders)
            except StoreUnavailable:  # nothing is written
                if self._closed or self.lost.done() or not await self._outage.wait():
                    raise
            else:
                self._outage.over()
                return refusals

    async def _transact(self, orders: Sequence[_Order]) -> Sequence[Exception | None]:
        committing = ""
        started, failed = time.perf_counter(), False
        try:
            async with self._connected() as connection:
                await connection.begin()
                mark = await self._commits.mark(connection)
                refusals = await _carry_out(connection, orders)
                committing = mark
                await connection.commit()
                self._commits.confirmed(mark)
        except StoreUnavailable:
            failed = not committing or not await self._was_committed(committing)
            if failed:
                raise
        finally:
            self._on_commit(Commit(time.perf_counter() - started, len(orders), failed))
        return refusals

    async def _was_committed(self, mark: str) -> bool:
        """Wait until the database says what became of a transaction."""
        log.warning("a commit was not answered; the database is asked whether it was carried out")
        while True:
            try:
                async with self._connected() as connection:
                    carried_out = await self._commits.carried_out(connection, mark)
            except StoreUnavailable as error:
                if self._closed or self.lost.done():
                    raise
                if not await self._outage.wait():
                    self._refuse(error)
                    await asyncio.sleep(_PAUSE)
            else:
                if carried_out:
                    self._commits.confirmed(mark)
                return carried_out

    def _refuse(self, error: StoreUnavailable) -> None:
        """Let those go who wait for their turn."""
        for _ in range(self._orders.qsize()):
            order = self._orders.get_nowait()
            if order is None:
                self._orders.put_nowait(None)  # the last, still to be found
            else:
                order.settle(error)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with connected(self._engine) as connection:
                yield connection
        except StoreInUse as error:
            if not self.lost.done():
                self.lost.set_result(str(error))
            raise StoreUnavailable(f"The database of jobs cannot be used: {error}.") from error


async def _carry_out(
    connection: AsyncConnection, orders: Sequence[_Order]
) -> Sequence[Exception | None]:
    changes = [order.what for order in orders if isinstance(order.what, Change)]
    refusals = iter(await write_changes(connection, changes))
    for order in orders:
        if not isinstance(order.what, Change):
            await order.what(connection)
    return [next(refusals) if isinstance(order.what, Change) else None for order in orders]
