"""Connections: one that writes and a few that read, with the settings durability needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dropnorm_service.jobs.errors import StoreUnavailable

_READERS = 4
_BUSY_MILLISECONDS = 10_000

# WAL lets readers read while the writer writes; FULL syncs it at every commit, so that what has been
# accepted is on disk.
_SQLITE_PRAGMAS = (
    f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)


class InvalidDatabaseUrl(Exception):
    """No database can be reached by this URL; the message, for people, does not repeat its password."""


def create_engines(url: str | URL) -> tuple[AsyncEngine, AsyncEngine]:
    """An engine that writes, with a single connection, and one that reads.

    Args:
        url: `sqlite:///path`, percent-encoded, or any URL of an asynchronous driver.

    Raises:
        InvalidDatabaseUrl: it is no URL, or its driver is missing or not asynchronous.
    """
    try:
        url = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InvalidDatabaseUrl(
            "this is no database URL; one of SQLite is sqlite:////folder/jobs.db"
        ) from error
    if url.get_backend_name() == "sqlite":
        return _sqlite_engines(url.set(drivername="sqlite+aiosqlite"))
    try:
        writer = create_async_engine(url, pool_size=1, max_overflow=0)
        reader = create_async_engine(url, pool_size=_READERS, isolation_level="AUTOCOMMIT")
    except (ImportError, ArgumentError, InvalidRequestError) as error:
        raise InvalidDatabaseUrl(
            f"there is no asynchronous driver for {url.drivername}; install one and name it, "
            "as in postgresql+asyncpg://host/database"
        ) from error
    return writer, reader


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what a database says when it is away, locked, full or broken into StoreUnavailable."""
    try:
        yield
    except (IntegrityError, ProgrammingError):
        raise  # our own mistakes
    except DBAPIError as error:
        raise StoreUnavailable(f"The database of jobs cannot be used: {error.orig}") from error
    except PoolTimeout as error:
        raise StoreUnavailable(f"The database of jobs is too busy: {error}") from error


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
