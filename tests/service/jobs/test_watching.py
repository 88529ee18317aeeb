"""Following a journal: every event once, in order, without a gap, however slow the reader."""

import asyncio
import contextlib

import pytest
from tests.service.jobs.bench import Bench

from dropnorm.results import LogLine, State, Tracked
from dropnorm_service.jobs import live
from dropnorm_service.jobs.errors import InvalidRequest, JobNotFound, ShuttingDown


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


async def test_a_stopping_service_tells_all_it_has_and_ends_the_watch(bench: Bench):
    job = await bench.create()
    await bench.launched()
    await bench.reached(job, State.RUNNING)
    seen = []

    async def watch() -> None:
        async for event in bench.service.watch(job.id):
            seen.append(event.payload)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    await bench.service.stop(grace=0.0)
    with pytest.raises(ShuttingDown):
        await watching
    assert seen[-1].kind == "state"
    assert seen[-1].state is State.QUEUED
