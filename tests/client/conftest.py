"""A scripted service, and both clients behind one face, so that one test says what both do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest
from tests.client.scripted import ScriptedService

from dropnorm import AsyncClient, Client


class Kind(Protocol):
    """One kind of client, as a test uses either."""

    def open(self, address: str, **options: Any) -> Any:
        """A client."""

    async def do(self, method: Any, *arguments: Any, **options: Any) -> Any:
        """Call a method of a client or handle."""

    async def next(self, iterator: Any) -> Any:
        """What an iterator of a client or handle yields next."""

    async def items(self, iterator: Any) -> list[Any]:
        """Everything that it yields from then on."""


class Blocking:
    """`Client`, in threads, because the service runs in the test's event loop."""

    open = Client

    async def do(self, method: Any, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(method, *arguments, **options)

    async def next(self, iterator: Any) -> Any:
        return await asyncio.to_thread(next, iterator)

    async def items(self, iterator: Any) -> list[Any]:
        return await asyncio.to_thread(list, iterator)


class Awaiting:
    """`AsyncClient`."""

    open = AsyncClient

    async def do(self, method: Any, *arguments: Any, **options: Any) -> Any:
        return await method(*arguments, **options)

    async def next(self, iterator: Any) -> Any:
        return await anext(iterator)

    async def items(self, iterator: Any) -> list[Any]:
        return [item async for item in iterator]


@pytest.fixture(params=[Blocking, Awaiting], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param()
    return made


@pytest.fixture
async def service() -> AsyncIterator[ScriptedService]:
    """A service under the test's command."""
    running = ScriptedService()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def client(kind: Kind, service: ScriptedService) -> AsyncIterator[Any]:
    """A client of that service, of either kind."""
    made = kind.open(service.address, timeout=50.0, patience=50.0)
    yield made
    await kind.do(made.close)
