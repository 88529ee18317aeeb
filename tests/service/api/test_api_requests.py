"""What a call answers to a request that is wrong, over a real connection."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.internal import encoder
from tests.service.api.details import failure, refused, status_of, violations
from tests.service.jobs.bench import DATASET, EVALUATION, SPEC, Bench

from dropnorm import wire
from dropnorm.results import State
from dropnorm.spec import InvalidSpecError, Problem, Submission
from dropnorm.v1 import training_job_pb2
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm_service.jobs.callers import LOCAL, Caller
from dropnorm_service.jobs.ports import JobPage, JobQuery

UNKNOWN_VIEW: Any = 77


def creation(**values: Any) -> pb.CreateTrainingJobRequest:
    job = wire.to_message(Submission(spec=SPEC), training_job_pb2.TrainingJob)
    return pb.CreateTrainingJobRequest(training_job=job, **values)


async def test_create_names_the_wrong_fields_of_all_its_parts(stub: Any):
    request = creation(training_job_id="Bad", request_id="é")
    request.training_job.display_name = ""
    request.training_job.spec.seed = -1

    assert await refused(stub.CreateTrainingJob(request)) == [
        "training_job.display_name",
        "training_job.spec.seed",
        "training_job_id",
        "request_id",
    ]


async def test_create_names_wrong_ids_with_what_the_planner_finds(stub: Any, bench: Bench):
    bench.planner.error = InvalidSpecError([Problem("data.dataset", "unknown")])

    assert await refused(stub.CreateTrainingJob(creation(training_job_id="Bad"))) == [
        "training_job_id",
        "training_job.spec.data.dataset",
    ]


async def test_list_names_every_wrong_field(stub: Any):
    request = pb.ListTrainingJobsRequest(
        page_size=-1, filter="colour = 1", order_by="colour", view=UNKNOWN_VIEW
    )

    assert await refused(stub.ListTrainingJobs(request)) == [
        "view",
        "page_size",
        "filter",
        "order_by",
    ]


async def test_the_other_calls_name_every_wrong_field(stub: Any):
    workers = pb.ListWorkersRequest(page_size=-1, page_token="x")
    watch = pb.WatchTrainingJobRequest(name="x", after_sequence=-1)
    get = pb.GetTrainingJobRequest(name="x", view=UNKNOWN_VIEW)

    assert await refused(stub.ListWorkers(workers)) == ["page_size", "page_token"]
    assert await refused(anext(aiter(stub.WatchTrainingJob(watch)))) == ["name", "after_sequence"]
    assert await refused(stub.GetTrainingJob(get)) == ["name", "view"]


async def test_an_unknown_view_is_refused(stub: Any, bench: Bench):
    job = await bench.create()
    get = pb.GetTrainingJobRequest(name=job.name, view=UNKNOWN_VIEW)
    error = await failure(stub.GetTrainingJob(get))

    assert violations(status_of(error))[0].message.startswith("there is no view of number 77")
    assert await refused(stub.ListTrainingJobs(pb.ListTrainingJobsRequest(view=UNKNOWN_VIEW))) == [
        "view"
    ]


async def test_a_token_that_nests_deeper_than_its_reader_goes_is_refused(
    stub: Any,
):
    token = base64.urlsafe_b64encode(b"[" * 3000).decode()

    assert await refused(stub.ListTrainingJobs(pb.ListTrainingJobsRequest(page_token=token))) == [
        "page_token"
    ]


async def test_what_is_far_too_long_is_not_looked_at(stub: Any, channel: grpc.aio.Channel):
    ordered = pb.ListTrainingJobsRequest(order_by="name," * 200_000)
    masked = pb.UpdateTrainingJobRequest()
    masked.training_job.name = "trainingJobs/x"
    masked.update_mask.paths.extend(f"f{number}" for number in range(100_000))

    assert await refused(stub.ListTrainingJobs(ordered)) == ["order_by"]
    assert await refused(stub.UpdateTrainingJob(masked)) == ["update_mask"]


async def test_a_million_unknown_fields_are_not_named_one_by_one(channel: grpc.aio.Channel):
    call: Any = channel.unary_unary("/dropnorm.v1.TrainingService/GetTrainingJob")
    request = b"".join(encoder.TagBytes(number, 0) + b"\x00" for number in range(1000, 200_000))
    error = await failure(call(request))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    [violation] = violations(status_of(error))
    assert violation.message.startswith(f"{len(request):,} bytes of it are of fields that are not")


async def test_a_request_id_used_for_something_else_is_blamed(stub: Any):
    await stub.CreateTrainingJob(creation(training_job_id="first", request_id="r"))
    for validate_only in (False, True):
        other = creation(training_job_id="other", request_id="r", validate_only=validate_only)
        assert await refused(stub.CreateTrainingJob(other)) == ["request_id"]


async def test_a_request_that_is_no_message_is_told_in_a_plain_sentence(
    channel: grpc.aio.Channel,
):
    call: Any = channel.unary_unary("/dropnorm.v1.TrainingService/GetTrainingJob")
    error = await failure(call(b"\xff"))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.details() or "").startswith("the request is not a valid protobuf message")


async def test_a_page_ends_by_its_bytes(stub: Any, bench: Bench):
    long = DATASET.model_copy(
        update={"class_names": ("x" * 2**20,)}
    )  # as its names may be together
    for _ in range(5):
        await bench.create()
        (await bench.launched()).succeed(EVALUATION.model_copy(update={"dataset": long}))
    jobs = [job.name for job in (await bench.jobs.list(LOCAL, JobQuery())).jobs]
    for name in jobs:
        await bench.reached(await bench.service.get(name.rpartition("/")[2]), State.SUCCEEDED)

    pages = [reply async for reply in pages_of(stub, view=pb.TRAINING_JOB_VIEW_FULL)]
    assert [job.name for page in pages for job in page.training_jobs] == jobs
    assert [len(page.training_jobs) for page in pages] == [1, 1, 1, 1, 1]
    assert all(job.evaluation.dataset.class_names for page in pages for job in page.training_jobs)
    [whole] = [reply async for reply in pages_of(stub)]
    assert len(whole.training_jobs) == 5


async def pages_of(stub: Any, **asked: Any) -> AsyncIterator[pb.ListTrainingJobsResponse]:
    token = None
    while token != "":
        request = pb.ListTrainingJobsRequest(page_size=1000, page_token=token or "", **asked)
        reply = await stub.ListTrainingJobs(request)
        yield reply
        token = reply.next_page_token


async def test_a_job_deleted_while_a_page_is_made_is_left_out(
    stub: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    stays, goes = await bench.create(), await bench.create()
    read = bench.jobs.list

    async def read_and_delete(caller: Caller, query: JobQuery) -> JobPage:
        page = await read(caller, query)
        await bench.jobs.delete(caller, goes.id, force=True)
        return page

    monkeypatch.setattr(bench.jobs, "list", read_and_delete)
    request = pb.ListTrainingJobsRequest(view=pb.TRAINING_JOB_VIEW_FULL)
    reply = await stub.ListTrainingJobs(request)

    assert [job.name for job in reply.training_jobs] == [stays.name]
