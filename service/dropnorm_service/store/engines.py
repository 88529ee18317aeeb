"""Connections: one that writes and a few that read, with the settings durability needs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.store import postgres
from dropnorm_service.store.errors import InvalidDatabaseUrl, translated

_READERS = 4
_BUSY_MILLISECONDS = 10_000

_LOG_BYTES = 16 * 2**20

# WAL lets readers read while the writer writes; FULL syncs it at every commit, so that what has been
# accepted is on disk. What a long reader let the log grow to is given back.
_SQLITE_PRAGMAS = (
    f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA journal_size_limit = {_LOG_BYTES}",
)


def parse_url(url: str | URL) -> URL:
    """The URL of a database that jobs can be kept in.

    Raises:
        InvalidDatabaseUrl: it is no URL, or of another kind of database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InvalidDatabaseUrl(
            "this is no database URL; one of SQLite is sqlite:////folder/jobs.db, "
            "one of PostgreSQL postgresql://user@host:5432/database"
        ) from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise InvalidDatabaseUrl(
            f"jobs are kept in SQLite or PostgreSQL, not in {parsed.get_backend_name()}"
        )
    if parsed.get_backend_name() == "sqlite" and not _names_a_file(parsed):
        raise InvalidDatabaseUrl(
            "a database of SQLite is named by its file and nothing else: sqlite:////folder/jobs.db"
        )
    return parsed


def _names_a_file(url: URL) -> bool:
    database = url.database or ":memory:"
    return database != ":memory:" and not database.startswith("file:")


def create_engines(url: str | URL) -> tuple[AsyncEngine, AsyncEngine]:
    """An engine that writes, with a single connection, and one that reads.

    Args:
        url: `sqlite:///path`, percent-encoded, or `postgresql://user@host:5432/database`.

    Raises:
        InvalidDatabaseUrl: it cannot be used; the message says why.
    """
    url = parse_url(url)
    if url.get_backend_name() == "sqlite":
        return _sqlite_engines(url.set(drivername="sqlite+aiosqlite"))
    return postgres.create_engines(url)


@contextlib.asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection, which goes back when the block ends; one that has failed is not used again.

    Raises:
        StoreUnavailable: there is none, or the database failed within the block.
    """
    with translated():
        async with engine.connect() as connection:
            try:
                with translated():
                    yield connection
            except StoreUnavailable:
                # A rollback might wait for a server that will not answer either.
                await connection.invalidate()
                raise


def _sqlite_engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    # Python's driver begins transactions by rules of its own; without an isolation level it leaves
    # that to us, and reads, which need none, save the way to its thread and back.
    driver = {"isolation_level": None}
    writer = create_async_engine(url, connect_args=driver, pool_size=1, max_overflow=0)
    reader = create_async_engine(
        url, connect_args=driver, pool_size=_READERS, pool_reset_on_return=None
    )
    event.listen(writer.sync_engine, "connect", _set_pragmas)
    event.listen(writer.sync_engine, "begin", _begin_writing)
    event.listen(reader.sync_engine, "connect", _set_pragmas)
    return writer, reader


def _set_pragmas(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    try:
        for pragma in _SQLITE_PRAGMAS:
            cursor.execute(pragma)
    except BaseException:
        connection.close()  # the pool has not heard of it yet, and its thread would live on
        raise
    cursor.close()


def _begin_writing(connection: Connection) -> None:
    # Takes the lock before it reads, and so never has to give up in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
