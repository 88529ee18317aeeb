"""What a caller is told when a call fails, over a real connection."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from tests.service.api.details import details, status_of, violations

from dropnorm.results import State
from dropnorm.spec import InvalidSpecError, Problem
from dropnorm.v1.training_service_pb2 import GetTrainingJobRequest
from dropnorm_service.api.errors import STATUS, to_status
from dropnorm_service.api.interceptors import EdgeInterceptor
from dropnorm_service.datasets.errors import DATASET_ERRORS
from dropnorm_service.jobs import errors

METHOD = "/dropnorm.v1.TrainingService/GetTrainingJob"
MAX_TRAILERS = 8192


def error_info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    [info] = details(status, error_details_pb2.ErrorInfo)
    return info


async def failure(
    error: Exception, metadata: tuple[tuple[str, str], ...] = ()
) -> grpc.aio.AioRpcError:
    """What a caller sees when a method raises an error."""

    async def behavior(request: GetTrainingJobRequest, context: object) -> bytes:
        raise error

    server = grpc.aio.server(interceptors=[EdgeInterceptor()])
    service, _, method = METHOD[1:].partition("/")
    handler: Any = grpc.unary_unary_rpc_method_handler(behavior, GetTrainingJobRequest.FromString)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(METHOD)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"", metadata=metadata, timeout=30)
    finally:
        await server.stop(None)
    return raised.value


def size_of_trailers(error: grpc.aio.AioRpcError) -> float:
    """At most so many bytes on the wire: binary values as base64, the message percent-encoded."""
    values = sum(len(key) + len(value) * 4 / 3 for key, value in error.trailing_metadata())
    return values + 3 * len((error.details() or "").encode())


def test_every_error_has_a_status():
    assert set(STATUS) == {*errors.SERVICE_ERRORS, *DATASET_ERRORS}


@pytest.mark.parametrize(
    ("error", "code", "metadata"),
    [
        (
            errors.JobNotFound("gone"),
            grpc.StatusCode.NOT_FOUND,
            {"training_job": "trainingJobs/gone"},
        ),
        (
            errors.WrongState("trainingJobs/done", State.FAILED, "It has ended."),
            grpc.StatusCode.FAILED_PRECONDITION,
            {"training_job": "trainingJobs/done", "state": "FAILED"},
        ),
        (errors.ShuttingDown(), grpc.StatusCode.UNAVAILABLE, {}),
    ],
)
async def test_an_error_arrives_with_its_reason_and_values(
    error: errors.ServiceError, code: grpc.StatusCode, metadata: dict[str, str]
):
    seen = await failure(error)
    info = error_info(status_of(seen))

    assert seen.code() is code
    assert seen.details() == error.message
    assert (info.reason, info.domain) == (error.reason, "dropnorm.dev")
    assert info.metadata == metadata


async def test_a_job_that_is_not_there_is_named_as_a_resource():
    status = status_of(await failure(errors.JobNotFound("gone")))
    [resource] = details(status, error_details_pb2.ResourceInfo)

    assert resource.resource_type == "dropnorm.dev/TrainingJob"
    assert resource.resource_name == "trainingJobs/gone"
    assert resource.description == "There is no training job trainingJobs/gone."


async def test_a_wrong_state_is_a_precondition_that_failed():
    error = errors.WrongState("trainingJobs/done", State.FAILED, "It has ended.")
    [found] = details(status_of(await failure(error)), error_details_pb2.PreconditionFailure)
    [violation] = found.violations

    assert (violation.type, violation.subject) == ("STATE", "trainingJobs/done")
    assert violation.description == "It has ended."


async def test_a_store_that_is_away_is_worth_another_try_in_a_while():
    seen = await failure(errors.StoreUnavailable("The database of jobs does not answer."))
    [told] = details(status_of(seen), error_details_pb2.RetryInfo)

    assert seen.code() is grpc.StatusCode.UNAVAILABLE
    assert told.retry_delay.seconds == 5


async def test_a_problem_of_the_request_as_a_whole_is_a_plain_sentence():
    seen = await failure(errors.InvalidRequest.of("", "the request is empty"))

    assert seen.details() == "the request is empty"


async def test_an_unknown_error_tells_nothing_but_where_the_log_has_it(
    caplog: pytest.LogCaptureFixture,
):
    seen = await failure(RuntimeError("/home/secret"), (("x-request-id", "call-7"),))

    assert seen.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in f"{seen.details()} {status_of(seen)}"
    assert "call-7" in (seen.details() or "")
    assert error_info(status_of(seen)).metadata == {"request_id": "call-7"}
    [record] = [each for each in caplog.records if each.message == "unexpected error"]
    assert record.exc_info is not None
    assert "/home/secret" in str(record.exc_info[1])


async def test_a_subclass_that_nobody_listed_is_internal():
    class Unlisted(errors.ServiceError):
        reason = "UNLISTED"

    assert (await failure(Unlisted("secret"))).code() is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("raised", [errors.InvalidRequest, InvalidSpecError])
def test_every_wrong_field_is_named(raised: type[errors.InvalidRequest] | type[InvalidSpecError]):
    problems = [Problem("spec.seed", "must be 0 or more"), Problem("spec.data", "is required")]

    assert violations(to_status(raised(problems), "call")) == problems


async def test_many_wrong_fields_fit_into_the_trailers():
    problems = [Problem(f"spec.field_{number}" * 10, "x" * 5000) for number in range(1000)]
    seen = await failure(errors.InvalidRequest(problems))
    told = violations(status_of(seen))

    assert seen.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert size_of_trailers(seen) < MAX_TRAILERS
    assert told[-1].message.startswith(f"{1000 - len(told) + 1} more fields are wrong")


@pytest.mark.parametrize("letter", ["ä", "字", "\U0001f600"])
async def test_text_of_any_alphabet_fits_too(letter: str):
    seen = await failure(errors.InvalidRequest([Problem(letter * 9000, letter * 9000)] * 50))

    assert seen.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert size_of_trailers(seen) < MAX_TRAILERS
    assert violations(status_of(seen))


@pytest.mark.parametrize(
    ("given", "adopted"), [("call-7_a.B", True), ("a b", False), ("x" * 65, False)]
)
async def test_the_callers_request_id_comes_back_where_it_is_a_plain_token(given, adopted):
    seen = await failure(errors.ShuttingDown(), (("x-request-id", given),))
    returned = dict(seen.trailing_metadata())["x-request-id"]

    assert (returned == given) is adopted
    assert returned


def test_a_password_that_a_driver_tells_goes_no_further():
    error = errors.RegistryUnavailable("cannot reach http://mirror:planted@host: refused")

    assert "planted" not in str(to_status(error, "call"))
    assert "mirror:***@host" in to_status(error, "call").message
