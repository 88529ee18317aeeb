"""A service that asks for tokens, and callers who have them or not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tests.service.api.edge import edge_of
from tests.service.datasets.folders import Folder
from tests.service.jobs.bench import Bench

from dropnorm.v1 import dataset_service_pb2, model_service_pb2, training_service_pb2
from dropnorm_service.api.places import CallLimits
from dropnorm_service.jobs.authentication import Authenticator
from dropnorm_service.jobs.callers import Role
from dropnorm_service.jobs.ports import Registry
from dropnorm_service.jobs.service import utc_now
from dropnorm_service.jobs.tokens import Token, Tokens
from dropnorm_service.store import SqlJobStore

FILES = (
    training_service_pb2,
    dataset_service_pb2,
    model_service_pb2,
    health_pb2,
    reflection_pb2,
)
SERVICES: list[ServiceDescriptor] = [
    service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for service in SERVICES
    for method in service.methods
}
"""Every rpc behind the port, from the descriptors."""


@dataclass
class Guarded:
    """A service with tokens on, and a connection to it."""

    channel: grpc.aio.Channel
    authenticator: Authenticator
    tokens: Tokens
    database: Path

    async def token(
        self, role: Role = Role.USER, lifetime: timedelta | None = None, user: str | None = None
    ) -> tuple[Token, str]:
        return await self.tokens.create(user or str(role), role, lifetime)

    def call(self, method: str, bearer: str | None = None, request: bytes = b"") -> Awaitable[Any]:
        """One call with one request, whatever the method's form; its last reply."""
        return self._call(method, () if bearer is None else authorization(bearer), request)

    async def _call(self, method: str, metadata: Any, request: bytes) -> bytes:
        kind = METHODS[method]
        make: Any
        if kind.server_streaming:
            make = (
                self.channel.stream_stream if kind.client_streaming else self.channel.unary_stream
            )
        else:
            make = self.channel.stream_unary if kind.client_streaming else self.channel.unary_unary
        given = iter([request]) if kind.client_streaming else request
        call = make(method)(given, metadata=metadata, timeout=60)
        if not kind.server_streaming:
            return bytes(await call)
        replies = [reply async for reply in call]
        return replies[-1] if replies else b""

    async def execute(self, sql: str) -> None:
        """What another process does to the database."""
        await asyncio.to_thread(self._execute, sql)

    def _execute(self, sql: str) -> None:
        with closing(sqlite3.connect(self.database, timeout=60)) as connection, connection:
            connection.execute(sql)


def authorization(bearer: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {bearer}"),)


@asynccontextmanager
async def guarded(
    bench: Bench,
    store: SqlJobStore,
    folder: Path,
    clock: Callable[[], datetime] = utc_now,
    *,
    uploads: Folder | None = None,
    registry: Registry | None = None,
    limits: CallLimits | None = None,
) -> AsyncIterator[Guarded]:
    authenticator = Authenticator(store.tokens, clock)
    server = edge_of(
        bench,
        folder,
        authenticator=authenticator,
        uploads=uploads,
        registry=registry,
        limits=limits,
    )
    address = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(address) as channel:
        tokens = Tokens(store.tokens, clock)
        yield Guarded(channel, authenticator, tokens, folder / "jobs.db")
    await server.stop(grace=0.0)
    await authenticator.close()


def now() -> datetime:
    return datetime.now(UTC)
