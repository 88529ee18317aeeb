"""Jobs that go by themselves, and folders that belong to none."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.service.jobs.bench import PATIENCE, SPEC, Bench
from tests.service.store.rows import append, draft, insert

from dropnorm.results import State, StateChanged, TrainingJob
from dropnorm.spec import Submission
from dropnorm_service import audit
from dropnorm_service.jobs.callers import LOCAL
from dropnorm_service.jobs.errors import JobNotFound
from dropnorm_service.jobs.ports import Change
from dropnorm_service.store import SqlJobStore

DAY = timedelta(days=1)


class Days:
    """A clock that stands until a test turns it forward, so that no job goes before that has been looked at."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def days() -> Days:
    return Days()


@pytest.fixture
async def bench(store: SqlJobStore, tmp_path: Path, days: Days) -> AsyncIterator[Bench]:
    bench = Bench(store, tmp_path / "jobs", retention=86_400, clock=days)
    await bench.jobs.start()
    yield bench
    await bench.jobs.stop(grace=0.0)


async def done(bench: Bench, *, ttl: int) -> TrainingJob:
    job = await bench.jobs.create(LOCAL, Submission(spec=SPEC, ttl=ttl))
    (await bench.launched()).succeed()
    return await bench.reached(job, State.SUCCEEDED)


def own_changes(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What the audit log says that the service changed by itself: by which rpc, and of what."""
    records: list[Any] = [each for each in caplog.records if each.name == audit.LOGGER]
    assert {(each.user, each.outcome, each.token) for each in records} <= {("service", "OK", "")}
    return [(each.action, each.resource) for each in records]


async def gone(bench: Bench, job: TrainingJob) -> None:
    """Wait until a job is deleted and nothing is left of it."""
    async with asyncio.timeout(PATIENCE):
        while await bench.store.known([job.id]) or (bench.folder / job.id).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_job_says_when_it_goes_and_then_goes_with_all_it_left(
    bench: Bench, days: Days, caplog: pytest.LogCaptureFixture
):
    job = await done(bench, ttl=1)
    assert job.end_time is not None
    assert job.expire_time == job.end_time + timedelta(seconds=1)
    caplog.set_level(logging.INFO, logger=audit.LOGGER)
    days.now = job.expire_time
    await gone(bench, job)
    assert own_changes(caplog) == [("DeleteTrainingJob", job.name)]
    with pytest.raises(JobNotFound):
        await bench.service.get(job.id)


async def test_a_job_that_does_not_say_is_kept_as_long_as_the_service_keeps_jobs(
    bench: Bench, store: SqlJobStore
):
    waiting = await bench.create()
    assert (waiting.ttl, waiting.expire_time) == (86_400, None)
    (await bench.launched()).succeed()
    job = await bench.reached(waiting, State.SUCCEEDED)
    assert job.end_time is not None
    assert job.expire_time == job.end_time + DAY
    for_ever = Bench(store, bench.folder)
    assert (await for_ever.create()).ttl is None


async def test_a_deletion_that_a_stop_breaks_into_is_in_the_audit_log_too(
    bench: Bench,
    store: SqlJobStore,
    days: Days,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO, logger=audit.LOGGER)
    job = await done(bench, ttl=1)
    reached, may_go_on, commit = asyncio.Event(), asyncio.Event(), store.commit

    async def slowly(change: Change) -> None:
        reached.set()
        await may_go_on.wait()
        await commit(change)

    monkeypatch.setattr(store, "commit", slowly)
    assert job.expire_time is not None
    days.now = job.expire_time
    await asyncio.wait_for(reached.wait(), PATIENCE)
    stopping = asyncio.create_task(bench.jobs.stop(grace=0.0))
    await asyncio.sleep(0)
    may_go_on.set()
    await stopping
    assert own_changes(caplog) == [("DeleteTrainingJob", job.name)]


async def test_what_expired_while_no_service_ran_goes_at_the_next_start(
    store: SqlJobStore, tmp_path: Path, days: Days
):
    before = Bench(store, tmp_path / "jobs", clock=days)
    await before.jobs.start()
    short, long = await done(before, ttl=3600), await done(before, ttl=3 * 86_400)
    running = await before.jobs.create(LOCAL, Submission(spec=SPEC, ttl=1))
    await before.launched()
    await before.jobs.stop(grace=0.0)
    days.now += DAY
    after = Bench(store, tmp_path / "jobs", clock=days)
    await after.jobs.start()
    await gone(after, short)
    assert (await after.service.get(long.id)).state is State.SUCCEEDED
    assert not (await after.service.get(running.id)).state.terminal
    await after.jobs.stop(grace=0.0)


async def test_folders_of_jobs_that_the_store_does_not_know_are_removed(
    store: SqlJobStore, tmp_path: Path
):
    kept = await insert(store, draft("kept"))
    hidden = await insert(store, draft("hidden"))
    await append(store, hidden, StateChanged(state=State.CANCELLED), deleted=True)
    bench = Bench(store, tmp_path / "jobs", read_up_to=lambda: 0)
    for name in (kept.id, hidden.id, "unknown"):
        (bench.folder / name / "checkpoints").mkdir(parents=True)
    for _ in range(2):
        await bench.jobs.sweep()
        assert {path.name for path in bench.folder.iterdir()} == {"kept", "hidden"}
