"""Consistent copies of databases that are in use."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

from dropnorm_service.store.engines import parse_url
from dropnorm_service.store.files import path_of


class BackupFailed(Exception):
    """There is no copy; the message says why and what to do."""


def copy_database(url: str, folder: Path) -> Path:
    """Copy the database of a URL, as it is at one moment; services may go on to write it.

    Args:
        url: as `SqlJobStore.open` takes it.
        folder: where the copy goes: `dropnorm.db` of SQLite, `dropnorm.dump` of PostgreSQL.

    Raises:
        BackupFailed: it could not be copied.
        InvalidDatabaseUrl: the URL cannot be used.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        target = folder / "dropnorm.db"
        copy_sqlite(path_of(parsed), target)
        return target
    program = shutil.which("pg_dump")
    if program is None:
        raise BackupFailed(
            "the store is in PostgreSQL, and pg_dump is not on the PATH; install PostgreSQL's client programs"
        )
    target = folder / "dropnorm.dump"
    # What stands on a command line can be read by everybody on the machine.
    environment = os.environ | ({"PGPASSWORD": str(parsed.password)} if parsed.password else {})
    source = parsed.set(drivername="postgresql", password=None).render_as_string()
    done = subprocess.run(
        [program, "--format=custom", "--no-owner", f"--file={target}", f"--dbname={source}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BackupFailed(f"pg_dump failed: {done.stderr.strip()}")
    return target


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a SQLite database with SQLite's own online backup.

    Raises:
        BackupFailed: it could not be copied.
    """
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as origin,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            origin.backup(copy)
    except (sqlite3.Error, ValueError) as error:
        raise BackupFailed(f"the database {source} cannot be copied: {error}") from error
