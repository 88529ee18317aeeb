"""The store: whether it is there, whole, and of this version."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from dropnorm_service.doctor.findings import Findings, failure, ok, warning
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.settings import Settings
from dropnorm_service.store import InvalidDatabaseUrl, StoreTooNew
from dropnorm_service.store.inspection import StoreDamaged, inspect

_SKEW = timedelta(minutes=1)


def look(settings: Settings) -> Findings:
    """Read it; nothing is written, and no migration is run."""
    try:
        report = asyncio.run(inspect(settings.store_url))
    except InvalidDatabaseUrl as error:
        yield failure("store", f"database_url: {error}.", "Correct --database-url.")
        return
    except StoreTooNew as error:
        yield failure(
            "store", str(error), "Run the newer version, or restore the backup from before it."
        )
        return
    except StoreDamaged as error:
        yield failure(
            "store",
            f"The database is damaged: {error}.",
            "Stop the service, keep a copy of the file, and restore the last backup.",
        )
        return
    except StoreUnavailable as error:
        yield failure(
            "store",
            error.message,
            "See to it that the database runs and can be reached, with the user and password of --database-url.",
        )
        return
    if report is None:
        yield ok("store", "There is none yet; the service makes it when it starts.")
        return
    if not report.current:
        yield warning(
            "store",
            "It was written by an older version.",
            "Make a backup; the service migrates it when it starts, and there is no way back but the backup.",
        )
    elif not report.checked:
        yield warning(
            "store",
            "It is of this version, but too large to be checked for damage in a few seconds.",
            "Check it when the service is stopped: sqlite3 FILE 'PRAGMA quick_check'.",
        )
    else:
        yield ok("store", f"It can be read and is of this version; it has {report.jobs:,} jobs.")
    if report.newest is not None and report.newest > datetime.now(UTC) + _SKEW:
        yield warning(
            "clock",
            f"The newest event of the store is dated {report.newest:%Y-%m-%d %H:%M} UTC, which is in the future.",
            "Set the clock of this machine, or of the one that the service ran on.",
        )
