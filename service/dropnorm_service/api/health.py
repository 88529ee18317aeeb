"""The standard health service, grpc.health.v1: what was reported last, told to whoever asks or watches.

gRPC's own holds a lock while it writes to a watcher, so that one who does not read keeps every report waiting. Here
a report only notes what is new: each watcher takes the newest status when its own connection has room for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer as HealthServicerBase

from dropnorm_service.jobs.errors import NoSuchService
from dropnorm_service.jobs.limits import Places

MOST_WATCHERS = 1_000
_PAUSE = 5.0

Context = grpc.aio.ServicerContext[Any, Any]


class HealthServicer(HealthServicerBase):
    """The rpcs of Health.

    Args:
        names: the services whose health is told; each serves until something else is reported.
        most_watchers: streams of Watch at once, of all callers together.
    """

    def __init__(self, names: Iterable[str], most_watchers: int = MOST_WATCHERS) -> None:
        self._statuses: dict[str, int] = dict.fromkeys(names, HealthCheckResponse.SERVING)
        self._changed = asyncio.Event()
        self._places = Places(
            "health_watches",
            most_watchers,
            "{limit} streams watch the health of the service, as many as it tells at once; ask by Check.",
            retry_after=_PAUSE,
        )

    def report(self, names: Iterable[str], *, healthy: bool) -> None:
        """Say how some services are; nobody is waited for."""
        status = HealthCheckResponse.SERVING if healthy else HealthCheckResponse.NOT_SERVING
        said = self._statuses | dict.fromkeys(names, status)
        if said != self._statuses:
            self._statuses = said
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(self, request: HealthCheckRequest, context: Context) -> Any:
        if request.service not in self._statuses:
            raise NoSuchService(request.service)
        return HealthCheckResponse(status=self._statuses[request.service])

    async def List(self, request: Any, context: Context) -> Any:
        statuses = {name: HealthCheckResponse(status=each) for name, each in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]  # not in the stubs

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[Any]:
        with self._places.taken("service"):
            told: int | None = None
            while True:
                changed = self._changed
                status = self._statuses.get(request.service, HealthCheckResponse.SERVICE_UNKNOWN)
                if status != told:
                    told = status
                    yield HealthCheckResponse(status=status)
                else:
                    await changed.wait()
