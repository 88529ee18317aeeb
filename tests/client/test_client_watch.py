"""Following a job: the journal whole and in order, whatever happens to the connection."""

import asyncio

import grpc
import pytest
from tests.client import samples
from tests.client.scripted import fault, rejection

import dropnorm as dn
from dropnorm.results import State

Code = grpc.StatusCode
WHOLE = list(range(1, 10))


async def test_watch_replays_and_ends_with_the_final_state(kind, client, service):
    service.add(samples.job("first"), *samples.story())
    job = await kind.do(client.job, "first")

    events = await kind.items(job.watch())

    assert [event.sequence for event in events] == WHOLE
    assert events == service.journals["trainingJobs/first"]


async def test_watch_after(kind, client, service):
    service.add(samples.job("first"), *samples.story())
    job = await kind.do(client.job, "first")

    assert [event.sequence for event in await kind.items(job.watch(after=6))] == [7, 8, 9]
    assert await kind.items(job.watch(after=9)) == []


async def test_a_watch_that_begins_beyond_the_handle_brings_it_up_to_date(kind, client, service):
    job = await kind.do(client.train, samples.SPEC)
    await service.tell(job.name, *samples.story())

    events = await kind.items(job.watch(after=5))

    assert [event.sequence for event in events] == [6, 7, 8, 9]
    assert job.state is State.SUCCEEDED
    assert job.snapshot == service.jobs[job.name]
    assert await kind.do(job.result) == samples.evaluation()


async def test_a_number_that_no_event_has_is_refused(kind, client, service):
    job = await kind.do(client.train, samples.SPEC)

    for after in (2**70, "5"):
        with pytest.raises(dn.InvalidRequest, match=r"after_sequence: give a whole number"):
            await kind.items(job.watch(after=after))
    assert len(service.requests) == 1


async def test_watch_follows_what_happens(kind, client, service):
    service.add(samples.job("first"))
    job = await kind.do(client.job, "first")
    watching = asyncio.create_task(kind.items(job.watch()))
    for payload in samples.story():
        await service.tell(job.name, payload)
        await asyncio.sleep(0.01)

    assert [event.sequence for event in await watching] == WHOLE
    assert job.state is State.SUCCEEDED
    assert job.evaluation == samples.evaluation()
    assert job.mlflow_run_id == "f00d"
    assert job.progress.epoch == 3
    assert job.snapshot.start_time == samples.moment(2)
    assert job.snapshot.end_time == samples.moment(9)


async def test_an_old_part_of_the_journal_does_not_turn_the_handle_back(kind, client, service):
    service.add(samples.job("first"), *samples.story())
    job = await kind.do(client.job, "first")
    before = job.snapshot

    await kind.items(job.watch())

    assert job.snapshot == before


@pytest.mark.parametrize("breaks", [[0], [1], [3, 0, 2], [1] * 8])
async def test_a_broken_connection_leaves_no_gap_and_no_repeat(kind, client, service, breaks):
    service.add(samples.job("first"), *samples.story())
    service.break_after = list(breaks)
    job = await kind.do(client.job, "first")

    events = await kind.items(job.watch())

    assert [event.sequence for event in events] == WHOLE
    assert service.break_after == []


async def test_events_sent_twice_are_dropped(kind, client, service):
    service.add(samples.job("first"), *samples.story())
    service.break_after = [4, 3]
    service.repeat = 2
    job = await kind.do(client.job, "first")

    assert [event.sequence for event in await kind.items(job.watch())] == WHOLE


async def test_a_restarted_service_is_found_again(kind, client, service):
    service.add(samples.job("first"), *samples.story()[:3])
    job = await kind.do(client.job, "first")
    events = job.watch()
    assert (await kind.next(events)).sequence == 1
    watching = asyncio.create_task(kind.items(events))
    await service.stop()
    await asyncio.sleep(0.3)
    for payload in samples.story()[3:]:
        await service.tell(job.name, payload)
    await service.start()

    assert [event.sequence for event in await watching] == WHOLE[1:]


async def test_a_service_that_stays_away_is_given_up(kind, service):
    service.add(samples.job("first"))
    client = kind.open(service.address, patience=0.5)
    job = await kind.do(client.job, "first")
    events = job.watch()
    assert (await kind.next(events)).sequence == 1
    await service.stop()

    with pytest.raises(dn.Unavailable, match=r"nothing was heard .* 0\.5 s.*watch\(after=1\)"):
        await kind.items(events)
    await kind.do(client.close)


async def test_a_skipped_event_is_the_services_error(kind, client, service):
    service.add(samples.job("first"), *samples.story())
    del service.journals["trainingJobs/first"][4]
    job = await kind.do(client.job, "first")

    with pytest.raises(dn.Internal, match="skipped events 5 to 5"):
        await kind.items(job.watch())


async def test_a_deleted_job_ends_the_watch(kind, client, service):
    service.add(samples.job("first"))
    job = await kind.do(client.job, "first")
    service.faults["WatchTrainingJob"] = [
        fault(Code.UNAVAILABLE),
        rejection(Code.NOT_FOUND, "JOB_NOT_FOUND"),
    ]

    with pytest.raises(dn.NotFound):
        await kind.items(job.watch())


async def test_closing_the_client_ends_a_watch(kind, service):
    service.add(samples.job("first"))
    client = kind.open(service.address)
    job = await kind.do(client.job, "first")
    events = job.watch()
    await kind.next(events)
    watching = asyncio.create_task(kind.items(events))
    await kind.do(client.close)

    with pytest.raises(dn.ClientClosed):
        await watching


async def test_what_comes_late_is_told_too(kind, client, service):
    late = samples.story()
    late.append(late.pop(2))
    service.add(samples.job("first"))
    job = await kind.do(client.job, "first")
    await service.tell(job.name, *late)

    events = await kind.items(job.watch())

    assert events[-1].kind == "tracking"
    assert job.mlflow_run_id == "f00d"
    assert job.state is State.SUCCEEDED


async def test_a_connection_that_breaks_after_the_end_is_no_loss(kind, client, service):
    late = samples.story()
    late.append(late.pop(2))
    service.add(samples.job("first"), *late)
    service.break_after = [8]
    job = await kind.do(client.job, "first")

    events = await kind.items(job.watch())

    assert events[-1].payload.state is State.SUCCEEDED


async def test_result_waits(kind, client, service):
    job = await kind.do(client.train, samples.SPEC)
    waiting = asyncio.create_task(kind.do(job.result))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await service.tell(job.name, *samples.story())

    assert await waiting == samples.evaluation()


async def test_result_asks_nothing_that_it_knows(kind, client, service):
    service.add(samples.job("first"), *samples.story())
    job = await kind.do(client.job, "first")
    before = len(service.requests)

    assert await kind.do(job.result) == samples.evaluation()
    assert len(service.requests) == before


async def test_result_of_a_listed_job_fetches_its_evaluation(kind, client, service):
    done = service.add(samples.job("first"), *samples.story())
    service.jobs["trainingJobs/first"] = done.model_copy(update={"evaluation": None})
    [job] = await kind.items(client.jobs())
    service.jobs["trainingJobs/first"] = done

    assert await kind.do(job.result) == samples.evaluation()


async def test_result_of_a_failed_job(kind, client, service):
    service.add(samples.job("first"), *samples.story(State.FAILED))
    job = await kind.do(client.job, "first")

    with pytest.raises(dn.JobFailed, match=r"trainingJobs/first .* the loss became NaN") as caught:
        await kind.do(job.result)
    assert caught.value.error == samples.FAILURE
    assert caught.value.reason == "DIVERGED"
    assert caught.value.job == "trainingJobs/first"


async def test_result_of_a_job_that_fails_while_waited_for(kind, client, service):
    job = await kind.do(client.train, samples.SPEC)
    waiting = asyncio.create_task(kind.do(job.result))
    await service.tell(job.name, *samples.story(State.FAILED))

    with pytest.raises(dn.JobFailed):
        await waiting
    assert job.error == samples.FAILURE


async def test_result_of_a_cancelled_job(kind, client, service):
    job = await kind.do(client.train, samples.SPEC)
    waiting = asyncio.create_task(kind.do(job.result))
    await service.tell(job.name, *samples.story(State.CANCELLED))

    with pytest.raises(dn.JobCancelled, match="was cancelled"):
        await waiting


async def test_result_has_a_timeout(kind, client, service):
    job = await kind.do(client.train, samples.SPEC)

    with pytest.raises(dn.ResultTimeout, match=r"has not ended within 0\.2 s\. It goes on"):
        await kind.do(job.result, timeout=0.2)
    with pytest.raises(TimeoutError):
        await kind.do(job.result, timeout=0.0)


@pytest.mark.parametrize("seconds", [float("inf"), 1e30])
async def test_an_infinite_timeout_of_result_is_none(kind, client, service, seconds):
    job = await kind.do(client.train, samples.SPEC)
    waiting = asyncio.create_task(kind.do(job.result, timeout=seconds))
    await service.tell(job.name, *samples.story())

    assert await waiting == samples.evaluation()


@pytest.mark.parametrize("seconds", [float("nan"), -1.0, "5"])
async def test_a_timeout_of_result_that_is_none_is_refused(kind, client, service, seconds):
    job = await kind.do(client.train, samples.SPEC)

    with pytest.raises(dn.InvalidRequest, match=r"timeout: give a number of seconds, 0 or more"):
        await kind.do(job.result, timeout=seconds)


async def test_result_times_out_although_the_service_is_away(kind, service):
    client = kind.open(service.address, patience=30.0)
    job = await kind.do(client.train, samples.SPEC)
    await service.stop()

    with pytest.raises(dn.ResultTimeout):
        await kind.do(job.result, timeout=0.5)
    await kind.do(client.close)


async def test_result_survives_a_broken_connection(kind, client, service):
    service.add(samples.job("first"))
    job = await kind.do(client.job, "first")
    service.break_after = [2, 1]
    waiting = asyncio.create_task(kind.do(job.result))
    await service.tell(job.name, *samples.story())

    assert await waiting == samples.evaluation()


async def test_result_shows_progress_in_lines_where_there_is_no_terminal(
    kind, client, service, capsys
):
    service.add(samples.job("first"))
    job = await kind.do(client.job, "first")
    await service.tell(job.name, *samples.story())

    await kind.do(job.result, progress=True)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "first: running"
    assert any(line.startswith("first: epoch 1: train loss 0.4000") for line in lines)
    assert lines[-1] == "first: succeeded"


@pytest.mark.parametrize("ending", [State.CANCELLED, State.FAILED, State.PAUSED])
async def test_the_history_of_a_job_without_a_result(kind, client, service, ending):
    service.add(samples.job("first"), *samples.story(ending))
    job = await kind.do(client.job, "first")

    assert await kind.do(job.history) == (samples.epoch(1), samples.epoch(2))
    assert job.state is ending


async def test_the_history_of_a_job_that_has_succeeded(kind, client, service):
    service.add(samples.job("first"), *samples.story())
    job = await kind.do(client.job, "first")

    assert await kind.do(job.history) == samples.evaluation().history
    assert [type(request).__name__ for request in service.requests][-1] == "GetTrainingJobRequest"


async def test_the_history_of_a_job_that_goes_on_ends_with_what_has_happened(kind, client, service):
    """And an epoch that a second attempt did again is one."""
    job = await kind.do(client.train, samples.SPEC)
    assert await kind.do(job.history) == ()
    story = samples.story()
    await service.tell(job.name, *story[:5], *story[3:5])

    assert await kind.do(job.history) == (samples.epoch(1), samples.epoch(2))
    assert job.state is State.RUNNING
