"""The right to write a PostgreSQL database: one service has it at a time.

An advisory lock, held by the connection that writes, says who has it. The lock goes only when the session of its
holder has ended, and with it the session's last transaction. From this follow three things:

- Whoever has the lock reads what all transactions of his predecessors came to; none is under way. So a commit whose
  answer was lost can be looked up (`Writer`).
- Transactions that write come one after the other. So global positions, which a sequence gives out within them, become
  visible in their order, and a reader that has come to a position will find nothing new before it.
- What a service has in memory stays true while it reconnects, unless another service wrote meanwhile. Each service
  counts the tenure up when it begins, and looks when it is back whether the count is still its own.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from dropnorm_service.store.errors import StoreInUse

# Any number, as long as nobody else locks by it; the second half of the key keeps schemas apart.
_LOCK = "pg_try_advisory_lock(1685548909, hashtext(current_schema()))"
_MYSELF = "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"
# A predecessor that was killed may still be ending its last statement.
_PATIENCE = 5.0
_PAUSE = 0.1

_IN_USE = (
    "another service uses this database, and one database serves one service: connect to that one, stop it, "
    "or give this one another database_url"
)

Session = tuple[int, str]
"""Process id and start of a session's process in the server, which together tell it from every other."""


class Tenure:
    """Sees to it that each new connection of an engine has the right to write.

    Args:
        engine: of PostgreSQL, with a single connection.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._sessions: list[Session] = []
        """Of this service, those that may hold the lock, as far as it knows."""
        self._number: int | None = None
        event.listen(engine.sync_engine, "connect", self._connected)

    def begun(self, number: int) -> None:
        """The service has counted the tenure up to this number."""
        self._number = number

    def _connected(self, connection: Any, record: object) -> None:
        try:
            self._take(connection)
        except BaseException:
            connection.terminate()  # the pool has not heard of it yet
            raise

    def _take(self, connection: Any) -> None:
        cursor = connection.cursor()
        pid, start = _only(cursor, _MYSELF)
        # The network may have parted us from a session that the server still believes in.
        self._sessions = [each for each in self._sessions if _terminated(cursor, each)]
        # Noted before it asks: the lock may be given, and the answer lost.
        self._sessions.append((pid, start))
        deadline = time.monotonic() + _PATIENCE
        while not _only(cursor, f"SELECT {_LOCK}")[0]:
            if time.monotonic() > deadline:
                raise StoreInUse(_IN_USE)
            await_only(asyncio.sleep(_PAUSE))
        self._sessions = [(pid, start)]
        if self._number is not None and _only(cursor, "SELECT tenure FROM service") != (
            self._number,
        ):
            raise StoreInUse(
                "another service has used this database since this one lost its connection; what this one knew of "
                "its jobs is not true any more"
            )
        connection.commit()  # the lock is the session's, and stays


def _terminated(cursor: Any, session: Session) -> bool:
    """End a session; whether there still was one."""
    cursor.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid = $1 AND backend_start::text = $2",
        session,
    )
    return cursor.fetchone() is not None


def _only(cursor: Any, statement: str) -> tuple[Any, ...]:
    cursor.execute(statement)
    row: tuple[Any, ...] = cursor.fetchone()
    return row
