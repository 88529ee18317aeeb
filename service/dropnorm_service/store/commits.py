"""What became of a commit that was not answered, and of those that were."""

from __future__ import annotations

import uuid
from typing import Protocol

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from dropnorm_service.store import schema
from dropnorm_service.store.errors import StoreInUse

SERVICE = "service"
"""The writer that has the tenure; there is one at a time."""

_SET_BACK = (
    "the database has lost what it had confirmed, as when a backup is put back or a standby takes over that had not "
    "received everything; what this service knew of its jobs is not true any more. Start it again, and it goes on from "
    "what the database has"
)


class Commits(Protocol):
    """Finds transactions again."""

    async def mark(self, connection: AsyncConnection) -> str:
        """Something by which the transaction under way is found again; empty: a commit that fails writes nothing.

        Raises:
            StoreInUse: the newest transaction that was confirmed is not there any more.
        """

    def confirmed(self, mark: str) -> None:
        """The transaction of this mark has been committed."""

    async def carried_out(self, connection: AsyncConnection, mark: str) -> bool:
        """Whether the newest transaction, which has this mark, was committed.

        Raises:
            StoreInUse: nor is the one before there any more, which was confirmed.
        """


class SqliteCommits:
    """SQLite is a part of this process: a commit has succeeded, or it has failed."""

    async def mark(self, connection: AsyncConnection) -> str:
        """See `Commits.mark`."""
        return ""

    def confirmed(self, mark: str) -> None:
        """See `Commits.confirmed`."""

    async def carried_out(self, connection: AsyncConnection, mark: str) -> bool:
        """See `Commits.carried_out`."""
        raise NotImplementedError("SQLite leaves no commit open")


class PostgresCommits:
    """Each transaction leaves a mark in a row of its writer, which is there if and only if the rest is.

    PostgreSQL's own `pg_xact_status` cannot be asked: after a crash it may give the number of a transaction that it
    forgot to another one, and tell of that.

    Args:
        writer: whose transactions these are; no other connection writes under this name at the same time.
    """

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._newest: str | None = None
        """Of what was confirmed; None: it is not watched over."""

    async def watch_over(self, connection: AsyncConnection) -> None:
        """Write a first mark; from now on each transaction looks whether the one before it is still there."""
        self._newest = uuid.uuid4().hex
        await connection.execute(
            insert(schema.commits).values(writer=self._writer, mark=self._newest)
        )

    async def mark(self, connection: AsyncConnection) -> str:
        """See `Commits.mark`."""
        mark = uuid.uuid4().hex
        if self._newest is None:
            row = insert(schema.commits).values(writer=self._writer, mark=mark)
            await connection.execute(
                row.on_conflict_do_update(index_elements=["writer"], set_={"mark": mark})
            )
            return mark
        columns = schema.commits.c
        is_newest = (columns.writer == self._writer) & (columns.mark == self._newest)
        found = await connection.execute(update(schema.commits).where(is_newest).values(mark=mark))
        if not found.rowcount:
            raise StoreInUse(_SET_BACK)
        return mark

    def confirmed(self, mark: str) -> None:
        """See `Commits.confirmed`."""
        if self._newest is not None:
            self._newest = mark

    async def carried_out(self, connection: AsyncConnection, mark: str) -> bool:
        """See `Commits.carried_out`."""
        # An insert waits for a transaction that has the row and is still under way, as a select would not.
        row = insert(schema.commits).values(writer=self._writer, mark="")
        result = await connection.execute(
            row.on_conflict_do_update(
                index_elements=["writer"], set_={"writer": self._writer}
            ).returning(schema.commits.c.mark)
        )
        found = result.scalar_one()
        if self._newest is not None and found not in (mark, self._newest):
            raise StoreInUse(_SET_BACK)
        return bool(found == mark)
