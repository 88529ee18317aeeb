"""Tokens in the database of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dropnorm_service.jobs.callers import Caller, Role
from dropnorm_service.jobs.tokens import Token
from dropnorm_service.store.reader import Reader
from dropnorm_service.store.rows import from_micros, to_micros
from dropnorm_service.store.schema import tokens
from dropnorm_service.store.writer import Writer

_PORTION = 500


class SqlTokenStore:
    """Tokens, as `jobs.tokens.TokenStore` asks; `SqlJobStore.tokens` is one."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def add(self, token: Token) -> None:
        """See `TokenStore.add`."""
        values = {
            "id": token.id,
            "digest": token.digest.hex(),
            "user_name": token.caller.user,
            "role": str(token.caller.role),
            "create_time": to_micros(token.create_time),
            "expire_time": token.expire_time and to_micros(token.expire_time),
        }

        async def add(connection: AsyncConnection) -> None:
            await connection.execute(insert(tokens).values(values))

        await self._writer.write(add)

    async def all(self) -> Sequence[Token]:
        """See `TokenStore.all`."""
        rows = await self._reader.read(select(tokens).order_by(tokens.c.create_time, tokens.c.id))
        return [_token(row) for row in rows]

    async def valid(self, now: datetime) -> Sequence[Token]:
        """See `TokenStore.valid`."""
        rows = await self._reader.read(_valid(now))
        found = []
        for start in range(0, len(rows), _PORTION):
            found += [_token(row) for row in rows[start : start + _PORTION]]
            await asyncio.sleep(0)  # calls are answered meanwhile
        return found

    async def find(self, token_ids: Iterable[str], now: datetime) -> Sequence[Token]:
        """See `TokenStore.find`."""
        asked, found = list(token_ids), []
        for start in range(0, len(asked), _PORTION):
            among = tokens.c.id.in_(asked[start : start + _PORTION])
            found += [_token(row) for row in await self._reader.read(_valid(now).where(among))]
        return found

    async def revoke(self, token_id: str, now: datetime) -> None:
        """See `TokenStore.revoke`."""

        async def revoke(connection: AsyncConnection) -> None:
            known = tokens.c.id == token_id
            await connection.execute(update(tokens).where(known).values(revoke_time=to_micros(now)))

        await self._writer.write(revoke)

    async def purge(self, ended_before: datetime) -> None:
        """See `TokenStore.purge`."""
        limit = to_micros(ended_before)

        async def purge(connection: AsyncConnection) -> None:
            ended = (tokens.c.revoke_time < limit) | (tokens.c.expire_time < limit)
            await connection.execute(delete(tokens).where(ended))

        await self._writer.write(purge)


def _valid(now: datetime) -> Select[Any]:
    return select(tokens).where(
        tokens.c.revoke_time.is_(None),
        tokens.c.expire_time.is_(None) | (tokens.c.expire_time > to_micros(now)),
    )


def _token(row: Row[Any]) -> Token:
    return Token(
        id=row.id,
        caller=Caller(row.user_name, Role[row.role.upper()]),
        digest=bytes.fromhex(row.digest),
        create_time=from_micros(row.create_time),
        expire_time=None if row.expire_time is None else from_micros(row.expire_time),
        revoke_time=None if row.revoke_time is None else from_micros(row.revoke_time),
    )
