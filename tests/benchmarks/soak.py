"""An hour of a busy service in minutes, and whether the server's memory is flat over it.

The hour: four slots that always train, each with an event a second, as often as progress is told, so 14,400 events, in
jobs of ten minutes. Three watch each; a fourth stops reading at the beginning and reads on at the end. Beside that
600 jobs are queued and cancelled, 600 watches come and go, and Get or List is called once a second. All of it is real
but the time: small networks make an event in milliseconds, and whatever else belongs to the hour keeps step.

Before it, all that has a limit is filled to it: the jobs that are kept in memory, their evaluations, pages of journals,
and replies. What grows after that would grow for ever.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

import psutil
from tests.benchmarks.helpers import connect
from tests.benchmarks.rows import Row
from tests.benchmarks.services import DIGITS, ENDLESS, pid, running

import dropnorm as dn
from dropnorm.aio import AsyncClient
from dropnorm.v1 import training_service_pb2 as pb

_HOUR = {"events": 14_400, "queued": 600, "watches": 600, "calls": 3_600}
_WARM_UP_JOBS, _WARM_UP_TRAININGS = 540, 21
_AT_ONCE = 20
_LOOK = 5
_QUICK_SHARE = 0.2
_EPOCHS = 600
_SLOTS = 2
_TRAINING = 3  # so that there is always one for a slot that is free
_WATCHERS = 3
_CALLING = 4
_SAMPLES = 200
_GROWTH, _LATE_GROWTH = 1.05, 1.02

_SPEC = DIGITS.model_copy(
    update={
        "architecture": dn.MLP(hidden=(8,)),
        "data": dn.Data(dataset="iris"),
        "optimization": dn.Optimization(epochs=_EPOCHS, batch_size=128),
        "evaluation": dn.EvaluationSettings(train_metrics=False),
    }
)


def measure(quick: bool) -> Iterator[Row]:
    """The whole hour, or a fifth of it."""
    share = _QUICK_SHARE if quick else 1.0
    with running(cpu_slots=_SLOTS, threads_per_slot=1, tracking=False) as service:
        soak = asyncio.run(_soak(service.address, pid(service), share))
    quarters = _quarters(soak.memory)
    growth, late = quarters[-1] / quarters[0], quarters[-1] / quarters[-2]
    done = ", ".join(f"{count:,} {what}" for what, count in soak.done.items())
    yield Row(
        "Server's memory over an hour of a busy service",
        f"{100 * (growth - 1):+.1f} % ({' to '.join(f'{each:.1f}' for each in quarters)} MiB)",
        f"< +{100 * (_GROWTH - 1):.0f} %, last quarter < +{100 * (_LATE_GROWTH - 1):.0f} %",
        growth < _GROWTH and late < _LATE_GROWTH,
        f"medians of quarters of {share:g} h; {done}; the fullest moment {max(soak.memory):.1f} MiB",
    )


async def _soak(address: str, server: int, share: float) -> _Soak:
    soak = _Soak(address, server, share)
    await soak.run()
    return soak


def _quarters(samples: Sequence[float]) -> Sequence[float]:
    size = len(samples) // 4
    return [statistics.median(samples[start : start + size]) for start in range(0, 4 * size, size)]


class _Soak:
    """What goes on in the hour.

    Args:
        address: of the service.
        server: process id of the server.
        share: of the hour.
    """

    def __init__(self, address: str, server: int, share: float) -> None:
        self._address = address
        self._stub = connect(address)
        self._resident = psutil.Process(server).memory_info
        self._goals = {what: round(count * share) for what, count in _HOUR.items()}
        self.done: Counter[str] = Counter()
        self.memory: list[float] = []
        """The server's in MiB, at equal distances of events."""
        self._finished: list[str] = []
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Fill what has a limit, then do all of the hour."""
        async with AsyncClient(self._address) as client:
            await self._warm_up(client)
            self.done.clear()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sample())
                for _ in range(_TRAINING):
                    group.create_task(self._train(client))
                for _ in range(_CALLING):
                    group.create_task(self._queue(client))
                    group.create_task(self._look_in())
                    group.create_task(self._call())

    async def _warm_up(self, client: AsyncClient) -> None:
        async def pass_by() -> None:
            await (await client.train(_SPEC, priority=-1)).cancel()

        holders = [await client.train(ENDLESS, priority=1) for _ in range(_SLOTS)]
        for _ in range(_WARM_UP_JOBS // _AT_ONCE):
            await asyncio.gather(*(pass_by() for _ in range(_AT_ONCE)))
        for holder in holders:
            await holder.cancel()
        for _ in range(_WARM_UP_TRAININGS // _TRAINING):
            await asyncio.gather(*(self._train_one(client) for _ in range(_TRAINING)))
        for name in self._finished:
            await self._follow(name, counting=False)
            await self._stub.GetTrainingJob(pb.GetTrainingJobRequest(name=name))

    async def _train(self, client: AsyncClient) -> None:
        while self.done["events"] < self._goals["events"]:
            await self._train_one(client)

    async def _train_one(self, client: AsyncClient) -> None:
        name = (await client.train(_SPEC, priority=1)).name
        slow = self._watch(name)
        await anext(slow)
        lasts = await asyncio.gather(
            *(self._follow(name, counting=n == 0) for n in range(_WATCHERS))
        )
        missed = [sequence async for sequence in slow]
        if set(lasts) != {missed[-1]} or missed != list(range(2, missed[-1] + 1)):
            raise AssertionError(f"{name} was not told to all alike: {lasts}, {missed}")
        self._finished.append(name)

    async def _follow(self, name: str, *, counting: bool) -> int:
        last = 0
        async for sequence in self._watch(name):
            if sequence != last + 1:
                raise AssertionError(f"{name}: {sequence} after {last}")
            last = sequence
            if counting:
                await self._advance("events")
        return last

    async def _watch(self, name: str) -> AsyncIterator[int]:
        asked = pb.WatchTrainingJobRequest(name=name)
        async for event in self._stub.WatchTrainingJob(asked):
            yield event.sequence

    async def _queue(self, client: AsyncClient) -> None:
        while await self._in_step("queued"):
            job = await client.train(_SPEC, priority=-1)
            await job.cancel()
            if self.done["queued"] % 2:
                await job.delete(force=True)
            await self._advance("queued")

    async def _look_in(self) -> None:
        while await self._in_step("watches"):
            name = self._finished[self.done["watches"] % len(self._finished)]
            watch = self._stub.WatchTrainingJob(pb.WatchTrainingJobRequest(name=name))
            async for event in watch:
                if event.sequence == _LOOK:
                    watch.cancel()
                    break
            await self._advance("watches")

    async def _call(self) -> None:
        while await self._in_step("calls"):
            number = self.done["calls"]
            if number % 10:
                name = self._finished[number % len(self._finished)]
                await self._stub.GetTrainingJob(pb.GetTrainingJobRequest(name=name))
            else:
                await self._stub.ListTrainingJobs(pb.ListTrainingJobsRequest(page_size=20))
            await self._advance("calls")

    async def _sample(self) -> None:
        for number in range(_SAMPLES):
            while self.done["events"] < self._goals["events"] * number / _SAMPLES:
                await self._news()
            self.memory.append(self._resident().rss / 2**20)

    async def _in_step(self, what: str) -> bool:
        """Wait until it is time for the next of something; false: the hour's have been."""
        while self.done[what] < self._goals[what]:
            if self.done[what] * self._goals["events"] <= self.done["events"] * self._goals[what]:
                return True
            await self._news()
        return False

    async def _advance(self, what: str) -> None:
        self.done[what] += 1
        if what == "events":
            async with self._changed:
                self._changed.notify_all()

    async def _news(self) -> None:
        async with self._changed:
            await self._changed.wait()
