"""Resource names, as callers write them."""

from __future__ import annotations

import re

from dropnorm_service.jobs.errors import InvalidRequest

_JOB = re.compile(r"trainingJobs/([a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)")


def job_id_of(name: str, field: str = "name") -> str:
    """The id of a job named by a field.

    Raises:
        InvalidRequest: it is no job's name.
    """
    match = _JOB.fullmatch(name)
    if match is None:
        raise InvalidRequest.of(field, f"a job's name is trainingJobs/{{id}}, not {name[:80]!r}")
    return match[1]
