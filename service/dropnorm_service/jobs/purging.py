"""What becomes of deleted jobs: once nobody needs them any more, their files and rows go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from dropnorm.results import Event
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.journal import Journal
from dropnorm_service.jobs.live import LiveJob
from dropnorm_service.jobs.ports import JobStore

_INTERVAL = 5.0

log = logging.getLogger(__name__)


class Purger:
    """Removes deleted jobs that have ended and whose journals everyone has read.

    Args:
        journal: the jobs in memory.
        store: the jobs on disk.
        folder: where each job has a folder of its own.
        read_up_to: global position up to which the journals' readers have come; None: nobody reads.
    """

    def __init__(
        self,
        journal: Journal,
        store: JobStore,
        *,
        folder: Path,
        read_up_to: Callable[[], int | None],
    ) -> None:
        self._journal = journal
        self._store = store
        self._folder = folder
        self._read_up_to = read_up_to
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        journal.listen(self._notice)

    def start(self) -> None:
        """Begin with what was deleted before."""
        self._task = asyncio.create_task(self._run(), name="purger")

    async def stop(self) -> None:
        """Stop; what is left goes after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _notice(self, live: LiveJob, events: Sequence[Event]) -> None:
        if live.deleted:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            all_gone = await self._purge()
            # Readers do not tell when they have come further, so they are asked again.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if all_gone else _INTERVAL):
                    await self._wake.wait()
            self._wake.clear()

    async def _purge(self) -> bool:
        """Purge what can be purged; whether nothing is left."""
        try:
            deleted = await self._store.deleted()
            limit = self._read_up_to()
            ready = [
                job.job_id
                for job in deleted
                if job.state.terminal and (limit is None or job.position <= limit)
            ]
            if ready:
                # Files first: should the service die in between, the rows still tell what to do.
                await asyncio.to_thread(self._remove_folders, ready)
                # Out of memory before the ids are free, or a new job would find its predecessor there.
                self._journal.forget(ready)
                await self._store.purge(ready)
        except (OSError, StoreUnavailable) as error:
            log.error("cannot purge deleted jobs yet: %s", error)
            return False
        return len(ready) == len(deleted)

    def _remove_folders(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            folder = self._folder / job_id
            if folder.exists():
                shutil.rmtree(folder)
