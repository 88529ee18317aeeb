"""Following a journal: every event once, in order, without a gap, however slow the reader."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from tests.service.jobs.bench import PATIENCE, Bench
from tests.service.store.rows import NOON

from dropnorm.results import Event, LogLine, State, StateChanged, Tracked, TrainingJob
from dropnorm_service.jobs import live
from dropnorm_service.jobs.errors import InvalidRequest, JobNotFound, ShuttingDown
from dropnorm_service.store import SqlJobStore


async def sequences(bench: Bench, job_id: str, after: int = 0) -> list[int]:
    return [event.sequence async for event in bench.service.watch(job_id, after)]


async def test_a_journal_is_replayed_and_followed_to_its_end(bench: Bench):
    job = await bench.create()
    attempt = await bench.launched()
    await bench.reached(job, State.RUNNING)
    watching = asyncio.create_task(sequences(bench, job.id))
    resumed = asyncio.create_task(sequences(bench, job.id, 2))
    attempt.say(LogLine(message="hello"))
    attempt.succeed()
    assert await watching == [1, 2, 3, 4, 5]
    assert await resumed == [3, 4, 5]
    assert await sequences(bench, job.id) == [1, 2, 3, 4, 5]


async def test_what_comes_after_the_end_is_told_to_who_watches_again(bench: Bench):
    job = await bench.create()
    (await bench.launched()).succeed()
    done = await bench.reached(job, State.SUCCEEDED)
    await bench.service.record_tracking(
        job.id, Tracked(mlflow_experiment_id="1", mlflow_run_id="r")
    )
    assert await sequences(bench, job.id, done.last_sequence) == [done.last_sequence + 1]
    assert await sequences(bench, job.id, done.last_sequence + 1) == []


async def test_a_pause_does_not_end_a_watch(bench: Bench):
    job = await bench.create()
    attempt = await bench.launched()
    await bench.reached(job, State.RUNNING)
    watching = asyncio.create_task(sequences(bench, job.id))
    await bench.service.pause(job.id)
    await attempt.obey()
    await bench.reached(job, State.PAUSED)
    await bench.service.resume(job.id)
    (await bench.launched()).succeed()
    assert await watching == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_five_hundred_watchers_get_every_event_in_order(bench: Bench):
    job = await bench.create()
    attempt = await bench.launched()
    await bench.reached(job, State.RUNNING)
    watching = [asyncio.create_task(sequences(bench, job.id)) for _ in range(500)]
    for number in range(50):
        attempt.say(LogLine(message=f"line {number}"))
        await asyncio.sleep(0)
    attempt.succeed()
    assert await asyncio.gather(*watching) == [list(range(1, 55))] * 500


async def test_hundreds_who_wait_for_news_hear_of_it_one_in_each_round_of_the_loop(bench: Bench):
    """So that a call in between waits for one of them at each of its steps, not for all."""
    job = await bench.create()
    attempt = await bench.launched()
    now = await bench.reached(job, State.RUNNING)
    told: list[int] = []

    async def watch() -> None:
        async for event in bench.service.watch(job.id, now.last_sequence):
            told.append(event.sequence)
            return

    watching = [asyncio.create_task(watch()) for _ in range(100)]
    for _ in range(100):  # all of them have come as far as to wait
        await asyncio.sleep(0)
    attempt.say(LogLine(message="hello"))
    most, before = 0, 0
    async with asyncio.timeout(PATIENCE):
        while len(told) < len(watching):
            await asyncio.sleep(0)
            most, before = max(most, len(told) - before), len(told)
    assert most == 1
    await asyncio.gather(*watching)


async def test_a_slow_watcher_is_fed_from_the_store(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "_TAIL", 8)
    job = await bench.create()
    attempt = await bench.launched()
    await bench.reached(job, State.RUNNING)
    seen: list[int] = []
    async with contextlib.aclosing(bench.service.watch(job.id)) as events:
        seen.append((await anext(events)).sequence)
        attempt.say(*(LogLine(message=f"line {number}") for number in range(300)))
        attempt.succeed()
        await bench.reached(job, State.SUCCEEDED)
        seen += [event.sequence async for event in events]
    assert seen == list(range(1, 305))


async def test_two_jobs_do_not_hear_of_each_other(bench: Bench):
    jobs = [await bench.create() for _ in range(2)]
    for _ in jobs:
        (await bench.launched()).succeed()
    for job in jobs:
        names = {event.training_job async for event in bench.service.watch(job.id)}
        assert names == {job.name}


@pytest.mark.parametrize("after", [-1, 99])
async def test_a_journal_does_not_reach_so_far(bench: Bench, after: int):
    job = await bench.create()
    with pytest.raises(InvalidRequest, match="after_sequence: must be 0 to"):
        await sequences(bench, job.id, after)


async def test_there_is_nothing_to_watch(bench: Bench):
    with pytest.raises(JobNotFound):
        await sequences(bench, "nobody")


async def test_a_stopping_service_tells_every_watcher_a_last_event(bench: Bench):
    running = await bench.create()
    paused = await bench.create()
    for _ in range(2):
        await bench.launched()
    for job in (running, paused):
        await bench.reached(job, State.RUNNING)
    await bench.service.pause(paused.id)
    await bench.executor.attempts[paused.id].obey()
    await bench.reached(paused, State.PAUSED)
    await bench.create()
    await bench.launched()
    queued, unwatched = [await bench.create() for _ in range(2)]
    last: dict[str, Event] = {}

    async def watch(job: TrainingJob) -> None:
        async for event in bench.service.watch(job.id):
            last[job.id] = event

    watching = [asyncio.create_task(watch(job)) for job in (running, paused, queued, queued)]
    await asyncio.sleep(0.01)
    await bench.service.stop(grace=0.0)
    ends = await asyncio.gather(*watching, return_exceptions=True)
    assert [type(end) for end in ends] == [ShuttingDown] * 4
    requeued = last[running.id].payload
    assert isinstance(requeued, StateChanged)
    assert requeued.state is State.QUEUED
    assert "stopping" in requeued.message
    for job, state in ((paused, "PAUSED"), (queued, "QUEUED")):
        farewell = last[job.id].payload
        assert isinstance(farewell, LogLine)
        assert farewell.message.startswith(f"The service is stopping; the job stays {state}")
        assert await bench.store.get(job.id) == await bench.service.get(job.id)
        assert [event.sequence for event in await bench.journal(job)][-1] == last[job.id].sequence
    assert len(await bench.journal(unwatched)) == 1, "nobody was there to be told"


async def test_the_last_event_does_not_hang_on_a_clock(store: SqlJobStore, tmp_path: Path):
    bench = Bench(store, tmp_path / "jobs", clock=lambda: NOON)
    job = await bench.create()
    told: list[Event] = []
    first = asyncio.Event()

    async def watch() -> None:
        async for event in bench.service.watch(job.id):
            told.append(event)
            first.set()

    watching = asyncio.create_task(watch())
    await first.wait()
    await bench.service.stop(grace=0.0)
    with pytest.raises(ShuttingDown):
        await watching
    assert [event.payload.kind for event in told] == ["state", "log"]
