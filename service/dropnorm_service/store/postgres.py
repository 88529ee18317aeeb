"""Connections to PostgreSQL: what a URL may say, and how soon a dead database is noticed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import asyncpg
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dropnorm_service.store.errors import InvalidDatabaseUrl

DRIVER = "postgresql+asyncpg"

_READERS = 4
_CONNECT_SECONDS = 10.0
_COMMAND_SECONDS = 20.0
_POOL_SECONDS = 10.0
_GOODBYE_SECONDS = 0.5

# What asyncpg reads by itself, with libpq's meaning; the last two go to the server.
_TLS = {"sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert"}
_TLS_VERSIONS = {"ssl_min_protocol_version", "ssl_max_protocol_version"}
_PLACE = {"host", "port", "dbname", "user", "password", "passfile", "target_session_attrs"}
_UNDERSTOOD = _TLS | _TLS_VERSIONS | _PLACE | {"application_name", "options"}

# The server ends what its client no longer waits for, or can no longer hear of: a connection whose other end is gone
# would keep the lock of a service that is gone too (`tenure`). What is accepted is on disk, whatever a role's own
# settings say.
_SERVER_SETTINGS = {
    "idle_in_transaction_session_timeout": "60s",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "synchronous_commit": "on",
    "tcp_keepalives_count": "3",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
}


class _Connection(asyncpg.Connection):
    """One that does not wait long for the answer to its goodbye: the host may be gone, and a service has to end."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncpg has it
        """Close it, in good order if the server answers soon."""
        with contextlib.suppress(TimeoutError):  # it is closed all the same
            await super().close(timeout=timeout or _GOODBYE_SECONDS)


def create_engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    """An engine that writes, with a single connection, and one that reads.

    Args:
        url: of the dialect `postgresql`, with libpq's parameters.

    Raises:
        InvalidDatabaseUrl: a parameter cannot be used; the message names it.
    """
    if url.drivername not in ("postgresql", DRIVER):
        raise InvalidDatabaseUrl(
            f"the driver {url.get_driver_name()} is not used here; write postgresql://user@host:5432/database"
        )
    wrong = [name for name in url.query if name not in _UNDERSTOOD | {"connect_timeout"}]
    if wrong:
        raise InvalidDatabaseUrl(
            f"{', '.join(wrong)} cannot be set in the URL; connect_timeout, {', '.join(sorted(_UNDERSTOOD))} can"
        )
    if any(not isinstance(value, str) for value in url.query.values()):
        raise InvalidDatabaseUrl("a parameter stands there twice; one database serves one service")
    arguments = _arguments(url)

    async def connect() -> Any:
        return await asyncpg.connect(**arguments)

    plain = url.set(drivername=DRIVER, query={})
    writer = create_async_engine(
        plain, async_creator=connect, pool_size=1, max_overflow=0, pool_timeout=_POOL_SECONDS
    )
    reader = create_async_engine(
        plain,
        async_creator=connect,
        pool_size=_READERS,
        max_overflow=_READERS,
        pool_timeout=_POOL_SECONDS,
        isolation_level="AUTOCOMMIT",
    )
    return writer, reader


def _arguments(url: URL) -> Mapping[str, Any]:
    timeout = url.query.get("connect_timeout", str(_CONNECT_SECONDS))
    try:
        seconds = float(str(timeout))
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise InvalidDatabaseUrl(f"connect_timeout is a number of seconds, not {timeout}")
    named = {} if "application_name" in url.query else {"application_name": "dropnorm"}
    dsn = url.set(drivername="postgresql").difference_update_query(["connect_timeout"])
    return {
        "connection_class": _Connection,
        "dsn": dsn.render_as_string(hide_password=False),
        "timeout": seconds,
        "command_timeout": _COMMAND_SECONDS,
        "server_settings": _SERVER_SETTINGS | named,
    }
