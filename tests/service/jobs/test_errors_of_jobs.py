"""The tree of errors and the list that the edge goes by."""

from collections.abc import Iterator

from dropnorm.spec import InvalidSpecError, Problem
from dropnorm_service.datasets.errors import DATASET_ERRORS
from dropnorm_service.jobs import errors


def subclasses(of: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    for each in of.__subclasses__():
        yield each
        yield from subclasses(each)


def test_the_list_of_errors_is_complete():
    assert {*errors.SERVICE_ERRORS, *DATASET_ERRORS} == set(subclasses(errors.ServiceError))


def test_every_error_has_a_reason_of_its_own():
    reasons = [error.reason for error in (*errors.SERVICE_ERRORS, *DATASET_ERRORS)]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.replace("_", "").isupper() for reason in reasons)


def test_problems_of_a_spec_get_their_place_in_the_request():
    wrong = InvalidSpecError([Problem("data.dataset", "unknown"), Problem("", "not a spec")])
    error = errors.InvalidRequest.from_spec(wrong, "training_job.spec")
    assert error.problems == (
        ("training_job.spec.data.dataset", "unknown"),
        ("training_job.spec", "not a spec"),
    )
    assert error.message == (
        "training_job.spec.data.dataset: unknown; training_job.spec: not a spec"
    )
