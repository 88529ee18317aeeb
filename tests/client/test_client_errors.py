"""The exception tree, and what a failed call becomes in it."""

import inspect
import pickle

import grpc
import pytest
from tests.client import samples
from tests.client.scripted import fault, rejection

import dropnorm as dn
from dropnorm import errors
from dropnorm_service.datasets.errors import DATASET_ERRORS
from dropnorm_service.jobs.errors import SERVICE_ERRORS

Code = grpc.StatusCode
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, dn.DropnormError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_exception_is_public_and_in_the_tree_of_the_docstring(kind):
    assert getattr(dn, kind.__name__) is kind
    assert kind.__name__ in errors.__doc__
    assert kind.__doc__


def test_the_tree_names_nothing_else():
    drawn = {line.split()[1] for line in errors.__doc__.splitlines() if line.startswith(("├", "└"))}
    assert drawn | {"DropnormError"} == {kind.__name__ for kind in KINDS}


def test_every_reason_of_the_service_has_a_class():
    assert set(errors.BY_REASON) == {kind.reason for kind in (*SERVICE_ERRORS, *DATASET_ERRORS)} | {
        "INTERNAL"
    }


@pytest.mark.parametrize("reason", sorted(errors.BY_REASON))
async def test_a_reason_becomes_its_class(kind, client, service, reason):
    service.faults["PlanTrainingJob"] = [rejection(Code.INTERNAL, reason, "it went wrong")] * 5

    with pytest.raises(dn.DropnormError) as caught:
        await kind.do(client.plan, samples.SPEC)

    assert type(caught.value) is errors.BY_REASON[reason]
    assert str(caught.value) == "It went wrong."
    assert caught.value.reason == reason
    assert caught.value.request_id == "request-1"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Code.INVALID_ARGUMENT, dn.InvalidRequest),
        (Code.OUT_OF_RANGE, dn.InvalidRequest),
        (Code.NOT_FOUND, dn.NotFound),
        (Code.ALREADY_EXISTS, dn.AlreadyExists),
        (Code.FAILED_PRECONDITION, dn.WrongState),
        (Code.ABORTED, dn.WrongState),
        (Code.RESOURCE_EXHAUSTED, dn.ResourceExhausted),
        (Code.UNAUTHENTICATED, dn.Unauthenticated),
        (Code.PERMISSION_DENIED, dn.PermissionDenied),
        (Code.UNIMPLEMENTED, dn.Unimplemented),
        (Code.UNAVAILABLE, dn.Unavailable),
        (Code.CANCELLED, dn.Unavailable),
        (Code.DEADLINE_EXCEEDED, dn.DeadlineExceeded),
        (Code.INTERNAL, dn.Internal),
        (Code.UNKNOWN, dn.Internal),
        (Code.DATA_LOSS, dn.Internal),
    ],
)
async def test_a_status_without_details_becomes_the_class_of_its_code(
    kind, client, service, code, expected
):
    service.faults["PlanTrainingJob"] = [fault(code)] * 5

    with pytest.raises(dn.DropnormError) as caught:
        await kind.do(client.plan, samples.SPEC)

    assert type(caught.value) is expected
    assert service.address in str(caught.value)
    assert caught.value.reason == ""


async def test_a_name_at_the_start_of_a_message_stays_as_it_is(kind, client, service):
    message = "trainingJobs/a is RUNNING and cannot be resumed"
    service.faults["PlanTrainingJob"] = [
        rejection(Code.FAILED_PRECONDITION, "WRONG_STATE", message)
    ]

    with pytest.raises(dn.WrongState) as caught:
        await kind.do(client.plan, samples.SPEC)
    assert str(caught.value) == f"{message}."


async def test_a_reason_from_a_newer_service_goes_by_its_code(kind, client, service):
    service.faults["PlanTrainingJob"] = [
        rejection(Code.RESOURCE_EXHAUSTED, "QUOTA_REACHED", "Too many jobs.", limit="5")
    ]

    with pytest.raises(dn.ResourceExhausted, match=r"Too many jobs\.") as caught:
        await kind.do(client.plan, samples.SPEC)
    assert caught.value.reason == "QUOTA_REACHED"
    assert caught.value.metadata == {"limit": "5"}


async def test_every_wrong_field_is_named(kind, client, service):
    problems = [dn.Problem(f"spec.field{number}", f"is wrong {number}") for number in range(12)]
    service.faults["PlanTrainingJob"] = [
        rejection(Code.INVALID_ARGUMENT, "INVALID_REQUEST", "cut off …", problems)
    ]

    with pytest.raises(dn.InvalidRequest) as caught:
        await kind.do(client.plan, samples.SPEC)
    assert caught.value.problems == tuple(problems)
    assert all(f"{field}: {text}" in str(caught.value) for field, text in problems)


async def test_details_that_are_no_status_are_ignored(kind, client, service):
    service.faults["PlanTrainingJob"] = [
        lambda context: context.abort(
            Code.NOT_FOUND, "what a proxy says", (("grpc-status-details-bin", b"\xff\xff\xff"),)
        )
    ]

    with pytest.raises(dn.NotFound, match="hat a proxy says"):
        await kind.do(client.plan, samples.SPEC)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (dn.InvalidRequest, ValueError),
        (dn.NotFound, LookupError),
        (dn.Unavailable, ConnectionError),
        (dn.DeadlineExceeded, TimeoutError),
        (dn.ResultTimeout, TimeoutError),
    ],
)
def test_python_code_that_knows_nothing_of_dropnorm_can_catch_them(kind, builtin):
    assert issubclass(kind, builtin)


@pytest.mark.parametrize(
    "error",
    [
        dn.InvalidRequest(problems=[dn.Problem("a.b", "is wrong")], reason="INVALID_REQUEST"),
        dn.NotFound("There is none.", reason="JOB_NOT_FOUND", request_id="7"),
        dn.Unavailable("Nobody there."),
        dn.JobFailed("It failed.", job="trainingJobs/a", error=samples.FAILURE),
        dn.JobCancelled("It was cancelled.", job="trainingJobs/a"),
    ],
)
def test_exceptions_travel_between_processes(error):
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
