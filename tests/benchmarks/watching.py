"""Many watchers of some jobs: `python -m tests.benchmarks.watching ADDRESS COUNT JOB...`.

They are spread over the jobs and over connections. Prints `ready` when each has had its first event, and in the end the
sequence numbers that each got, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.benchmarks.helpers import connect, say_ready

from dropnorm.v1 import training_service_pb2

if TYPE_CHECKING:
    from dropnorm.v1.training_service_pb2_grpc import TrainingServiceAsyncStub

_PER_CONNECTION = 50


async def main(address: str, count: int, jobs: Sequence[str]) -> None:
    """Watch until the service ends every stream."""
    stubs = [connect(address) for _ in range(-(-count // _PER_CONNECTION))]
    begun = asyncio.Semaphore(0)
    watchers = [
        asyncio.create_task(
            _watch(stubs[number // _PER_CONNECTION], jobs[number % len(jobs)], begun)
        )
        for number in range(count)
    ]
    for _ in range(count):
        await begun.acquire()
    say_ready()
    print(json.dumps(await asyncio.gather(*watchers)))


async def _watch(stub: TrainingServiceAsyncStub, job: str, begun: asyncio.Semaphore) -> list[int]:
    seen: list[int] = []
    async for event in stub.WatchTrainingJob(
        training_service_pb2.WatchTrainingJobRequest(name=job)
    ):
        if not seen:
            begun.release()
        seen.append(event.sequence)
    return seen


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
