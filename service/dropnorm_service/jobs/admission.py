"""What a job must pass before it is accepted."""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from collections.abc import Callable

from pydantic import TypeAdapter, ValidationError

from dropnorm.results import Plan, State, TrainingJob
from dropnorm.spec import InvalidSpecError, Problem, Submission, TrainingSpec
from dropnorm.spec.submission import JobId
from dropnorm_service.jobs.callers import Caller
from dropnorm_service.jobs.errors import CannotFit, InvalidRequest
from dropnorm_service.jobs.ports import Clock, Executor, Planner, RequestRecord
from dropnorm_service.jobs.wrong_fields import WrongFields

_JOB_ID: TypeAdapter[str] = TypeAdapter(JobId)
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,128}")


class Admission:
    """Checks requests for jobs and turns them into jobs to be.

    Args:
        planner: knows what a spec comes to.
        executor: knows what can run here.
        clock: the time.
        data_hidden: whether there is an uploaded data set of a name, and a caller may not see it.
        max_job_seconds: seconds that a job may train; None: any time.
        retention: seconds for which a job is kept after its end unless it says so itself; None: for ever.
    """

    def __init__(
        self,
        planner: Planner,
        executor: Executor,
        clock: Clock,
        data_hidden: Callable[[Caller, str], bool],
        max_job_seconds: float | None = None,
        retention: int | None = None,
    ) -> None:
        self._planner = planner
        self._data_hidden = data_hidden
        self._executor = executor
        self._clock = clock
        self._max_job_seconds = max_job_seconds or math.inf
        self._retention = retention

    async def admit(
        self, caller: Caller, submission: Submission, job_id: str | None, request_id: str | None
    ) -> tuple[TrainingJob, RequestRecord | None]:
        """The caller's job as it will be written first, and the record of its request_id.

        Raises:
            InvalidRequest: the ids are malformed, or the spec does not fit together or its data.
            CannotFit: it asks for more than the service has.
            PlannerUnavailable: the spec could not be checked in time.
        """
        wrong = WrongFields()
        with wrong:
            check_ids(job_id, request_id)
        with wrong:
            plan = await self.plan(caller, submission.spec, "training_job.spec")
            obstacle = self._executor.obstacle(plan.spec)
            if obstacle is not None:
                raise CannotFit.of("training_job.spec.compute.gpus", obstacle)
        with wrong:
            self._check_time(submission.spec)
        wrong.settle()
        job = self._draft(caller, submission, plan, job_id)
        if request_id is None:
            return job, None
        digest = digest_of(submission, job_id)
        return job, RequestRecord(
            request_id=request_id, digest=digest, job_id=job.id, owner=caller.user
        )

    async def plan(self, caller: Caller, spec: TrainingSpec, field: str) -> Plan:
        """What a spec comes to.

        Args:
            caller: to whom a data set that he may not see is none.
            spec: what would be trained.
            field: where the spec stands in the request.

        Raises:
            InvalidRequest: it does not fit together or does not fit its data.
            PlannerUnavailable: there was no answer in time.
        """
        hidden = self._data_hidden(caller, spec.data.dataset)
        outcome: Plan | InvalidSpecError
        try:
            outcome = await self._planner.plan(spec, uploads=not hidden, user=caller.user)
        except InvalidSpecError as error:
            outcome = error
        if not hidden and self._data_hidden(caller, spec.data.dataset):
            # It has come to be meanwhile, and what the planner saw in it is not the caller's to know.
            return await self.plan(caller, spec, field)
        if isinstance(outcome, InvalidSpecError):
            raise InvalidRequest.from_spec(outcome, field) from outcome
        return outcome

    def _check_time(self, spec: TrainingSpec) -> None:
        asked, most = spec.compute.time_limit, self._max_job_seconds
        if asked is not None and asked > most:
            text = f"a job of this service may train for {most:g} seconds at most; ask for no more, or for no limit"
            raise InvalidRequest.of("training_job.spec.compute.time_limit", text)

    def _draft(
        self, caller: Caller, submission: Submission, plan: Plan, job_id: str | None
    ) -> TrainingJob:
        now = self._clock()
        # The date keeps neighbours in time neighbours in the index.
        job_id = job_id or f"job-{now:%Y%m%d}-{secrets.token_hex(6)}"
        return TrainingJob(
            name=f"trainingJobs/{job_id}",
            display_name=submission.display_name or job_id,
            experiment=submission.experiment,
            labels=submission.labels,
            priority=submission.priority,
            spec=plan.spec,
            spec_digest=plan.spec_digest,
            state=State.QUEUED,
            create_time=now,
            update_time=now,
            owner=caller.user,
            shared=submission.shared,
            ttl=submission.ttl or self._retention,
        )


def check_ids(job_id: str | None, request_id: str | None) -> None:
    """Check the ids that a caller chose; None: none.

    Raises:
        InvalidRequest: an id is malformed.
    """
    problems = []
    if job_id is not None:
        try:
            _JOB_ID.validate_python(job_id)
        except ValidationError:
            text = (
                "an id is [a-z]([a-z0-9-]{0,61}[a-z0-9])?; leave it out and the service makes one"
            )
            problems.append(Problem("training_job_id", text))
    if request_id is not None and not is_request_id(request_id):
        text = "a request_id is 1 to 128 printable ASCII characters; a UUID4 is a good choice"
        problems.append(Problem("request_id", text))
    if problems:
        raise InvalidRequest(problems)


def is_request_id(text: str) -> bool:
    """Whether a text may be a request_id."""
    return _REQUEST_ID.fullmatch(text) is not None


def digest_of(submission: Submission, job_id: str | None) -> str:
    """SHA-256 (hex) of what a request asks for: a repeat has the same."""
    said = submission.model_dump(mode="json")
    for name in ("shared", "ttl"):
        if not said[name]:
            del said[name]  # a request from before there was such a field may be repeated now
    content = {"training_job": said, "training_job_id": job_id}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
