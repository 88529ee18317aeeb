"""A service whose workers never rest; it says which jobs it has accepted and which have ended, until it is killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.service.jobs.bench import Attempt, Bench, lost

from dropnorm.results import Event, LogLine, StateChanged
from dropnorm_service.store import SqlJobStore


async def run(url: str, folder: Path) -> None:
    async with await SqlJobStore.open(url) as store:
        bench = Bench(store, folder, cpus=8)
        bench.jobs.on_growth(tell_ends)
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
        print("accepted", job.id, flush=True)


def tell_ends(events: Sequence[Event]) -> None:
    for event in events:
        if isinstance(event.payload, StateChanged) and event.payload.state.terminal:
            print("ended", event.training_job.rpartition("/")[2], flush=True)


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
