"""Deletes jobs whose time has come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime

from dropnorm.results import Event, TrainingJob
from dropnorm_service import audit
from dropnorm_service.jobs.errors import JobNotFound, StoreUnavailable
from dropnorm_service.jobs.journal import Entry, Journal
from dropnorm_service.jobs.live import LiveJob
from dropnorm_service.jobs.ports import Clock, JobStore

_PAGE = 500
_RETRY = 5.0
_LONGEST = 3600.0  # seconds between two looks; clocks are set

log = logging.getLogger(__name__)


class Expiry:
    """Deletes jobs as DeleteTrainingJob does, once their expire_time has come.

    Args:
        journal: the jobs.
        store: knows which come next.
        clock: the time.
    """

    def __init__(self, journal: Journal, store: JobStore, clock: Clock) -> None:
        self._journal = journal
        self._store = store
        self._clock = clock
        self._deleting: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        journal.listen(self._notice)

    def start(self) -> None:
        """Begin with those whose time came while no service ran."""
        self._task = asyncio.create_task(self._run(), name="expiry")

    async def stop(self) -> None:
        """Stop; the next service goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _notice(self, live: LiveJob, events: Sequence[Event]) -> None:
        if live.job.expire_time is not None:
            self._wake.set()
        if (
            live.deleted and live.job.id in self._deleting
        ):  # also when `stop` no longer waits for it
            self._deleting.discard(live.job.id)
            audit.record_own("DeleteTrainingJob", live.job.name, "its time has come")
            log.info("deleted, since its time has come", extra={"job": live.job.id})

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self._delete_due()
            except StoreUnavailable as error:
                log.error("jobs whose time has come are deleted later: %s", error)
                pause = _RETRY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _delete_due(self) -> float:
        """Delete what is due; seconds until something may be."""
        while True:
            coming = await self._store.expiring(_PAGE)
            now = self._clock()
            due = [job_id for job_id, time in coming if time <= now]
            for job_id in due:
                await self._delete(job_id, now)
            if len(due) < len(coming):
                wait = (coming[len(due)][1] - now).total_seconds()
                return min(wait, _LONGEST)
            if len(due) < _PAGE:
                return _LONGEST

    async def _delete(self, job_id: str, now: datetime) -> None:
        def decide(job: TrainingJob) -> Sequence[Entry]:
            if job.expire_time is None or job.expire_time > now:
                raise JobNotFound(job_id)  # another one has its id
            return []

        self._deleting.add(job_id)
        try:
            async with self._journal.holding(job_id) as live:
                await self._journal.change(live, decide, delete=True)
        except JobNotFound:
            self._deleting.discard(job_id)
        except StoreUnavailable:
            self._deleting.discard(job_id)
            raise
