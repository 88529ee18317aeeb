"""The file of a SQLite database: where it is, and the right to write it, which one service has at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.lock import Held, hold
from dropnorm_service.store.errors import StoreInUse


def path_of(url: URL) -> Path:
    """The file of a database of SQLite, from the root on and without links, so that it has one name."""
    return Path(url.database or "").resolve()


@contextmanager
def sole_service(url: URL) -> Iterator[None]:
    """Hold a database of SQLite until the block ends or the process does, as a file beside it says.

    Raises:
        StoreInUse: another service holds it.
        StoreUnavailable: the file beside it cannot be made or written.
    """
    path = path_of(url)
    try:
        file = hold(path.with_name(f"{path.name}.lock"))
    except Held as holder:
        raise StoreInUse(
            f"another service (process {holder}) uses the database {path}, and one database serves one service: "
            "connect to that one, stop it, or give this one another database_url"
        ) from None
    except OSError as error:
        raise StoreUnavailable(
            f"The database of jobs cannot be used: {error.filename or path}: {error.strerror}"
        ) from error
    with file:
        yield
