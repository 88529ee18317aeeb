"""What became of a commit that was not answered."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


class Commits(Protocol):
    """Finds transactions again."""

    async def mark(self, connection: AsyncConnection) -> str:
        """Something by which the transaction under way is found again; empty: a commit that fails writes nothing."""

    async def carried_out(self, connection: AsyncConnection, mark: str) -> bool:
        """Whether a transaction that has ended was committed."""


class SqliteCommits:
    """SQLite is a part of this process: a commit has succeeded, or it has failed."""

    async def mark(self, connection: AsyncConnection) -> str:
        """See `Commits.mark`."""
        return ""

    async def carried_out(self, connection: AsyncConnection, mark: str) -> bool:
        """See `Commits.carried_out`."""
        raise NotImplementedError("SQLite leaves no commit open")


class PostgresCommits:
    """PostgreSQL remembers what became of each transaction; see "Transaction ID and Snapshot Information Functions"
    in its manual. A transaction that a crash of the server broke off counts as aborted.
    """

    async def mark(self, connection: AsyncConnection) -> str:
        """See `Commits.mark`."""
        number = await connection.execute(text("SELECT pg_current_xact_id()::text"))
        return str(number.scalar_one())

    async def carried_out(self, connection: AsyncConnection, mark: str) -> bool:
        """See `Commits.carried_out`."""
        status = await connection.execute(
            text("SELECT pg_xact_status(CAST(CAST(:mark AS text) AS xid8))"), {"mark": mark}
        )
        return bool(status.scalar_one() == "committed")
