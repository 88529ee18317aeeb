"""From a request for a job to a job on disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial

from dropnorm.results import TrainingJob
from dropnorm.spec import Submission
from dropnorm_service.jobs.admission import Admission, digest_of, is_request_id
from dropnorm_service.jobs.callers import Caller
from dropnorm_service.jobs.errors import JobAlreadyExists, LimitReached, RequestIdReused
from dropnorm_service.jobs.journal import Journal
from dropnorm_service.jobs.limits import JobPlaces
from dropnorm_service.jobs.owners import sees
from dropnorm_service.jobs.ports import JobStore, RequestAccepted
from dropnorm_service.jobs.scheduler import Scheduler


class Creation:
    """Accepts jobs.

    Args:
        store: where jobs and request ids are.
        journal: writes them.
        scheduler: knows how many wait.
        admission: what a request must pass.
        places: how many may wait.
        data_held: within it the data set of a name stays what it is.
        require_room: raises LimitReached where nothing more can be stored.
    """

    def __init__(
        self,
        store: JobStore,
        journal: Journal,
        scheduler: Scheduler,
        admission: Admission,
        places: JobPlaces,
        *,
        data_held: Callable[[str], AbstractAsyncContextManager[None]],
        require_room: Callable[[], None],
    ) -> None:
        self._store = store
        self._journal = journal
        self._scheduler = scheduler
        self._admission = admission
        self._places = places
        self._data_held = data_held
        self._require_room = require_room

    async def create(
        self,
        caller: Caller,
        submission: Submission,
        job_id: str | None,
        request_id: str | None,
        *,
        validate_only: bool,
    ) -> TrainingJob:
        """See `JobService.create`."""
        try:
            # First of all: what was accepted may be repeated, whatever has changed since.
            await self._refuse_repeat(caller, request_id)
            async with AsyncExitStack() as held:
                await held.enter_async_context(self._data_held(submission.spec.data.dataset))
                try:
                    with self._places.creating(caller):
                        admitted = self._admission.admit(caller, submission, job_id, request_id)
                        job, request = await admitted
                    self._take_place(caller, held)
                except LimitReached:  # a repeat needs no place, and may have been accepted just now
                    await self._refuse_repeat(caller, request_id)
                    raise
                if validate_only:
                    return await self._rehearse(job)
                return await self._journal.create(job, request, within=held.pop_all())
        except RequestAccepted as accepted:
            if accepted.record.digest != digest_of(submission, job_id):
                raise RequestIdReused(
                    accepted.record.request_id, accepted.record.job_id
                ) from accepted
            return await self._journal.get(accepted.record.job_id, partial(sees, caller))

    def _take_place(self, caller: Caller, held: AsyncExitStack) -> None:
        self._require_room()
        waiting = self._scheduler.waiting(caller.user)
        held.enter_context(self._places.queueing(caller, waiting, self._scheduler.all_waiting))

    async def _rehearse(self, job: TrainingJob) -> TrainingJob:
        """Refuse the job if its id is taken, and write nothing."""
        if await self._store.get(job.id, deleted=True) is not None:
            raise JobAlreadyExists(job.id)
        return job

    async def _refuse_repeat(self, caller: Caller, request_id: str | None) -> None:
        if request_id is not None and is_request_id(request_id):
            record = await self._store.request(caller.user, request_id)
            if record is not None:
                raise RequestAccepted(record)
