"""What can be wrong with a database, and what it says turned into errors of the domain."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import asyncpg
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dropnorm_service.jobs.errors import StoreUnavailable

# Classes of SQLSTATE that tell of a statement or a value, not of the database.
_OF_STATEMENTS = ("22", "23", "42")
_INSUFFICIENT_PRIVILEGE = "42501"
# What SQLAlchemy passes on as it is: in connecting, and of a connection that breaks within an answer.
_OF_DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class InvalidDatabaseUrl(Exception):
    """No database can be reached by this URL; the message, for people, does not repeat its password."""


class StoreInUse(Exception):
    """This service may not write the database, as another one does or it was set back; the message says what to do."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what a database says when it is away, locked, full or broken into StoreUnavailable.

    Raises:
        InvalidDatabaseUrl: a parameter of the URL has a value that the driver does not take.
    """
    try:
        yield
    except DBAPIError as error:
        if _is_our_mistake(error):
            raise
        raise _unusable(error.orig) from error
    except PoolTimeout as error:
        raise StoreUnavailable(f"The database of jobs is too busy: {error}") from error
    except _OF_DRIVER as error:
        raise _unusable(error) from error
    except TimeoutError as error:
        raise StoreUnavailable("The database of jobs does not answer.") from error
    except OSError as error:
        raise StoreUnavailable(
            f"The database of jobs cannot be reached: {error.strerror or error}"
        ) from error


def _is_our_mistake(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None) or ""
    if state == _INSUFFICIENT_PRIVILEGE:
        return False
    return isinstance(error, DataError | IntegrityError | ProgrammingError) or state.startswith(
        _OF_STATEMENTS
    )


def _unusable(error: BaseException | None) -> StoreUnavailable | InvalidDatabaseUrl:
    cause = error.__cause__ if error is not None and error.__cause__ else error
    if isinstance(cause, asyncpg.ClientConfigurationError):
        return InvalidDatabaseUrl(str(cause))
    return StoreUnavailable(f"The database of jobs cannot be used: {error}")
