"""Resource names, as callers write them."""

from __future__ import annotations

import re

from dropnorm_service.jobs.errors import InvalidRequest

_ID = r"([a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)"
_JOB = re.compile(f"trainingJobs/{_ID}")
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
