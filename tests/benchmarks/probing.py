"""Measures GetTrainingJob under load, alone in its process:
`python -m tests.benchmarks.probing ADDRESS ECHO_ADDRESS CLIENTS EACH`.

A call begins every 10 ms on average whether those before have been answered or not, so that a service that stands
still for a moment meets all the calls which that moment concerns. In the same way a server that does nothing but echo
is called, less often: how long it takes is the machine's and gRPC's part. Says in the end how long each took, and which
answers were wrong.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
from tests.benchmarks import echo
from tests.benchmarks.asked import job_id, wrong
from tests.benchmarks.helpers import connect, say_ready, told_to_end
from tests.e2e.servers import own_channel

from dropnorm.v1 import training_service_pb2 as pb

_PER_SECOND, _ECHOES_PER_SECOND = 100.0, 25.0

Call = Callable[[], Coroutine[Any, Any, None]]


class _Probe:
    """Calls, and how long they took.

    Args:
        address: of the service.
        echo_address: of the server to compare it with.
        clients, each: whose jobs there are, and how many of each.
    """

    def __init__(self, address: str, echo_address: str, clients: int, each: int) -> None:
        self._stub = connect(address)
        self._echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = own_channel(
            echo_address
        ).unary_unary(echo.METHOD, request_serializer=None, response_deserializer=None)
        self._clients, self._each = clients, each
        self._chance = random.Random(0)  # noqa: S311 - makes a load, guards nothing
        self.seconds: list[float] = []
        self.echo_seconds: list[float] = []
        self.wrong: list[str] = []

    async def get(self) -> None:
        """Ask for one of the jobs."""
        client = self._chance.randrange(self._clients)
        number = self._chance.randrange(self._each) + 1
        request = pb.GetTrainingJobRequest(name=f"trainingJobs/{job_id(client, number)}")
        start = time.perf_counter()
        job = await self._stub.GetTrainingJob(request)
        self.seconds.append(time.perf_counter() - start)
        if problem := wrong(job, client, number):
            self.wrong.append(problem)

    async def echo(self) -> None:
        """Call the other one."""
        start = time.perf_counter()
        await self._echo(b"x" * 64)
        self.echo_seconds.append(time.perf_counter() - start)

    async def repeat(self, call: Call, per_second: float, until: asyncio.Task[None]) -> None:
        """Begin calls by chance, so many a second on average."""
        async with asyncio.TaskGroup() as group:
            while not until.done():
                group.create_task(call())
                await asyncio.sleep(self._chance.expovariate(per_second))


async def main(address: str, echo_address: str, clients: int, each: int) -> None:
    """Call until told to end."""
    probe = _Probe(address, echo_address, clients, each)
    await probe.get()  # the connections are made
    await probe.echo()
    probe.seconds.clear()
    probe.echo_seconds.clear()
    say_ready()
    until = asyncio.create_task(told_to_end())
    await asyncio.gather(
        probe.repeat(probe.get, _PER_SECOND, until),
        probe.repeat(probe.echo, _ECHOES_PER_SECOND, until),
    )
    found = {"seconds": probe.seconds, "echo": probe.echo_seconds, "wrong": probe.wrong}
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
