"""From the queue into a slot, and what becomes of each attempt."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.service.jobs.bench import EVALUATION, GPU_SPEC, PROMPT, Bench, Item, lost

from dropnorm.results import (
    CheckpointWritten,
    Evaluated,
    Event,
    JobError,
    LogLine,
    Payload,
    Progress,
    Progressed,
    State,
    StateChanged,
    TrainingJob,
)
from dropnorm_service.jobs import attempts
from dropnorm_service.jobs.callers import LOCAL
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.ports import Broken, Change, Finished, Launch, Lost, Stopped
from dropnorm_service.jobs.projection import project
from dropnorm_service.store import SqlJobStore

PROGRESS = Progress(phase="training", epoch=1, epochs=5, step=10, steps=50)


async def test_a_job_runs_and_shows_how_far_it_is_and_what_came_of_it(bench: Bench):
    job = await bench.create()
    attempt = await bench.launched()
    assert attempt.launch == Launch(
        job_id=job.id, attempt=1, spec=job.spec, folder=bench.folder / job.id
    )
    attempt.say(Progressed(progress=PROGRESS), LogLine(message="hello"))
    attempt.succeed()
    done = await bench.reached(job, State.SUCCEEDED)
    assert (done.attempt, done.progress, done.last_sequence) == (1, PROGRESS, 6)
    assert done.evaluation == EVALUATION
    assert done.start_time is not None
    assert done.end_time is not None
    journal = await bench.journal(job)
    assert [(event.sequence, event.attempt, event.payload.kind) for event in journal] == [
        (1, 0, "state"),
        (2, 1, "state"),
        (3, 1, "progress"),
        (4, 1, "log"),
        (5, 1, "evaluation"),
        (6, 1, "state"),
    ]


async def test_priority_goes_first_and_a_freed_slot_is_used_at_once(bench: Bench):
    running = [await bench.create() for _ in range(2)]
    attempts = [await bench.launched() for _ in running]
    low, high = await bench.create(priority=-1), await bench.create(priority=5)
    attempts[0].succeed()
    assert (await bench.launched()).launch.job_id == high.id
    attempts[1].succeed()
    assert (await bench.launched()).launch.job_id == low.id


async def test_a_job_that_needs_a_gpu_does_not_block_the_cpu(store: SqlJobStore, tmp_path: Path):
    bench = Bench(store, tmp_path / "jobs", cpus=1, gpus=1)
    await bench.service.start()
    await bench.create(GPU_SPEC)
    gpu = await bench.launched()
    waiting = await bench.create(GPU_SPEC, priority=9)
    cpu = await bench.create()
    assert (await bench.launched()).launch.job_id == cpu.id
    gpu.succeed()
    assert (await bench.launched()).launch.job_id == waiting.id
    await bench.service.stop(grace=0.0)


async def test_pause_takes_a_job_out_of_its_slot_and_resume_brings_it_back(bench: Bench):
    job = await bench.create()
    attempt = await bench.launched()
    await bench.reached(job, State.RUNNING)
    assert (await bench.service.pause(job.id)).state is State.PAUSING
    assert await attempt.obey() == "pause"
    await bench.reached(job, State.PAUSED)
    await bench.service.resume(job.id)
    assert (await bench.launched()).launch.attempt == 2
    await bench.reached(job, State.RUNNING)


async def test_resume_while_it_pauses_is_not_lost(bench: Bench):
    job = await bench.create()
    attempt = await bench.launched()
    await bench.reached(job, State.RUNNING)
    await bench.service.pause(job.id)
    assert (await bench.service.resume(job.id)).state is State.RUNNING
    await attempt.obey()
    second = await bench.launched()
    second.succeed()
    await bench.reached(job, State.SUCCEEDED)
    assert await bench.states(job) == [
        State.QUEUED,
        State.RUNNING,
        State.PAUSING,
        State.RUNNING,
        State.QUEUED,
        State.RUNNING,
        State.SUCCEEDED,
    ]


async def test_cancel_reaches_the_worker(bench: Bench):
    job = await bench.create()
    attempt = await bench.launched()
    await bench.reached(job, State.RUNNING)
    assert (await bench.service.cancel(job.id)).state is State.CANCELLING
    assert await attempt.obey() == "cancel"
    assert (await bench.reached(job, State.CANCELLED)).evaluation is None


async def test_cancel_before_the_worker_has_started_reaches_it_too(bench: Bench):
    job = await bench.create()
    cancelled = await bench.service.cancel(job.id)
    if cancelled.state is State.CANCELLING:
        await (await bench.launched()).obey()
    await bench.reached(job, State.CANCELLED)
    # A worker may have been started for it at the same time; it is ended.
    for attempt in list(bench.executor.attempts.values()):
        await attempt.closed.wait()


async def test_what_finished_before_it_heard_of_the_cancel_has_succeeded(bench: Bench):
    job = await bench.create()
    attempt = await bench.launched()
    await bench.reached(job, State.RUNNING)
    await bench.service.cancel(job.id)
    attempt.succeed()
    assert (await bench.reached(job, State.SUCCEEDED)).evaluation == EVALUATION


async def test_the_jobs_own_error_fails_it_at_once(bench: Bench):
    error = JobError(code=3, reason="DIVERGED", message="The loss is not a number.")
    job = await bench.create()
    (await bench.launched()).end(Broken(error))
    failed = await bench.reached(job, State.FAILED)
    assert (failed.error, failed.attempt) == (error, 1)


async def test_lost_workers_are_followed_by_others_up_to_a_limit(bench: Bench):
    job = await bench.create()
    for number in (1, 2, 3):
        attempt = await bench.launched()
        assert attempt.launch.attempt == number
        attempt.end(lost())
    failed = await bench.reached(job, State.FAILED)
    assert failed.error == lost().error
    requeued = [
        event.payload
        for event in await bench.journal(job)
        if isinstance(event.payload, StateChanged) and event.payload.state is State.QUEUED
    ]
    assert [payload.error for payload in requeued] == [None, lost().error, lost().error]


@pytest.mark.parametrize("reason", ["DISK_FULL", "NOT_STARTED"])
async def test_what_is_nobodys_fault_is_waited_for_as_long_as_it_takes(reason: str, bench: Bench):
    error = JobError(code=8, reason=reason, message="It passes.")
    job = await bench.create()
    for _ in range(3 * PROMPT.limit):
        (await bench.launched()).end(Lost(error))
    (await bench.launched()).succeed()
    assert (await bench.reached(job, State.SUCCEEDED)).attempt == 3 * PROMPT.limit + 1


async def test_poison_is_given_up_on_and_blocks_nobody(bench: Bench):
    poison = {(await bench.create(priority=9)).id for _ in range(4)}
    good = {(await bench.create()).id for _ in range(4)}
    lives = Counter[str]()
    while lives.total() < len(poison) * PROMPT.limit + len(good):
        attempt = await bench.launched()
        lives[attempt.launch.job_id] += 1
        if attempt.launch.job_id in poison:
            attempt.end(lost())
        else:
            attempt.succeed()
    for job_id in poison:
        failed = await bench.reached(await bench.service.get(job_id), State.FAILED)
        assert failed.error == lost().error
    for job_id in good:
        await bench.reached(await bench.service.get(job_id), State.SUCCEEDED)
    assert {lives[each] for each in poison} == {PROMPT.limit}


async def test_a_slot_that_has_rested_is_used_without_anything_else_happening(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    bench.executor.resting = 0.05
    with monkeypatch.context() as patch:
        patch.setattr(bench.executor, "fits", lambda spec: False)
        job = await bench.create()
        await asyncio.sleep(0)
    (await bench.launched()).succeed()
    await bench.reached(job, State.SUCCEEDED)


async def test_lost_workers_that_got_further_do_not_count(bench: Bench):
    job = await bench.create()
    for step in range(1, 6):
        attempt = await bench.launched()
        attempt.checkpoint(step)
        attempt.end(lost())
    (await bench.launched()).succeed()
    assert (await bench.reached(job, State.SUCCEEDED)).attempt == 6


async def test_a_worker_lost_while_it_stops_leaves_what_was_asked_for(bench: Bench):
    paused, cancelled = await bench.create(), await bench.create()
    attempts = [await bench.launched() for _ in range(2)]
    await bench.reached(paused, State.RUNNING)
    await bench.reached(cancelled, State.RUNNING)
    await bench.service.pause(paused.id)
    await bench.service.cancel(cancelled.id)
    for attempt in attempts:
        attempt.end(lost())
    await bench.reached(paused, State.PAUSED)
    await bench.reached(cancelled, State.CANCELLED)


async def test_a_worker_that_ends_without_evaluation_has_failed(bench: Bench):
    job = await bench.create()
    (await bench.launched()).end(Finished())
    error = (await bench.reached(job, State.FAILED)).error
    assert error is not None
    assert error.reason == "INTERNAL"


async def test_the_evaluation_of_a_lost_attempt_is_not_the_result(bench: Bench):
    job = await bench.create()
    first = await bench.launched()
    first.say(Evaluated(evaluation=EVALUATION))
    first.end(lost())
    second = await bench.launched()
    assert (await bench.service.get(job.id)).evaluation is None
    second.say(Evaluated(evaluation=EVALUATION.model_copy(update={"best_epoch": 7})))
    second.end(Finished())
    done = await bench.reached(job, State.SUCCEEDED)
    assert done.evaluation is not None
    assert done.evaluation.best_epoch == 7
    assert (await bench.store.get(job.id)).evaluation.best_epoch == 7  # type: ignore[union-attr]


async def test_an_executor_that_breaks_loses_the_attempt_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def broken(launch: Launch) -> AsyncGenerator[Item, None]:
        yield datetime.now(UTC), LogLine(message="hello")
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(bench.executor, "run", broken)
        error = (await bench.reached(await bench.create(), State.FAILED)).error
    assert error is not None
    assert (error.reason, "a bug" in error.message) == ("INTERNAL", False)
    assert "a bug" in caplog.text
    job = await bench.create()
    (await bench.launched()).succeed()
    await bench.reached(job, State.SUCCEEDED)


async def test_an_attempt_whose_words_cannot_be_journaled_is_lost(
    bench: Bench, caplog: pytest.LogCaptureFixture
):
    job = await bench.create()
    for _ in range(PROMPT.limit):
        attempt = await bench.launched()
        attempt.say(LogLine.model_construct(message="half a character: \ud800"))
        await attempt.closed.wait()
    error = (await bench.reached(job, State.FAILED)).error
    assert error is not None
    assert error.reason == "INTERNAL"
    assert "unexpected error" in error.message
    assert "cannot be journaled" in caplog.text
    assert (await bench.states(job)).count(State.QUEUED) == PROMPT.limit


async def test_a_job_that_cannot_be_read_does_not_stop_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    running = [await bench.create() for _ in range(2)]
    workers = [await bench.launched() for _ in running]
    unreadable, good = await bench.create(priority=9), await bench.create()
    bench.service._journal.forget([unreadable.id])

    async def unread(job_id: str) -> TrainingJob | None:
        raise RuntimeError("what stands there makes no sense")

    monkeypatch.setattr(bench.store, "get", unread)
    workers[0].succeed()
    assert (await bench.launched()).launch.job_id == good.id
    assert f"{unreadable.id} cannot be launched" in caplog.text


async def test_a_database_that_is_away_delays_the_journal_and_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    job = await bench.create()
    attempt = await bench.launched()
    await bench.reached(job, State.RUNNING)
    commit, refused = bench.store.commit, asyncio.Event()

    async def full(change: Change) -> None:
        refused.set()
        raise StoreUnavailable("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(attempts, "_STORE_PATIENCE", 0.01)
        patch.setattr(bench.store, "commit", full)
        attempt.say(LogLine(message="hello"))
        attempt.succeed()
        await refused.wait()
        patch.setattr(bench.store, "commit", commit)
        done = await bench.reached(job, State.SUCCEEDED)
    assert [event.sequence for event in await bench.journal(done)] == [1, 2, 3, 4, 5]


async def test_a_stopping_service_has_checkpoints_written_and_the_next_one_goes_on(
    store: SqlJobStore, bench: Bench
):
    running, cancelling = await bench.create(), await bench.create()
    workers = {}
    for _ in range(2):
        attempt = await bench.launched()
        workers[attempt.launch.job_id] = attempt
    waiting = await bench.create()
    await bench.reached(running, State.RUNNING)
    await bench.reached(cancelling, State.RUNNING)
    await bench.service.cancel(cancelling.id)
    stopping = asyncio.create_task(bench.service.stop(grace=10.0))
    assert await workers[running.id].obey() == "pause"
    workers[cancelling.id].end(Stopped("cancel"))
    await stopping
    assert workers[cancelling.id].orders == ["cancel"]
    assert await _states(store, running, cancelling, waiting) == [
        State.QUEUED,
        State.CANCELLED,
        State.QUEUED,
    ]

    again = Bench(store, bench.folder)
    await again.service.start()
    launches = [(await again.launched()).launch for _ in range(2)]
    assert {each.job_id: each.attempt for each in launches} == {running.id: 2, waiting.id: 1}
    await again.service.stop(grace=0.0)


async def test_workers_that_need_longer_than_the_grace_are_ended(store: SqlJobStore, bench: Bench):
    job, pausing = await bench.create(), await bench.create()
    attempts = [await bench.launched(), await bench.launched()]
    await bench.reached(job, State.RUNNING)
    await bench.reached(pausing, State.RUNNING)
    await bench.service.pause(pausing.id)
    await bench.service.stop(grace=0.01)
    assert all(attempt.closed.is_set() for attempt in attempts)
    assert await _states(store, job, pausing) == [State.QUEUED, State.PAUSED]


async def test_what_a_dead_service_left_is_taken_up(store: SqlJobStore, tmp_path: Path):
    dead = Bench(store, tmp_path / "jobs")  # never started: it launches nothing
    left = []
    for state in [State.RUNNING, State.PAUSING, State.CANCELLING]:
        job = await dead.create()
        event = Event(
            training_job=job.name,
            sequence=job.last_sequence + 1,
            time=datetime.now(UTC),
            attempt=1,
            payload=StateChanged(state=state),
        )
        job, _ = project(job, [event])
        await store.commit(Change(job=job, events=(event,)))
        left.append(job)

    again = Bench(store, tmp_path / "jobs")
    await again.service.start()
    attempt = await again.launched()
    assert (attempt.launch.job_id, attempt.launch.attempt) == (left[0].id, 2)
    assert await _states(store, *left[1:]) == [State.PAUSED, State.CANCELLED]
    assert (await again.states(left[0]))[:3] == [State.QUEUED, State.RUNNING, State.QUEUED]
    await again.service.stop(grace=0.0)


async def test_a_waiting_job_whose_gpu_is_missing_after_a_restart_keeps_waiting_and_says_why(
    store: SqlJobStore, tmp_path: Path
):
    before = Bench(store, tmp_path / "jobs", gpus=1)
    await before.service.start()
    await before.service.pause((await before.create(GPU_SPEC)).id)
    running = await before.create(GPU_SPEC)
    await before.service.stop(grace=0.0)

    after = Bench(store, tmp_path / "jobs")
    await after.service.start()
    assert (await after.service.get(running.id)).state is State.QUEUED
    warning = (await after.journal(running))[-1].payload
    assert warning.kind == "warning"
    assert (warning.code, warning.message) == ("CANNOT_FIT", "This service has too few GPUs.")
    await after.service.stop(grace=0.0)


async def test_so_does_one_that_ran_when_its_service_was_killed(store: SqlJobStore, tmp_path: Path):
    job = await Bench(store, tmp_path / "jobs", gpus=1).create(GPU_SPEC)
    await _kill_while_running(store, job)
    after = Bench(store, tmp_path / "jobs")
    await after.service.start()
    assert (await after.service.get(job.id)).state is State.QUEUED
    warning = (await after.journal(job))[-1].payload
    assert warning.kind == "warning"
    assert warning.code == "CANNOT_FIT"
    await after.service.stop(grace=0.0)


async def _states(store: SqlJobStore, *jobs: TrainingJob) -> list[State]:
    found = [await store.get(job.id) for job in jobs]
    return [job.state for job in found if job is not None]


async def test_lost_attempts_are_remembered_by_the_next_service(store: SqlJobStore, tmp_path: Path):
    job: TrainingJob | None = None
    for _ in range(PROMPT.limit - 1):
        bench = Bench(store, tmp_path / "jobs")
        await bench.service.start()
        job = job or await bench.create()
        (await bench.launched()).end(lost())
        await bench.launched()
        await bench.service.stop(grace=0.0)
    last = Bench(store, tmp_path / "jobs")
    await last.service.start()
    (await last.launched()).end(lost())
    assert job is not None
    error = (await last.reached(job, State.FAILED)).error
    assert error is not None
    assert error.reason == "WORKER_LOST"
    await last.service.stop(grace=0.0)


async def test_a_job_that_takes_the_service_along_each_time_is_given_up_on(
    store: SqlJobStore, tmp_path: Path
):
    job = await Bench(store, tmp_path / "jobs").create()
    further = CheckpointWritten(epoch=1, step=10)
    await _die_with(store, job, tmp_path, further)  # it got further, so that the count begins again
    for _ in range(PROMPT.crash_limit - 1):
        assert (await _die_with(store, job, tmp_path, further)).state is State.QUEUED
    given_up = await _die_with(store, job, tmp_path, further)
    assert given_up.state is State.FAILED
    assert given_up.error is not None
    assert given_up.error.reason == "SERVICE_LOST"


async def _die_with(
    store: SqlJobStore, job: TrainingJob, folder: Path, *said: Payload
) -> TrainingJob:
    """Let a service be killed while it runs a job; the job as the next one takes it up."""
    await _kill_while_running(store, job, *said)
    bench = Bench(store, folder / "jobs")
    await bench.service.start()
    taken_up = await bench.jobs.get(LOCAL, job.id)
    await bench.service.stop(grace=0.0)
    return taken_up


async def _kill_while_running(store: SqlJobStore, job: TrainingJob, *said: Payload) -> None:
    """Leave what a service leaves that is killed while it runs a job, which had said something."""
    found = await store.get(job.id)
    assert found is not None
    payloads = [StateChanged(state=State.RUNNING), *said]
    events = tuple(
        Event(
            training_job=job.name,
            sequence=found.last_sequence + number,
            time=datetime.now(UTC),
            attempt=found.attempt + 1,
            payload=payload,
        )
        for number, payload in enumerate(payloads, start=1)
    )
    await store.commit(Change(job=project(found, events)[0], events=events))
