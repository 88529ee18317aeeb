"""Clients that submit: `python -m tests.benchmarks.submitting ADDRESS CLIENTS EACH SECONDS`.

Each has a connection of its own, submits EACH jobs, and from then on one every SECONDS on average, which it cancels at
once, so that as many wait. Says in the end how often, how long a Create took, and which answers were wrong.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import TYPE_CHECKING

from tests.benchmarks.asked import job_id, request, wrong
from tests.benchmarks.helpers import connect, say_ready, told_to_end

from dropnorm.v1 import training_job_pb2
from dropnorm.v1 import training_service_pb2 as pb

if TYPE_CHECKING:
    from dropnorm.v1.training_service_pb2_grpc import TrainingServiceAsyncStub

_CANCELLED = training_job_pb2.TrainingJob.STATE_CANCELLED


class Client:
    """One of them."""

    def __init__(self, number: int, stub: TrainingServiceAsyncStub) -> None:
        self._number = number
        self._stub = stub
        self._created = 0
        self._chance = random.Random(number)  # noqa: S311 - makes a load, guards nothing
        self.seconds: list[float] = []
        """How long each Create took."""
        self.wrong: list[str] = []

    async def create(self) -> int:
        """Submit the next job; its number."""
        self._created += 1
        asked = request(self._number, self._created)
        start = time.perf_counter()
        job = await self._stub.CreateTrainingJob(asked)
        self.seconds.append(time.perf_counter() - start)
        self._judge(job, self._created)
        return self._created

    async def go_on(self, seconds: float, until: asyncio.Task[None]) -> None:
        """Submit and cancel until it is time to end."""
        while await self._waited(seconds, until):
            number = await self.create()
            name = f"trainingJobs/{job_id(self._number, number)}"
            job = await self._stub.CancelTrainingJob(pb.CancelTrainingJobRequest(name=name))
            self._judge(job, number, _CANCELLED)

    async def _waited(self, seconds: float, until: asyncio.Task[None]) -> bool:
        """Wait, by chance more or less; whether it is not yet time to end."""
        pause = self._chance.expovariate(1.0 / seconds) if seconds else 0.0
        await asyncio.wait({until}, timeout=pause)
        return not until.done()

    def _judge(self, job: training_job_pb2.TrainingJob, number: int, *state: int) -> None:
        if problem := wrong(job, self._number, number, *state):
            self.wrong.append(problem)


async def main(address: str, count: int, each: int, seconds: float) -> None:
    """Submit until told to end."""
    clients = [Client(number, connect(address)) for number in range(count)]

    async def begin(client: Client) -> None:
        for _ in range(each):
            await client.create()

    await asyncio.gather(*map(begin, clients))
    say_ready()
    until = asyncio.create_task(told_to_end())
    for client in clients:
        client.seconds.clear()
    await asyncio.gather(*(client.go_on(seconds, until) for client in clients))
    durations = [each for client in clients for each in client.seconds]
    problems = [each for client in clients for each in client.wrong]
    print(json.dumps({"seconds": durations, "wrong": problems}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
