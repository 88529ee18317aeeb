"""A look at a database that changes nothing: no migration is run, no table is made."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, urlencode

from sqlalchemy import Connection, func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.store.engines import create_engines
from dropnorm_service.store.migrate import refuse_newer, versions
from dropnorm_service.store.rows import from_micros
from dropnorm_service.store.schema import events, jobs

_PATIENCE = 10.0
_STEPS_BETWEEN_LOOKS = 100_000


class StoreDamaged(Exception):
    """The file is no database, or is damaged; the message says how."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a look at a store found."""

    current: bool
    """Whether it has every migration that this version knows."""
    checked: bool
    """Whether its file was checked for damage to the end; true where the database looks after itself."""
    jobs: int
    newest: datetime | None
    """When its newest event happened; None: it has none, or is of an older version."""


async def inspect(url: str) -> Inspection | None:
    """Look at a store; None when there is none yet.

    Args:
        url: as `SqlJobStore.open` takes it.

    Raises:
        InvalidDatabaseUrl: the URL is wrong, or its driver cannot be used.
        StoreTooNew: a newer dropnorm has written it.
        StoreDamaged: its file is.
        StoreUnavailable: it cannot be reached.
    """
    writer, reader = create_engines(url)
    await writer.dispose()
    checked = True
    if reader.url.get_backend_name() == "sqlite":
        await reader.dispose()
        path = Path(reader.url.database or "")
        if not await asyncio.to_thread(path.exists):
            return None
        checked = await asyncio.to_thread(check_sqlite, path)
        reader = _read_only(path)
    try:
        return await _look(reader, checked)
    finally:
        await reader.dispose()


def check_sqlite(path: Path) -> bool:
    """Check a SQLite file for damage; whether that came to its end within some seconds.

    Raises:
        StoreDamaged: it is damaged, no database, or cannot be read.
    """
    deadline = time.monotonic() + _PATIENCE
    try:
        query = urlencode(_read_only_query(path))
        with closing(sqlite3.connect(f"file:{quote(str(path))}?{query}", uri=True)) as database:
            database.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return False
        raise StoreDamaged(str(error)) from error
    except sqlite3.DatabaseError as error:
        raise StoreDamaged(str(error)) from error
    if said != "ok":
        raise StoreDamaged(" ".join(said.split()))
    return True


async def _look(engine: AsyncEngine, checked: bool) -> Inspection | None:
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_read, checked)
    except ProgrammingError as error:
        raise StoreUnavailable(f"The database has no store of dropnorm: {error.orig}") from error
    except DBAPIError as error:
        raise StoreUnavailable(f"The database of jobs cannot be used: {error.orig}") from error
    except OSError as error:
        raise StoreUnavailable(f"The database of jobs cannot be reached: {error}") from error


def _read(connection: Connection, checked: bool) -> Inspection | None:
    refuse_newer(connection)
    there, current = versions(connection)
    if not there:
        return None
    number: int = connection.execute(select(func.count()).select_from(jobs)).scalar_one()
    last = select(events.c.time).order_by(events.c.position.desc()).limit(1)
    newest: int | None = connection.execute(last).scalar()
    return Inspection(
        current=current,
        checked=checked,
        jobs=number,
        newest=None if newest is None else from_micros(newest),
    )


def _read_only(path: Path) -> AsyncEngine:
    query = _read_only_query(path) | {"uri": "true"}
    return create_async_engine(
        URL.create("sqlite+aiosqlite", database=f"file:{quote(str(path))}", query=query)
    )


def _read_only_query(path: Path) -> dict[str, str]:
    """How to open a file without changing it. Even a reader makes the files of a WAL, unless nobody can be writing."""
    written = path.with_name(f"{path.name}-wal").exists()
    return {"mode": "ro"} if written else {"mode": "ro", "immutable": "1"}
