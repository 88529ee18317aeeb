"""What jobs do is counted as they do it, and true after a restart."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.service.jobs.bench import EVALUATION, Bench, lost
from tests.service.observability.scrapes import Scrape
from tests.service.store.rows import append, draft, insert

from dropnorm.results import (
    CheckpointWritten,
    EpochCompleted,
    JobError,
    Progress,
    Progressed,
    State,
    StateChanged,
    SystemMetrics,
)
from dropnorm_service.jobs.ports import Broken, Lost
from dropnorm_service.observability.metrics import Metrics
from dropnorm_service.observability.readings import Sources
from dropnorm_service.store import SqlJobStore


class Watched:
    """A bench with metrics."""

    def __init__(self, store: SqlJobStore, folder: Path, metrics: Metrics) -> None:
        self.bench = Bench(store, folder)
        self.metrics = metrics
        self.bench.service.observe(metrics.jobs.observe)
        metrics.read_from(
            Sources(
                ledger=store,
                slots=self.bench.executor.slots,
                worker_restarts=dict,
                audits_lost=lambda: 0,
                mirrors=(),
                data_dir=folder.parent,
            )
        )

    async def start(self) -> None:
        self.metrics.jobs.begin(await self.bench.store.count_states())
        await self.bench.service.start()

    async def scrape(self) -> Scrape:
        return Scrape((await self.metrics.exposition(""))[1].decode())


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    metrics = Metrics()
    async with await SqlJobStore.open(f"sqlite:///{tmp_path}/jobs.db", metrics.committed) as store:
        watched = Watched(store, tmp_path / "jobs", metrics)
        await watched.start()
        yield watched
        await watched.bench.service.stop(grace=0.0)


async def test_each_way_that_jobs_end_is_told_apart(watched: Watched) -> None:
    bench = watched.bench
    well, badly, never = [await bench.create() for _ in range(3)]
    attempts = {
        attempt.launch.job_id: attempt for attempt in [await bench.launched() for _ in "12"]
    }
    attempts[well.id].succeed()
    attempts[badly.id].end(Broken(JobError(code=3, reason="DIVERGED", message="NaN")))
    await bench.reached(well, State.SUCCEEDED)
    await bench.reached(badly, State.FAILED)
    attempt = await bench.launched()
    await bench.reached(never, State.RUNNING)
    await bench.service.cancel(never.id)
    attempt.end(lost())
    await bench.reached(never, State.CANCELLED)

    scrape = await watched.scrape()
    assert scrape.value("dropnorm_jobs_accepted_total") == 3
    assert scrape.value("dropnorm_jobs_ended_total", state="SUCCEEDED") == 1
    assert scrape.value("dropnorm_jobs_ended_total", state="FAILED", reason="DIVERGED") == 1
    assert scrape.value("dropnorm_jobs_ended_total", state="CANCELLED") == 1
    assert scrape.value("dropnorm_jobs") == 3
    assert scrape.value("dropnorm_jobs", state="SUCCEEDED") == 1
    assert scrape.value("dropnorm_queue_wait_seconds_count") == scrape.value(
        "dropnorm_attempts_started_total"
    )
    events = sum([len(await bench.journal(job)) for job in (well, badly, never)])
    assert scrape.value("dropnorm_events_total") == events
    assert scrape.value("dropnorm_store_commit_changes_sum") >= 3


async def test_a_lost_attempt_is_counted_with_its_reason_and_its_retry(watched: Watched) -> None:
    bench = watched.bench
    job = await bench.create()
    for _ in range(2):
        (await bench.launched()).end(lost())
    (await bench.launched()).succeed()
    await bench.reached(job, State.SUCCEEDED)
    scrape = await watched.scrape()
    assert scrape.value("dropnorm_attempts_started_total") == 3
    assert scrape.value("dropnorm_attempts_lost_total", reason="WORKER_LOST") == 2
    assert scrape.value("dropnorm_attempts_retried_total", reason="WORKER_LOST") == 2

    given_up = await bench.create()
    for _ in range(3):
        (await bench.launched()).end(lost())
    await bench.reached(given_up, State.FAILED)
    scrape = await watched.scrape()
    assert scrape.value("dropnorm_attempts_lost_total", reason="WORKER_LOST") == 5
    assert scrape.value("dropnorm_attempts_retried_total", reason="WORKER_LOST") == 4
    assert scrape.value("dropnorm_jobs_ended_total", reason="WORKER_LOST") == 1


@pytest.mark.parametrize("reason", ["WORKER_LOST", "IO_ERROR", "DATA_UNAVAILABLE", "INTERNAL"])
async def test_the_last_loss_of_a_job_that_is_given_up_counts_and_its_own_failure_does_not(
    watched: Watched, reason: str
) -> None:
    bench, error = watched.bench, JobError(code=13, reason=reason, message="It ended.")
    given_up = await bench.create()
    for _ in range(3):
        (await bench.launched()).end(Lost(error))
    await bench.reached(given_up, State.FAILED)
    broken = await bench.create()
    (await bench.launched()).end(Broken(error))
    await bench.reached(broken, State.FAILED)

    scrape = await watched.scrape()
    assert scrape.value("dropnorm_attempts_lost_total", reason=reason) == 3
    assert scrape.value("dropnorm_attempts_retried_total", reason=reason) == 2
    assert scrape.value("dropnorm_jobs_ended_total", reason=reason) == 2


async def test_steps_samples_and_epochs_add_up_over_attempts(watched: Watched) -> None:
    bench = watched.bench
    job = await bench.create()
    first = await bench.launched()
    load = SystemMetrics(cpu_percent=99.0, memory_bytes=1)
    done = EpochCompleted(metrics=EVALUATION.history[0], system=load)
    first.say(progressed(0), progressed(4), done)
    first.end(lost())
    second = await bench.launched()
    # It goes on from a checkpoint, and tells what the first one did once more.
    again = EpochCompleted(metrics=EVALUATION.history[0])
    second.say(progressed(0), again, CheckpointWritten(epoch=1, step=5))
    second.say(progressed(5), progressed(12))
    second.succeed()
    await bench.reached(job, State.SUCCEEDED)
    scrape = await watched.scrape()
    assert (
        scrape.value("dropnorm_training_steps_total") == 10 + 7
    )  # steps that were done twice were done
    assert scrape.value("dropnorm_training_epochs_total") == 1
    assert scrape.value("dropnorm_checkpoints_total") == 0
    assert scrape.value("dropnorm_training_samples_total") == pytest.approx(1000)
    assert scrape.value("dropnorm_training_samples_per_second") == 0  # nothing runs now


async def test_reasons_that_workers_make_up_do_not_become_labels_without_end(
    watched: Watched,
) -> None:
    bench = watched.bench
    for reason in ['"} 1\nforged', "ü" * 100, *(f"REASON_{n}" for n in range(70))]:
        job = await bench.create()
        (await bench.launched()).end(Broken(JobError(code=3, reason=reason, message="")))
        await bench.reached(job, State.FAILED)
    scrape = await watched.scrape()
    reasons = {labels["reason"] for labels, _ in scrape.samples("dropnorm_jobs_ended_total")}
    assert len(reasons) == 65
    assert scrape.value("dropnorm_jobs_ended_total", reason="OTHER") == 2 + 6


async def test_deleted_jobs_are_no_jobs_and_a_new_service_counts_the_same(
    watched: Watched, tmp_path: Path
) -> None:
    bench = watched.bench
    kept, deleted = [await bench.create() for _ in range(2)]
    for _ in range(2):
        (await bench.launched()).succeed()
    for job in (kept, deleted):
        await bench.reached(job, State.SUCCEEDED)
    waiting, gone = [await bench.create() for _ in range(2)]
    for job in (waiting, gone):
        await bench.launched()
        await bench.service.pause(job.id)
        assert await bench.executor.attempts[job.id].obey() == "pause"
        await bench.reached(job, State.PAUSED)
    await bench.service.delete(deleted.id)
    await bench.service.delete(gone.id, force=True)
    before = dict_of(await watched.scrape())
    assert before == {"SUCCEEDED": 1, "PAUSED": 1}
    await bench.service.stop(grace=0.0)

    again = Watched(bench.store, tmp_path / "jobs", Metrics())
    await again.start()
    assert dict_of(await again.scrape()) == before
    await again.bench.service.resume(waiting.id)
    (await again.bench.launched()).succeed()
    await again.bench.reached(waiting, State.SUCCEEDED)
    assert dict_of(await again.scrape()) == {"SUCCEEDED": 2}
    await again.bench.service.stop(grace=0.0)


async def test_a_deleted_job_that_ran_when_the_service_was_killed_is_no_job(
    watched: Watched, tmp_path: Path
) -> None:
    store = watched.bench.store
    job = await insert(store, draft("a"))
    for state in (State.RUNNING, State.CANCELLING):
        job = await append(store, job, StateChanged(state=state))
    await append(store, job, deleted=True)
    again = Watched(store, tmp_path / "jobs", Metrics())
    await again.start()
    assert dict_of(await again.scrape()) == {}
    await again.bench.service.stop(grace=0.0)


def progressed(step: int) -> Progressed:
    progress = Progress(phase="training", epoch=0, epochs=3, step=step, steps=30)
    return Progressed(progress=progress)


def dict_of(scrape: Scrape) -> dict[str, float]:
    samples = scrape.samples("dropnorm_jobs")
    return {labels["state"]: value for labels, value in samples if value}
