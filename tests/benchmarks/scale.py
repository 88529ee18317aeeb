"""A store of 100,000 jobs beside one of a hundred."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.benchmarks.rows import Row, milliseconds, ratio
from tests.benchmarks.services import DIGITS, rounds, wait_until_idle

import dropnorm as dn
from dropnorm.embedded import LocalService
from dropnorm.results import Event, State, StateChanged, TrainingJob
from dropnorm_service.jobs.ports import Change
from dropnorm_service.store import SqlJobStore

_FEW, _MANY, _QUICK_MANY = 100, 100_000, 20_000
_AT_ONCE = 1000
_BEGIN = datetime(2025, 1, 1, tzinfo=UTC)


def measure(quick: bool) -> Iterator[Row]:
    """First page of List, and Create, on both in turn. The mirror is off: it would make a run for each old job."""
    many = _QUICK_MANY if quick else _MANY
    with tempfile.TemporaryDirectory(prefix="dropnorm-bench-") as folder:
        folders = [Path(folder, str(count)) for count in (_FEW, many)]
        for path, count in zip(folders, (_FEW, many), strict=True):
            path.mkdir()
            asyncio.run(_fill(f"sqlite+aiosqlite:///{path / 'dropnorm.db'}", count))
        with (
            dn.local(folders[0], tracking=False, cpu_slots=1) as small,
            dn.local(folders[1], tracking=False, cpu_slots=1) as large,
        ):
            for title, call in (("First page of List", _list), ("CreateTrainingJob", _create)):
                pairs = list(_pairs(call, small, large, quick))
                yield _row(f"{title} with {many:,} jobs to {_FEW}", pairs)


def _pairs(
    call: Callable[[LocalService], float], small: LocalService, large: LocalService, quick: bool
) -> Iterator[tuple[float, float]]:
    for service in (small, large):
        call(service)
        wait_until_idle(service)
    for _ in rounds(30, quick):
        yield call(small), call(large)


def _row(name: str, pairs: list[tuple[float, float]]) -> Row:
    ratios = [large / small for small, large in pairs]
    small, large = ([pair[side] for pair in pairs] for side in (0, 1))
    return Row(
        name,
        ratio(ratios),
        "<= 2 x",
        statistics.median(ratios) <= 2.0,
        f"{milliseconds(large)} to {milliseconds(small)}",
    )


def _list(service: LocalService) -> float:
    start = time.perf_counter()
    next(service.jobs())
    return time.perf_counter() - start


def _create(service: LocalService) -> float:
    start = time.perf_counter()
    job = service.train(DIGITS)
    seconds = time.perf_counter() - start
    job.delete(force=True)
    wait_until_idle(service)
    return seconds


async def _fill(url: str, count: int) -> None:
    """Jobs that were cancelled while they waited, a second apart."""
    async with await SqlJobStore.open(url) as store:
        for start in range(0, count, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, count))
            await asyncio.gather(*(store.commit(_job(number)) for number in numbers))


def _job(number: int) -> Change:
    name = f"trainingJobs/old-{number}"
    time = _BEGIN + timedelta(seconds=number)
    events = tuple(
        Event(
            training_job=name,
            sequence=sequence,
            time=time,
            attempt=0,
            payload=StateChanged(state=state),
        )
        for sequence, state in enumerate((State.QUEUED, State.CANCELLED), start=1)
    )
    job = TrainingJob(
        name=name,
        display_name=f"old {number}",
        experiment="default",
        labels={"team": f"team-{number % 10}"},
        spec=DIGITS,
        spec_digest=_DIGEST,
        state=State.CANCELLED,
        create_time=time,
        end_time=time,
        update_time=time,
        last_sequence=len(events),
    )
    return Change(job=job, events=events, insert=True)


_DIGEST = DIGITS.digest()
