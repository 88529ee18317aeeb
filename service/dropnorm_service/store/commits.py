"""What became of a commit that was not answered."""

from __future__ import annotations

import uuid
from typing import Protocol

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from dropnorm_service.store import schema

SERVICE = "service"
"""The writer that has the tenure; there is one at a time."""


class Commits(Protocol):
    """Finds transactions again."""

    async def mark(self, connection: AsyncConnection) -> str:
        """Something by which the transaction under way is found again; empty: a commit that fails writes nothing."""

    async def carried_out(self, connection: AsyncConnection, mark: str) -> bool:
        """Whether the newest transaction, which has this mark, was committed."""


class SqliteCommits:
    """SQLite is a part of this process: a commit has succeeded, or it has failed."""

    async def mark(self, connection: AsyncConnection) -> str:
        """See `Commits.mark`."""
        return ""

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

    async def mark(self, connection: AsyncConnection) -> str:
        """See `Commits.mark`."""
        mark = uuid.uuid4().hex
        row = insert(schema.commits).values(writer=self._writer, mark=mark)
        await connection.execute(
            row.on_conflict_do_update(index_elements=["writer"], set_={"mark": mark})
        )
        return mark

    async def carried_out(self, connection: AsyncConnection, mark: str) -> bool:
        """See `Commits.carried_out`."""
        # An insert waits for a transaction that has the row and is still under way, as a select would not.
        row = insert(schema.commits).values(writer=self._writer, mark="")
        found = await connection.execute(
            row.on_conflict_do_update(
                index_elements=["writer"], set_={"writer": self._writer}
            ).returning(schema.commits.c.mark)
        )
        return bool(found.scalar_one() == mark)
