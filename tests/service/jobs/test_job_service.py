"""Creating, showing, steering and deleting jobs."""

import asyncio
import gc
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.service.jobs.bench import GPU_SPEC, PATIENCE, SPEC, Bench

from dropnorm.results import Event, State, Tracked
from dropnorm.spec import Compute, InvalidSpecError, Problem, Submission
from dropnorm_service.datasets.holds import Holds
from dropnorm_service.jobs.errors import (
    CannotFit,
    InvalidListRequest,
    InvalidRequest,
    JobAlreadyExists,
    JobNotFound,
    PlannerUnavailable,
    RequestIdReused,
    ShuttingDown,
    WrongState,
)
from dropnorm_service.jobs.limits import JobLimits
from dropnorm_service.jobs.ports import Change, JobQuery
from dropnorm_service.store import SqlJobStore

SUBMISSION = Submission(
    display_name="First try", experiment="digits", labels={"team": "vision"}, priority=3, spec=SPEC
)


async def test_a_job_shows_what_was_submitted(bench: Bench):
    job = await bench.service.create(SUBMISSION, job_id="first")
    assert job.name == "trainingJobs/first"
    assert job.model_dump(include=set(Submission.model_fields)) == SUBMISSION.model_dump()
    assert (job.state, job.attempt, job.last_sequence) == (State.QUEUED, 0, 1)
    assert job.spec_digest == SPEC.digest()
    assert (await bench.states(job))[0] is State.QUEUED


async def test_a_job_without_id_and_name_gets_both(bench: Bench):
    first, second = await bench.create(), await bench.create()
    assert first.id != second.id
    assert first.display_name == first.id
    assert (await bench.service.create(Submission(spec=SPEC), job_id=f"{first.id}x")).spec == SPEC


async def test_malformed_ids_are_all_named(bench: Bench):
    with pytest.raises(InvalidRequest) as raised:
        await bench.service.create(SUBMISSION, job_id="First", request_id="ü")
    assert [problem.field for problem in raised.value.problems] == [
        "training_job_id",
        "request_id",
    ]


def held_up(store: SqlJobStore) -> tuple[asyncio.Event, asyncio.Event]:
    """Let commits wait: the first event says that one has come, the second lets them go on."""
    at_the_store, go_on = asyncio.Event(), asyncio.Event()
    commit = store.commit

    async def slow_commit(change: Change) -> None:
        at_the_store.set()
        await go_on.wait()
        await commit(change)

    store.commit = slow_commit  # type: ignore[method-assign]
    return at_the_store, go_on


async def test_its_data_is_held_until_a_job_is_on_disk(store: SqlJobStore, tmp_path: Path):
    holds = Holds()
    bench = Bench(store, tmp_path / "jobs", data_held=holds.held)
    at_the_store, go_on = held_up(store)
    creating = asyncio.create_task(bench.service.create(SUBMISSION, job_id="first"))
    await at_the_store.wait()
    taking = asyncio.create_task(holds.taken("digits").__aenter__())
    creating.cancel()  # the caller has gone; the job is written all the same
    await asyncio.wait([creating, taking], timeout=0.1)
    assert creating.cancelled()
    assert not taking.done()
    go_on.set()
    async with asyncio.timeout(PATIENCE):
        await taking
    assert (await store.get("first")) is not None
    await bench.service.stop(grace=0.0)


async def test_an_id_is_taken_once(bench: Bench):
    await bench.service.create(SUBMISSION, job_id="first")
    for validate_only in (False, True):
        with pytest.raises(JobAlreadyExists):
            await bench.service.create(SUBMISSION, job_id="first", validate_only=validate_only)


async def test_a_refusal_that_nobody_waits_for_is_no_error_of_the_service(
    bench: Bench, store: SqlJobStore, caplog: pytest.LogCaptureFixture
):
    gc.collect()  # what the tests before this one left is not told here
    caplog.clear()
    await bench.service.create(SUBMISSION, job_id="first")
    at_the_store, go_on = held_up(store)
    again = asyncio.create_task(bench.service.create(SUBMISSION, job_id="first"))
    await at_the_store.wait()
    again.cancel()
    await asyncio.wait([again])
    go_on.set()
    await bench.service.stop(grace=0.0)  # it waits for changes under way
    del (
        again
    )  # or its own end would keep the change in memory, which asyncio complains of when it goes
    gc.collect()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_validate_only_makes_nothing(bench: Bench):
    job = await bench.service.create(SUBMISSION, job_id="first", request_id="r", validate_only=True)
    assert (job.name, job.spec, job.last_sequence) == ("trainingJobs/first", SPEC, 0)
    with pytest.raises(JobNotFound):
        await bench.service.get("first")
    assert (await bench.service.create(SUBMISSION, request_id="r")).id != "first"


async def test_what_the_planner_finds_wrong_is_told_with_its_path(bench: Bench):
    bench.planner.error = InvalidSpecError([Problem("architecture.mlp.hidden[0]", "too wide")])
    with pytest.raises(InvalidRequest) as raised:
        await bench.create()
    assert raised.value.problems[0].field == "training_job.spec.architecture.mlp.hidden[0]"
    with pytest.raises(InvalidRequest) as raised:
        await bench.service.plan(SPEC)
    assert raised.value.problems[0].field == "spec.architecture.mlp.hidden[0]"


async def test_a_job_is_not_accepted_unchecked(bench: Bench):
    bench.planner.error = PlannerUnavailable("The planner does not answer.")
    with pytest.raises(PlannerUnavailable):
        await bench.create()


async def test_what_can_never_run_is_refused(bench: Bench):
    with pytest.raises(CannotFit) as raised:
        await bench.create(GPU_SPEC)
    assert raised.value.problems == (
        ("training_job.spec.compute.gpus", "This service has too few GPUs."),
    )


async def test_a_repeated_request_returns_the_first_job_as_it_is_now(bench: Bench):
    first = await bench.service.create(SUBMISSION, request_id="r")
    await bench.service.cancel(first.id)
    again = await bench.service.create(SUBMISSION, request_id="r")
    assert again == await bench.service.get(first.id)
    assert again.state in (State.CANCELLING, State.CANCELLED)


@pytest.mark.parametrize("validate_only", [False, True])
async def test_a_repeat_is_answered_whatever_has_changed_since(
    store: SqlJobStore, tmp_path: Path, validate_only: bool
):
    compute = Compute(device="cuda", gpus=1, time_limit=100)
    submission = Submission(spec=SPEC.model_copy(update={"compute": compute}))
    before = Bench(store, tmp_path, gpus=1)
    before.executor.free["cuda"] = 0
    first = await before.service.create(submission, request_id="r")
    await before.service.stop(grace=0.0)

    after = Bench(store, tmp_path, gpus=0, limits=JobLimits(seconds=10))
    after.planner.error = PlannerUnavailable("The planner is busy.")
    again = await after.service.create(submission, request_id="r", validate_only=validate_only)
    assert again.name == first.name
    with pytest.raises(RequestIdReused):
        await after.service.create(SUBMISSION, request_id="r", validate_only=validate_only)
    with pytest.raises(PlannerUnavailable):
        await after.service.create(submission, request_id="s", validate_only=validate_only)
    await after.service.stop(grace=0.0)


async def test_a_repeated_request_may_name_the_id_it_made(bench: Bench):
    first = await bench.service.create(SUBMISSION, job_id="first", request_id="r")
    again = await bench.service.create(SUBMISSION, job_id="first", request_id="r")
    assert again.name == first.name


async def test_the_same_request_twice_at_once_makes_one_job(bench: Bench):
    jobs = await asyncio.gather(
        *(bench.service.create(SUBMISSION, request_id="r") for _ in range(20))
    )
    assert len({job.name for job in jobs}) == 1
    assert len((await bench.service.list(JobQuery())).jobs) == 1


async def test_a_request_id_with_other_content_is_refused(bench: Bench):
    first = await bench.service.create(SUBMISSION, request_id="r")
    for submission, job_id in [(Submission(spec=SPEC), None), (SUBMISSION, "other")]:
        with pytest.raises(RequestIdReused) as raised:
            await bench.service.create(submission, job_id=job_id, request_id="r")
        assert raised.value.metadata == {"request_id": "r", "training_job": first.name}


async def test_validate_only_answers_a_used_request_id_as_the_real_call_does(bench: Bench):
    first = await bench.service.create(SUBMISSION, job_id="first", request_id="r")
    await bench.service.cancel(first.id)
    again = await bench.service.create(
        SUBMISSION, job_id="first", request_id="r", validate_only=True
    )
    assert again == await bench.service.get(first.id)
    for submission, job_id in [(Submission(spec=SPEC), "first"), (SUBMISSION, "other")]:
        with pytest.raises(RequestIdReused) as raised:
            await bench.service.create(
                submission, job_id=job_id, request_id="r", validate_only=True
            )
        assert [problem.field for problem in raised.value.problems] == ["request_id"]
    with pytest.raises(JobAlreadyExists):
        await bench.service.create(SUBMISSION, job_id="first", request_id="s", validate_only=True)


async def test_malformed_ids_do_not_hide_what_the_planner_finds(bench: Bench):
    bench.planner.error = InvalidSpecError([Problem("data.dataset", "unknown")])
    with pytest.raises(InvalidRequest) as raised:
        await bench.service.create(SUBMISSION, job_id="First")
    assert [problem.field for problem in raised.value.problems] == [
        "training_job_id",
        "training_job.spec.data.dataset",
    ]


async def test_labels_in_another_order_are_the_same_request(bench: Bench):
    pairs = [("a", "1"), ("b", "2")]
    jobs = [
        await bench.service.create(Submission(spec=SPEC, labels=dict(labels)), request_id="r")
        for labels in (pairs, pairs[::-1])
    ]
    assert jobs[0].name == jobs[1].name


async def test_a_caller_who_goes_away_does_not_undo_what_is_under_way(bench: Bench):
    creating = asyncio.create_task(bench.service.create(SUBMISSION, job_id="first"))
    await asyncio.sleep(0)
    while not creating.done():
        creating.cancel()
        await asyncio.sleep(0)
    attempt = await bench.launched()
    assert attempt.launch.job_id == "first"
    assert (await bench.service.get("first")).name == "trainingJobs/first"


@pytest.mark.parametrize("action", ["get", "cancel", "pause", "resume", "delete"])
async def test_there_is_no_such_job(bench: Bench, action: str):
    with pytest.raises(JobNotFound, match="There is no training job trainingJobs/nobody"):
        await getattr(bench.service, action)("nobody")


async def test_a_list_hides_what_is_deleted_and_says_what_it_cannot_read(bench: Bench):
    job = await bench.create()
    assert [each.name for each in (await bench.service.list(JobQuery())).jobs] == [job.name]
    await bench.service.delete(job.id, force=True)
    assert (await bench.service.list(JobQuery())).jobs == ()
    with pytest.raises(InvalidListRequest):
        await bench.service.list(JobQuery(filter="colour = red"))


async def test_a_waiting_job_pauses_resumes_and_is_cancelled_without_a_worker(bench: Bench):
    for _ in range(2):
        await bench.create()
        await bench.launched()
    job = await bench.create()
    assert (await bench.service.pause(job.id)).state is State.PAUSED
    assert (await bench.service.resume(job.id)).state is State.QUEUED
    assert (await bench.service.cancel(job.id)).state is State.CANCELLED
    assert (await bench.service.cancel(job.id)).end_time is not None
    with pytest.raises(WrongState, match="is CANCELLED and cannot be resumed"):
        await bench.service.resume(job.id)
    assert await bench.states(job) == [
        State.QUEUED,
        State.PAUSED,
        State.QUEUED,
        State.CANCELLED,
    ]


async def test_a_repeat_changes_nothing(bench: Bench):
    job = await bench.create()
    await bench.launched()
    running = await bench.reached(job, State.RUNNING)
    assert await bench.service.resume(job.id) == running
    first = await bench.service.pause(job.id)
    assert await bench.service.pause(job.id) == first
    first = await bench.service.cancel(job.id)
    assert await bench.service.cancel(job.id) == first


async def test_where_mlflow_has_it_is_noted_once(bench: Bench):
    job = await bench.create()
    tracked = Tracked(mlflow_experiment_id="1", mlflow_run_id="r")
    for _ in range(2):
        await bench.service.record_tracking(job.id, tracked)
    shown = await bench.service.get(job.id)
    assert (shown.mlflow_experiment_id, shown.mlflow_run_id) == ("1", "r")
    kinds = [event.payload.kind for event in await bench.journal(job)]
    assert kinds.count("tracking") == 1
    await bench.service.record_tracking("nobody", tracked)


async def test_who_wants_to_know_hears_of_every_growth(bench: Bench):
    heard: list[Sequence[Event]] = []
    bench.service.on_growth(heard.append)
    job = await bench.create()
    await bench.launched()
    await bench.reached(job, State.RUNNING)
    assert [event for growth in heard for event in growth] == list(await bench.journal(job))


async def test_the_workers_are_the_executors_slots(bench: Bench):
    [worker] = await bench.service.workers()
    assert (worker.name, worker.host) == ("workers/local", socket.gethostname())
    assert [slot.id for slot in worker.slots] == ["cpu-0", "cpu-1"]


async def test_a_service_that_stops_takes_no_more_jobs(bench: Bench):
    await bench.service.stop(grace=0.0)
    with pytest.raises(ShuttingDown):
        await bench.create()
