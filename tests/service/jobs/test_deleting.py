"""Deleted jobs: hidden at once, removed when nobody needs them. Checkpoints of ended jobs go too."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.service.jobs.bench import PATIENCE, PROMPT, SPEC, Bench, lost

from dropnorm.results import Event, State
from dropnorm.spec import Submission
from dropnorm_service.jobs import purging
from dropnorm_service.jobs.errors import JobAlreadyExists, JobNotFound, WrongState
from dropnorm_service.jobs.ports import CHECKPOINTS
from dropnorm_service.store import SqlJobStore


class Reader:
    """Somebody who reads all journals, and has come so far."""

    position: int | None = 0


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
async def bench(
    store: SqlJobStore, tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    monkeypatch.setattr(purging, "_INTERVAL", 0.01)
    bench = Bench(store, tmp_path / "jobs", read_up_to=lambda: reader.position)
    await bench.service.start()
    yield bench
    await bench.service.stop(grace=0.0)


async def gone(bench: Bench, job_id: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while await bench.store.get(job_id, deleted=True) is not None:
            pass


async def test_a_job_that_has_not_ended_is_deleted_by_force_only(bench: Bench):
    job = await bench.create()
    with pytest.raises(WrongState, match="cancel it first, or delete it with force"):
        await bench.service.delete(job.id)
    assert (await bench.service.get(job.id)).name == job.name


async def test_a_deleted_job_is_hidden_until_its_journal_has_been_read(
    bench: Bench, reader: Reader
):
    job = await bench.create()
    attempt = await bench.launched()
    (attempt.launch.folder / "checkpoint").write_bytes(b"weights")
    attempt.succeed()
    await bench.reached(job, State.SUCCEEDED)
    await bench.service.delete(job.id)
    with pytest.raises(JobNotFound):
        await bench.service.get(job.id)
    with pytest.raises(JobAlreadyExists):
        await bench.service.create(Submission(spec=SPEC), job_id=job.id)
    await asyncio.sleep(0.05)
    assert attempt.launch.folder.exists()
    assert await bench.journal(job)

    reader.position = 10**6
    await gone(bench, job.id)
    assert not attempt.launch.folder.exists()
    assert not await bench.journal(job)
    assert (await bench.service.create(Submission(spec=SPEC), job_id=job.id)).last_sequence == 1


async def test_a_running_job_deleted_by_force_is_cancelled_and_then_goes(
    bench: Bench, reader: Reader
):
    reader.position = None
    job = await bench.create()
    attempt = await bench.launched()
    await bench.reached(job, State.RUNNING)
    watching = asyncio.create_task(_watch(bench, job.id))
    await asyncio.sleep(0.05)
    await bench.service.delete(job.id, force=True)
    assert await bench.store.get(job.id, deleted=True) is not None
    assert await attempt.obey() == "cancel"
    assert (await watching)[-1].payload.kind == "state"
    await gone(bench, job.id)


async def test_an_id_is_free_again_when_nothing_of_its_job_runs_any_more(
    bench: Bench, reader: Reader, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(purging, "_INTERVAL", 0.01)
    reader.position = None
    job = await bench.create()
    attempt = await bench.launched()
    attempt.may_close.clear()
    attempt.succeed()
    await bench.reached(job, State.SUCCEEDED)
    await bench.service.delete(job.id)
    await asyncio.sleep(0.05)
    with pytest.raises(JobAlreadyExists):
        await bench.service.create(Submission(spec=SPEC), job_id=job.id)
    attempt.may_close.set()
    await gone(bench, job.id)
    again = await bench.service.create(Submission(spec=SPEC), job_id=job.id)
    (await bench.launched()).succeed()
    await bench.reached(again, State.SUCCEEDED)


async def test_what_was_deleted_before_a_restart_goes_after_it(
    store: SqlJobStore, bench: Bench, reader: Reader
):
    job = await bench.create()
    await bench.service.delete(job.id, force=True)
    await bench.service.stop(grace=0.0)
    assert await store.get(job.id, deleted=True) is not None
    again = Bench(store, bench.folder)
    await again.service.start()
    await gone(again, job.id)
    await again.service.stop(grace=0.0)


async def _watch(bench: Bench, job_id: str) -> list[Event]:
    return [event async for event in bench.service.watch(job_id)]


def leave_checkpoint(folder: Path) -> Path:
    checkpoint = folder / CHECKPOINTS / "000001.json"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text("{}")
    return checkpoint


async def removed(checkpoint: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        while checkpoint.parent.exists():  # noqa: ASYNC110 - nobody tells of files that are gone
            await asyncio.sleep(0.01)


async def test_checkpoints_stay_until_the_end_of_the_job_is_on_disk(bench: Bench):
    job = await bench.create()
    attempt = await bench.launched()
    checkpoint = leave_checkpoint(attempt.launch.folder)
    attempt.end(lost())
    attempt = await bench.launched()
    assert checkpoint.exists()
    attempt.succeed()
    await bench.reached(job, State.SUCCEEDED)
    await removed(checkpoint)
    assert attempt.launch.folder.exists()


async def test_a_service_removes_what_the_one_before_did_not_come_to_remove(
    store: SqlJobStore, tmp_path: Path
):
    first = Bench(store, tmp_path / "jobs", cpus=1)
    await first.service.start()
    ended, waiting = await first.create(), await first.create()
    (await first.launched()).succeed()
    await first.reached(ended, State.SUCCEEDED)
    await first.service.stop(grace=0.0)
    left, needed = (leave_checkpoint(first.folder / job.id) for job in (ended, waiting))

    second = Bench(store, first.folder)
    await second.service.start()
    await removed(left)
    assert needed.exists()
    await second.service.stop(grace=0.0)


async def test_a_service_that_stops_leaves_no_removal_under_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    removing, go_on, rmtree = threading.Event(), threading.Event(), shutil.rmtree

    def slowly(folder: Path) -> None:
        removing.set()
        assert go_on.wait(PATIENCE)
        rmtree(folder)

    monkeypatch.setattr(shutil, "rmtree", slowly)
    jobs = [await bench.create() for _ in range(2)]
    first, other = [await bench.launched() for _ in range(2)]
    for job in jobs:
        await bench.reached(job, State.RUNNING)
    checkpoint = leave_checkpoint(first.launch.folder)
    first.succeed()
    assert await asyncio.to_thread(removing.wait, PATIENCE)
    stopping = asyncio.create_task(bench.service.stop(grace=PATIENCE))
    assert await other.obey() == "pause", "which waits for no disk"
    await other.closed.wait()
    await asyncio.wait([stopping], timeout=0.1)
    assert not stopping.done()
    go_on.set()
    await stopping
    assert not checkpoint.exists()


async def test_a_cancelled_job_keeps_its_last_checkpoint(bench: Bench):
    cancelled, done = await bench.create(), await bench.create()
    launches = [(await bench.launched()).launch for _ in range(2)]
    left = {launch.job_id: leave_checkpoint(launch.folder) for launch in launches}
    await bench.reached(cancelled, State.RUNNING)
    await bench.service.cancel(cancelled.id)
    await bench.executor.attempts[cancelled.id].obey()
    await bench.reached(cancelled, State.CANCELLED)
    bench.executor.attempts[done.id].succeed()
    await removed(left[done.id])
    assert left[cancelled.id].exists()


async def test_a_new_job_of_the_same_id_has_lost_no_attempts(bench: Bench, reader: Reader):
    reader.position = 10**6
    submission = Submission(spec=SPEC)
    old = await bench.service.create(submission, job_id="again")
    for _ in range(PROMPT.limit - 2):
        (await bench.launched()).end(lost())
    attempt = await bench.launched()
    others = [await bench.create(priority=9) for _ in range(2)]  # which take both slots
    busy = [await bench.launched()]
    attempt.end(lost())
    busy.append(await bench.launched())
    assert {each.launch.job_id for each in busy} == {other.id for other in others}
    await bench.reached(old, State.QUEUED)
    await bench.service.cancel(old.id)
    await bench.service.delete(old.id)
    await gone(bench, old.id)

    new = await bench.service.create(submission, job_id=old.id)
    for each in busy:
        each.succeed()
    for _ in range(PROMPT.limit - 1):
        (await bench.launched()).end(lost())
    (await bench.launched()).succeed()
    assert (await bench.reached(new, State.SUCCEEDED)).attempt == PROMPT.limit
