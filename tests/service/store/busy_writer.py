"""A service whose workers never rest; it says which jobs it has accepted, until somebody kills it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.service.jobs.bench import Attempt, Bench, lost

from dropnorm.results import LogLine
from dropnorm_service.store import SqlJobStore


async def run(url: str, folder: Path) -> None:
    async with await SqlJobStore.open(url) as store:
        bench = Bench(store, folder, cpus=8)
        await bench.service.start()
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(create(bench))
            number = 0
            while True:
                number += 1
                group.create_task(work(await bench.executor.started.get(), number))


async def create(bench: Bench) -> None:
    while True:
        job = await bench.create()
        print(job.id, flush=True)


async def work(attempt: Attempt, number: int) -> None:
    for line in range(5):
        attempt.say(LogLine(message=f"line {line}"))
        await asyncio.sleep(0.001)
    if number % 5 == 0:
        attempt.end(lost())
    else:
        attempt.succeed()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2])))
