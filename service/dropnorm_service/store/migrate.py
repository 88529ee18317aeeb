"""Bring a database's tables to the form that this version of the code knows."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

MIGRATIONS = Path(__file__).with_name("migrations")


class StoreTooNew(Exception):
    """The database was written by a newer version; the message says what to do."""


def upgrade(connection: Connection) -> None:
    """Run the migrations that the database lacks, all in the connection's transaction.

    Raises:
        StoreTooNew: the database has migrations that this version does not know.
    """
    refuse_newer(connection)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def versions(connection: Connection) -> tuple[tuple[str, ...], bool]:
    """The migrations that a database has reached, none when it has no tables, and whether these are the newest."""
    there = MigrationContext.configure(connection).get_current_heads()
    newest = ScriptDirectory.from_config(_config()).get_heads()
    return tuple(there), set(there) == set(newest)


def refuse_newer(connection: Connection) -> None:
    """
    Raises:
        StoreTooNew: the database has migrations that this version does not know.
    """
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    unknown = set(versions(connection)[0]) - known
    if unknown:
        raise StoreTooNew(
            f"The database {connection.engine.url.render_as_string()} was written by a newer version "
            f"of dropnorm (it has migration {', '.join(sorted(unknown))}, unknown here): run that "
            "version, or give another data directory."
        )


def is_current(connection: Connection) -> bool:
    """Whether a database lacks no migration and has none that this version does not know."""
    return versions(connection)[1]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
