"""Resource names, as callers write them."""

from __future__ import annotations

import re

from dropnorm_service.jobs.errors import InvalidRequest
from dropnorm_service.jobs.registered import Registered

_ID = r"([a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)"
_JOB = re.compile(f"trainingJobs/{_ID}")
_MODEL = re.compile(f"models/{_ID}")
_VERSION = re.compile(f"models/{_ID}@(?:([1-9][0-9]{{0,8}})|{_ID})")
_DATASET = re.compile(r"datasets/([a-z][a-z0-9_-]{0,62})")
_EXPORT = re.compile(f"trainingJobs/{_ID}/exports/{_ID}")


def job_id_of(name: str, field: str = "name") -> str:
    """The id of a job named by a field.

    Raises:
        InvalidRequest: it is no job's name.
    """
    match = _JOB.fullmatch(name)
    if match is None:
        raise InvalidRequest.of(field, f"a job's name is trainingJobs/{{id}}, not {name[:80]!r}")
    return match[1]


def export_ids_of(name: str) -> tuple[str, str]:
    """The ids of an export's job and of itself.

    Raises:
        InvalidRequest: it is no export's name.
    """
    match = _EXPORT.fullmatch(name)
    if match is None:
        text = f"an export's name is trainingJobs/{{id}}/exports/{{export}}, not {name[:80]!r}"
        raise InvalidRequest.of("name", text)
    return match[1], match[2]


def dataset_id_of(name: str, field: str = "name") -> str:
    """The id of an uploaded data set.

    Raises:
        InvalidRequest: it is no data set's name.
    """
    match = _DATASET.fullmatch(name)
    if match is None:
        raise InvalidRequest.of(field, f"a data set's name is datasets/{{id}}, not {name[:80]!r}")
    return match[1]


def model_of(name: str, field: str = "name") -> str | Registered:
    """The id of the job, or the registered model, that a model's name means.

    Raises:
        InvalidRequest: it is no model's name.
    """
    if match := _JOB.fullmatch(name):
        return match[1]
    return version_of(name, field)


def registered_id_of(name: str, field: str = "name") -> str:
    """The id of a registered model, of which no version is named.

    Raises:
        InvalidRequest: it is no registered model's name, or a version's.
    """
    asked = version_of(name, field)
    if asked.version or asked.alias:
        text = "a registered model's name is models/{id}, without a version"
        raise InvalidRequest.of(field, text)
    return asked.model_id


def version_of(name: str, field: str = "name") -> Registered:
    """A version of a registered model by its number or an alias, or the newest.

    Raises:
        InvalidRequest: it is no registered model's name.
    """
    if match := _MODEL.fullmatch(name):
        return Registered(match[1])
    if match := _VERSION.fullmatch(name):
        return Registered(match[1], int(match[2]) if match[2] else None, match[3] or "")
    text = (
        "a model's name is trainingJobs/{id}, models/{id} or models/{id}@{version}, with a number or an alias, "
        f"not {name[:80]!r}"
    )
    raise InvalidRequest.of(field, text)
