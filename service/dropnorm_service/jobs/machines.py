"""The machines that run jobs, as a caller sees them."""

from __future__ import annotations

import socket
from functools import partial

import dropnorm
from dropnorm.results import Slot, Worker
from dropnorm_service.jobs.callers import Caller, Role
from dropnorm_service.jobs.errors import JobNotFound
from dropnorm_service.jobs.journal import Journal
from dropnorm_service.jobs.owners import sees
from dropnorm_service.jobs.ports import Executor

_SOMEBODYS_JOB = "trainingJobs/-"


async def local(executor: Executor, journal: Journal, caller: Caller) -> Worker:
    """This machine; jobs in its slots that the caller does not see are not named."""
    slots = [await _shown(slot, journal, caller) for slot in executor.slots()]
    return Worker(
        name="workers/local",
        host=socket.gethostname(),
        slots=tuple(slots),
        version=dropnorm.__version__,
    )


async def _shown(slot: Slot, journal: Journal, caller: Caller) -> Slot:
    if slot.training_job and caller.role is not Role.ADMIN:
        try:
            await journal.get(slot.training_job.rpartition("/")[2], partial(sees, caller))
        except JobNotFound:
            return slot.model_copy(update={"training_job": _SOMEBODYS_JOB})
    return slot
