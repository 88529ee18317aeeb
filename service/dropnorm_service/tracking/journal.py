"""The service around a consumer: its journal, and what is put into it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dropnorm.results import Event, Tracked
from dropnorm_service.jobs.ports import JobStore
from dropnorm_service.tracking.messages import Batch, JobContext, Rewriting

Delivering = Callable[[str, Sequence[Event]], contextlib.AbstractContextManager[None]]
"""A mirror and events -> what surrounds their delivery."""


def untraced(mirror: str, events: Sequence[Event]) -> contextlib.AbstractContextManager[None]:
    """Surrounds a delivery with nothing."""
    return contextlib.nullcontext()


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What a consumer needs of the service around it."""

    store: JobStore
    folder_of: Callable[[str], Path]
    """A job's own folder, by its id."""
    record_tracking: Callable[[str, Tracked], Awaitable[None]]
    """Puts a run's ids on a job and into its journal; without effect for a job that is gone."""
    delivering: Delivering
    """Entered while events are written."""

    async def batch(
        self, events: Sequence[Event], *, fatal: bool, rewriting: Rewriting | None
    ) -> Batch:
        """Events with what a mirror process needs to know of their jobs, as they are now.

        Args:
            events: of any jobs.
            fatal: processes have died of them.
            rewriting: the part that they are of the whole journal of their job; None: they are news.
        """
        jobs = {}
        for name in dict.fromkeys(event.training_job for event in events):
            job = await self.store.get(name.rpartition("/")[2], deleted=True)
            if job is not None:
                folder = self.folder_of(job.id)
                jobs[name] = JobContext(job=job, folder=folder, rewriting=rewriting)
        return Batch(events=tuple(events), jobs=jobs, fatal=fatal)
