"""What both clients do, against a real server."""

import asyncio
import uuid

import grpc
import pytest
from tests.client import samples
from tests.client.scripted import fault, rejection

import dropnorm as dn
from dropnorm.results import State

Code = grpc.StatusCode


async def test_train_sends_only_what_was_said(kind, client, service):
    job = await kind.do(client.train, samples.SPEC)

    [request] = service.requests
    sent = request.training_job
    assert not sent.display_name
    assert not sent.experiment
    assert not sent.HasField("priority") if "priority" in sent.DESCRIPTOR.fields_by_name else True
    assert [field.name for field, _ in sent.spec.ListFields()] == [
        "architecture",
        "optimization",
        "data",
    ]
    assert job.spec == samples.SPEC
    assert job.state is State.QUEUED


async def test_train_sends_all_that_was_said(kind, client, service):
    job = await kind.do(
        client.train,
        samples.SPEC,
        name="my net",
        experiment="digits",
        labels={"team": "vision"},
        priority=7,
        job_id="mine",
        request_id="once",
    )

    assert (job.id, job.name, job.display_name) == ("mine", "trainingJobs/mine", "my net")
    assert job.snapshot.experiment == "digits"
    assert job.snapshot.labels == {"team": "vision"}
    assert job.snapshot.priority == 7
    assert service.requests[0].request_id == "once"


async def test_train_makes_a_request_id_and_keeps_it_over_retries(kind, client, service):
    service.faults["CreateTrainingJob"] = [fault(Code.UNAVAILABLE), fault(Code.UNAVAILABLE)]

    await kind.do(client.train, samples.SPEC)
    await kind.do(client.train, samples.SPEC)

    first, again, at_last, other = [request.request_id for request in service.requests]
    assert uuid.UUID(first).version == 4
    assert first == again == at_last != other


async def test_train_names_every_wrong_argument_before_anything_is_sent(kind, client, service):
    with pytest.raises(dn.InvalidRequest) as caught:
        await kind.do(
            client.train, samples.SPEC, name="two\nlines", priority=5000, labels={"BAD": "x"}
        )

    fields = {problem.field for problem in caught.value.problems}
    assert {"training_job.display_name", "training_job.priority"} <= fields
    assert any(field.startswith("training_job.labels") for field in fields)
    assert all(field in str(caught.value) for field in fields)
    assert service.requests == []


async def test_train_refuses_what_is_no_spec(kind, client, service):
    with pytest.raises(dn.InvalidRequest, match=r"spec: give a dropnorm\.TrainingSpec, not dict"):
        await kind.do(client.train, {"architecture": "mlp"})
    assert service.requests == []


async def test_what_no_request_can_carry_is_refused_by_name(kind, client, service):
    calls = {
        "spec": kind.do(client.plan, {"a": 1}),
        "training_job_id": kind.do(client.validate, samples.SPEC, job_id=5),
        "request_id": kind.do(client.train, samples.SPEC, request_id=b"\xff"),
        "name": kind.do(client.job, None),
        "page_size": kind.items(client.jobs(page_size=2**40)),
        "filter": kind.items(client.jobs(filter="\ud800")),
    }
    for field, call in calls.items():
        with pytest.raises(dn.InvalidRequest, match=f"{field}: give .*, not ") as caught:
            await call
        assert [problem.field for problem in caught.value.problems] == [field]
    assert service.requests == []


async def test_train_names_wrong_ids_with_the_rest(kind, client, service):
    with pytest.raises(dn.InvalidRequest) as caught:
        await kind.do(client.train, samples.SPEC, name="", job_id=5)

    assert [problem.field for problem in caught.value.problems] == [
        "training_job.display_name",
        "training_job_id",
    ]


async def test_validate_creates_nothing(kind, client, service):
    job = await kind.do(client.validate, samples.SPEC, name="would be")

    assert job.display_name == "would be"
    assert service.requests[0].validate_only
    assert service.jobs == {}


async def test_job_by_id_and_by_name(kind, client, service):
    service.add(samples.job("first"))

    by_id = await kind.do(client.job, "first")
    by_name = await kind.do(client.job, "trainingJobs/first")

    assert by_id.name == by_name.name == "trainingJobs/first"


async def test_jobs_reads_every_page(kind, client, service):
    for number in range(5):
        service.add(samples.job(f"job-{number}"))

    jobs = await kind.items(client.jobs(filter="state = QUEUED", order_by="create_time"))

    assert [job.id for job in jobs] == [f"job-{number}" for number in range(5)]
    assert [request.page_token for request in service.requests] == ["", "2", "4"]
    assert {request.filter for request in service.requests} == {"state = QUEUED"}
    assert {request.order_by for request in service.requests} == {"create_time"}


async def test_jobs_asks_for_a_page_only_when_it_is_needed(kind, client, service):
    for number in range(5):
        service.add(samples.job(f"job-{number}"))

    jobs = client.jobs()
    assert service.requests == []
    await kind.next(jobs)
    if isinstance(client, dn.AsyncClient):
        await jobs.aclose()

    assert len(service.requests) == 1


async def test_plan_and_workers(kind, client, service):
    assert await kind.do(client.plan, samples.SPEC) == samples.plan()
    assert await kind.do(client.workers) == (samples.WORKER,)


async def test_handle_moves_the_job(kind, client, service):
    job = await kind.do(client.train, samples.SPEC)

    assert (await kind.do(job.pause)).state is State.PAUSED
    assert (await kind.do(job.resume)).state is State.QUEUED
    assert (await kind.do(job.cancel)).state is State.CANCELLED
    await kind.do(job.delete, force=True)

    assert service.requests[-1].force
    with pytest.raises(dn.NotFound, match="There is no training job trainingJobs/job-0"):
        await kind.do(job.refresh)


async def test_a_call_is_retried_while_the_service_is_unavailable(kind, client, service):
    service.add(samples.job("first"))
    service.faults["GetTrainingJob"] = [fault(Code.UNAVAILABLE)] * 4

    job = await kind.do(client.job, "first")

    assert job.id == "first"
    assert len(service.requests) == 5


async def test_retries_end(kind, client, service):
    service.faults["GetTrainingJob"] = [fault(Code.UNAVAILABLE)] * 50

    with pytest.raises(dn.Unavailable):
        await kind.do(client.job, "first")
    assert len(service.requests) == 5


@pytest.mark.parametrize("method", ["cancel", "pause", "resume"])
async def test_steering_is_safe_to_repeat(kind, client, service, method):
    job = await kind.do(client.train, samples.SPEC)
    service.faults[f"{method.capitalize()}TrainingJob"] = [fault(Code.UNAVAILABLE)]
    before = len(service.requests)

    await kind.do(getattr(job, method))
    assert len(service.requests) == before + 2


async def test_a_deletion_is_not_repeated(kind, client, service):
    """The repeat would be told that there is no such job, although all went well."""
    job = await kind.do(client.train, samples.SPEC)
    service.faults["DeleteTrainingJob"] = [fault(Code.UNAVAILABLE)]

    with pytest.raises(dn.Unavailable):
        await kind.do(job.delete)
    assert len(service.requests) == 2


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED])
async def test_other_failures_are_not_retried(kind, client, service, code):
    service.faults["GetTrainingJob"] = [fault(code)]

    with pytest.raises(dn.DropnormError):
        await kind.do(client.job, "first")
    assert len(service.requests) == 1


async def test_a_call_has_a_deadline(kind, client, service):
    service.faults["GetTrainingJob"] = [lambda context: asyncio.sleep(60)]

    with pytest.raises(dn.DeadlineExceeded, match="did not answer in time"):
        await kind.do(client.job, "first", timeout=0.2)


@pytest.mark.parametrize("seconds", [float("inf"), 1e30, 10**400])
async def test_an_infinite_timeout_is_none(kind, client, service, seconds):
    service.faults["ListWorkers"] = [fault(Code.UNAVAILABLE)]

    assert await kind.do(client.workers, timeout=seconds) == (samples.WORKER,)


@pytest.mark.parametrize("seconds", [float("nan"), -1, "5"])
async def test_a_timeout_that_is_none_is_refused(kind, client, service, seconds):
    with pytest.raises(dn.InvalidRequest, match=r"timeout: give a number of seconds, 0 or more"):
        await kind.do(client.workers, timeout=seconds)
    for limit in ("timeout", "patience"):
        with pytest.raises(dn.InvalidRequest, match=f"{limit}: give a number of seconds"):
            kind.open(service.address, **{limit: seconds})
    assert service.requests == []


async def test_nobody_there_says_where_and_what_to_do(kind):
    client = kind.open("127.0.0.1:1")

    with pytest.raises(dn.Unavailable, match=r"answers at 127\.0\.0\.1:1\. .*dropnorm serve"):
        await kind.do(client.workers)
    await kind.do(client.close)


async def test_a_closed_client_says_so(kind, service):
    client = kind.open(service.address)
    job = await kind.do(client.train, samples.SPEC)
    await kind.do(client.close)
    await kind.do(client.close)

    with pytest.raises(dn.ClientClosed, match="make a new one"):
        await kind.do(job.refresh)
    with pytest.raises(dn.ClientClosed):
        await kind.items(job.watch())
    assert "(closed)" in repr(client)


async def test_errors_come_as_the_service_meant_them(kind, client, service):
    problems = [dn.Problem("training_job.spec.data.dataset", "there is no data set mnisst")]
    service.faults["CreateTrainingJob"] = [
        rejection(Code.INVALID_ARGUMENT, "INVALID_REQUEST", problems=problems, dataset="mnisst")
    ]

    with pytest.raises(dn.InvalidRequest) as caught:
        await kind.do(client.train, samples.SPEC)

    error = caught.value
    assert error.problems == tuple(problems)
    assert error.reason == "INVALID_REQUEST"
    assert error.metadata == {"dataset": "mnisst"}
    assert error.request_id == "request-1"
    assert isinstance(error.__cause__, grpc.RpcError)


async def test_context_managers_close():
    with dn.Client("127.0.0.1:1") as client:
        pass
    async with dn.AsyncClient("127.0.0.1:1") as other:
        pass

    with pytest.raises(dn.ClientClosed):
        client.workers()
    with pytest.raises(dn.ClientClosed):
        await other.workers()


async def test_closing_ends_calls_under_way(kind, service):
    client = kind.open(service.address)
    job = await kind.do(client.train, samples.SPEC)
    service.faults["GetTrainingJob"] = [lambda context: asyncio.sleep(60)]
    asking = asyncio.create_task(kind.do(job.refresh))
    await asyncio.sleep(0.1)
    await kind.do(client.close)

    with pytest.raises(dn.ClientClosed):
        await asking


async def test_a_cancelled_task_stays_cancelled(service):
    async with dn.AsyncClient(service.address) as client:
        service.add(samples.job("first"))
        job = await client.job("first")
        waiting = asyncio.create_task(job.result())
        await asyncio.sleep(0.1)
        waiting.cancel()

        with pytest.raises(asyncio.CancelledError):
            await waiting
