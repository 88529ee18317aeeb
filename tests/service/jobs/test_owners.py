"""Jobs of several users: request ids, what is shared, and how much each may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.service.callers import ADA, BOB, EVE, ROOT
from tests.service.jobs.bench import SPEC, Bench

from dropnorm.results import Event, SharingChanged, State, StateChanged, TrainingJob
from dropnorm.spec import Submission
from dropnorm_service.jobs.callers import Caller
from dropnorm_service.jobs.errors import (
    JobAlreadyExists,
    JobNotFound,
    LimitReached,
    NotOwner,
    RequestIdReused,
)
from dropnorm_service.jobs.limits import JobLimits
from dropnorm_service.jobs.ports import JobQuery
from dropnorm_service.store import SqlJobStore

SUBMISSION = Submission(spec=SPEC)
SHARED = Submission(spec=SPEC, shared=True)


def waiting(store: SqlJobStore, folder: Path, **more: Any) -> Bench:
    """A service in which jobs stay in the queue."""
    bench = Bench(store, folder, cpus=1, **more)
    bench.executor.free["cpu"] = 0
    return bench


@pytest.fixture
async def limited(store: SqlJobStore, tmp_path: Path) -> AsyncIterator[Bench]:
    """A service whose slot is taken, where a user may have two jobs and two journals, and all together three."""
    bench = waiting(store, tmp_path / "jobs", limits=JobLimits(queued=2, watches=2, all_watches=3))
    await bench.service.start()
    yield bench
    await bench.service.stop(grace=0.0)


async def names(bench: Bench, caller: Caller, filter: str = "") -> list[str]:
    page = await bench.jobs.list(caller, JobQuery(filter=filter, order_by="name"))
    return [job.id for job in page.jobs]


async def test_a_job_is_its_makers(bench: Bench):
    job = await bench.as_(ADA).create(SUBMISSION)
    assert (job.owner, job.shared) == ("ada", False)
    assert await bench.as_(ADA).get(job.id) == job == await bench.as_(ROOT).get(job.id)
    for other in (BOB, EVE):
        with pytest.raises(JobNotFound):
            await bench.as_(other).get(job.id)


async def test_a_repeat_by_another_is_a_request_of_its_own(bench: Bench):
    first = await bench.as_(ADA).create(SUBMISSION, request_id="r")
    other = await bench.as_(BOB).create(SUBMISSION, request_id="r")
    assert first.id != other.id
    assert (await bench.as_(ADA).create(SUBMISSION, request_id="r")).id == first.id
    assert (await bench.as_(BOB).create(SUBMISSION, request_id="r")).id == other.id
    for user, job in ((ADA, first), (BOB, other)):
        with pytest.raises(RequestIdReused) as raised:
            await bench.as_(user).create(SHARED, request_id="r")
        assert raised.value.metadata["training_job"] == job.name


async def test_an_id_is_taken_whoever_has_it(bench: Bench):
    await bench.as_(ADA).create(SUBMISSION, job_id="mine")
    said = set()
    for user in (ADA, BOB, ROOT):
        for validate_only in (False, True):
            with pytest.raises(JobAlreadyExists) as raised:
                await bench.as_(user).create(SUBMISSION, job_id="mine", validate_only=validate_only)
            said.add((raised.value.message, str(raised.value.metadata)))
    assert len(said) == 1


async def test_sharing_is_an_event_and_a_repeat_is_none(limited: Bench):
    bench = limited
    job = await bench.as_(ADA).create(SUBMISSION)
    shared = await bench.as_(ADA).share(job.id, True)
    assert (shared.shared, await bench.as_(ADA).share(job.id, True)) == (True, shared)
    assert await bench.as_(BOB).get(job.id) == shared
    with pytest.raises(NotOwner, match="belongs to ada"):
        await bench.as_(BOB).share(job.id, False)
    assert not (await bench.as_(ROOT).share(job.id, False)).shared
    payloads = [event.payload for event in await bench.journal(job)]
    told = [each.shared for each in payloads if isinstance(each, SharingChanged)]
    assert told == [True, False]


async def test_what_is_shared_outlives_the_service(store: SqlJobStore, tmp_path: Path):
    before = waiting(store, tmp_path / "jobs")
    job = await before.as_(ADA).create(SUBMISSION)
    await before.as_(ADA).share(job.id, True)
    await before.service.stop(grace=0.0)
    after = waiting(store, tmp_path / "jobs")
    assert (await after.as_(BOB).get(job.id)).owner == "ada"
    await after.service.stop(grace=0.0)


async def test_a_list_has_ones_own_and_what_is_shared(bench: Bench):
    for user in (ADA, BOB):
        for submission, kind in ((SUBMISSION, "own"), (SHARED, "shared")):
            await bench.as_(user).create(submission, job_id=f"{user.user}-{kind}")
    assert await names(bench, ADA) == ["ada-own", "ada-shared", "bob-shared"]
    assert await names(bench, EVE) == ["ada-shared", "bob-shared"]
    assert len(await names(bench, ROOT)) == 4
    assert await names(bench, ADA, 'owner = "bob"') == ["bob-shared"]
    assert await names(bench, ROOT, "owner = bob AND shared = false") == ["bob-own"]
    assert await names(bench, ADA, "NOT shared = true") == ["ada-own"]


async def test_who_watches_a_job_that_is_no_longer_shared_hears_nothing_more(bench: Bench):
    job = await bench.as_(ADA).create(SHARED)
    attempt = await bench.launched()
    heard: dict[str, list[Event]] = {"ada": [], "bob": []}
    bob_has_heard_all = asyncio.Event()

    async def watch(user: Caller) -> None:
        async for event in bench.as_(user).watch(job.id):
            heard[user.user].append(event)
            if user is BOB and event.payload == StateChanged(state=State.RUNNING):
                bob_has_heard_all.set()

    watching = {user: asyncio.create_task(watch(user)) for user in (ADA, BOB)}
    running = await bench.reached(job, State.RUNNING)
    await bob_has_heard_all.wait()
    await bench.as_(ADA).share(job.id, False)
    attempt.succeed()
    with pytest.raises(JobNotFound):
        await watching[BOB]
    await watching[ADA]
    assert len(heard["bob"]) == running.last_sequence
    assert heard["ada"][: len(heard["bob"])] == heard["bob"]
    assert [each.kind for each in heard["ada"]][-3:] == ["sharing", "evaluation", "state"]


async def test_a_slow_reader_is_cut_in_the_middle_of_a_page(bench: Bench):
    job = await bench.as_(ADA).create(SHARED)
    await bench.launched()
    await bench.reached(job, State.RUNNING)
    events = bench.as_(BOB).watch(job.id)
    await anext(events)
    await bench.as_(ADA).share(job.id, False)
    with pytest.raises(JobNotFound):
        await anext(events)


async def test_the_queue_has_room_for_so_many_of_each_user(limited: Bench):
    jobs = [await limited.as_(ADA).create(SUBMISSION) for _ in range(2)]
    for validate_only in (False, True):
        with pytest.raises(LimitReached, match="2 of your jobs wait in the queue") as raised:
            await limited.as_(ADA).create(SUBMISSION, validate_only=validate_only)
    error = raised.value
    assert (error.subject, error.metadata) == (
        "user:ada",
        {"setting": "max_queued_jobs_per_user", "limit": "2"},
    )
    assert error.retry_after
    await limited.as_(BOB).create(SUBMISSION)
    await limited.as_(ADA).cancel(jobs[0].id)
    await limited.as_(ADA).create(SUBMISSION)


async def test_of_many_at_once_no_more_than_that_get_in(limited: Bench):
    made = await asyncio.gather(
        *(limited.as_(ADA).create(SUBMISSION) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(each, TrainingJob) for each in made) == 2
    assert sum(isinstance(each, LimitReached) for each in made) == 18


async def test_a_repeat_of_what_is_in_the_full_queue_is_answered(limited: Bench):
    first = await limited.as_(ADA).create(SUBMISSION, request_id="r")
    await limited.as_(ADA).create(SUBMISSION)
    for validate_only in (False, True):
        again = await limited.as_(ADA).create(
            SUBMISSION, request_id="r", validate_only=validate_only
        )
        assert again == first


async def test_the_queue_is_counted_anew_after_a_restart(store: SqlJobStore, tmp_path: Path):
    benches = [waiting(store, tmp_path / "jobs", limits=JobLimits(queued=1)) for _ in "12"]
    for bench, refused in zip(benches, (False, True), strict=True):
        await bench.service.start()
        if refused:
            with pytest.raises(LimitReached):
                await bench.as_(ADA).create(SUBMISSION)
        else:
            await bench.as_(ADA).create(SUBMISSION)
        await bench.service.stop(grace=0.0)


async def test_so_many_journals_are_told_to_each_and_to_all(limited: Bench):
    jobs = {user: await limited.as_(user).create(SUBMISSION) for user in (ADA, BOB)}
    streams: list[Any] = []

    async def open_stream(user: Caller) -> None:
        stream = limited.as_(user).watch(jobs[user].id)
        await anext(stream)
        streams.append(stream)

    for _ in range(2):
        await open_stream(ADA)
    with pytest.raises(LimitReached, match="You follow 2 journals") as raised:
        await open_stream(ADA)
    assert raised.value.metadata["setting"] == "max_watches_per_user"
    await open_stream(BOB)
    with pytest.raises(LimitReached, match="3 journals are being followed") as raised:
        await open_stream(BOB)
    assert (raised.value.subject, raised.value.metadata["setting"]) == ("service", "max_watches")
    await _close(streams[:1])
    await open_stream(BOB)
    await _close(streams)


async def _close(streams: Sequence[Any]) -> None:
    for stream in streams:
        await stream.aclose()
