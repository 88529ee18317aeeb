"""What callers hand to either client, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from dropnorm.errors import InvalidRequest
from dropnorm.spec import Problem, TrainingSpec

Request = TypeVar("Request", bound=Message)

_NO_LIMIT = 1e9
"""Seconds, some 30 years: a longer time is none that anyone waits for, and overflows gRPC's clocks."""

_EXPECTED: Mapping[int, str] = {
    FieldDescriptor.CPPTYPE_STRING: "text of valid Unicode",
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
    FieldDescriptor.CPPTYPE_INT32: "a whole number from -2^31 to 2^31 - 1",
    FieldDescriptor.CPPTYPE_INT64: "a whole number from -2^63 to 2^63 - 1",
}


def request(kind: type[Request], **values: Any) -> Request:
    """A request of these fields, where None is absent.

    Raises:
        InvalidRequest: names every field that cannot carry its value.
    """
    problems = unfit(kind, **values)
    if problems:
        raise InvalidRequest(problems=problems)
    return kind(**values)


def unfit(kind: type[Message], **values: Any) -> list[Problem]:
    """The fields of a request that cannot carry their values."""
    problems = []
    for name, value in values.items():
        try:
            kind(**{name: value})
        except (TypeError, ValueError):
            field = kind.DESCRIPTOR.fields_by_name[name]
            problems.append(_wrong(name, _EXPECTED[field.cpp_type], value))
    return problems


def spec_problems(spec: object) -> list[Problem]:
    """What is wrong with the spec of a call, if it is none."""
    if isinstance(spec, TrainingSpec):
        return []
    return [Problem("spec", f"give a dropnorm.TrainingSpec, not {type(spec).__name__}")]


def job_name(job: str) -> str:
    """The resource name of a job given by name or id.

    Raises:
        InvalidRequest: it is no text.
    """
    if not isinstance(job, str):
        raise InvalidRequest(problems=[_wrong("name", "the id or the name of a job", job)])
    return job if job.startswith("trainingJobs/") else f"trainingJobs/{job}"


def model_name(model: str) -> str:
    """The resource name of a model given by it or, if it is a registered one, by what follows `models/`.

    Raises:
        InvalidRequest: it is no text.
    """
    if not isinstance(model, str):
        raise InvalidRequest(problems=[_wrong("name", "the name of a model", model)])
    return model if "/" in model else f"models/{model}"


def seconds(name: str, given: float | None) -> float | None:
    """A time limit; None: there is none, as an infinite one says too.

    Args:
        name: what the caller knows it by.
        given: seconds, 0 or more.

    Raises:
        InvalidRequest: it is negative, or no number.
    """
    if given is None:
        return None
    try:
        right = given >= 0  # NaN is not
    except TypeError:
        right = False
    if not right:
        raise InvalidRequest(problems=[_wrong(name, "a number of seconds, 0 or more", given)])
    return None if given > _NO_LIMIT else float(given)


def _wrong(field: str, expected: str, given: object) -> Problem:
    shown = repr(given)
    return Problem(field, f"give {expected}, not {shown if len(shown) <= 60 else shown[:59] + '…'}")
