"""What nobody needs any more goes: checkpoints of jobs that have succeeded, files and rows of deleted jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from dropnorm.results import Event, State, StateChanged
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.journal import Journal
from dropnorm_service.jobs.live import LiveJob
from dropnorm_service.jobs.ports import CHECKPOINTS, JobStore
from dropnorm_service.unbroken import to_the_end

_INTERVAL = 5.0

Removing = Callable[[], AbstractContextManager[bool]]
"""Makes a block within which files may be removed, or (False) not now, since a backup copies them."""

log = logging.getLogger(__name__)


class Purger:
    """Removes deleted jobs that have ended and whose journals everyone has read, and checkpoints after success.

    Checkpoints go only when the success is on disk: until then another attempt may have to go on from
    them. A failed or cancelled job keeps its last ones, which are all there is of its work.

    Args:
        journal: the jobs in memory.
        store: the jobs on disk.
        folder: where each job has a folder of its own.
        read_up_to: global position up to which the journals' readers have come; None: nobody reads.
        removing: within it files may be removed, or (False) not now.
        is_busy_with: whether an attempt of a job has not quite ended; its id is not to be free yet.
    """

    def __init__(
        self,
        journal: Journal,
        store: JobStore,
        *,
        folder: Path,
        read_up_to: Callable[[], int | None],
        removing: Removing,
        is_busy_with: Callable[[str], bool],
    ) -> None:
        self._journal = journal
        self._store = store
        self._folder = folder
        self._read_up_to = read_up_to
        self._removing = removing
        self._is_busy_with = is_busy_with
        self._done: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        journal.listen(self._notice)

    async def sweep(self) -> None:
        """Remove the folders of jobs that the store does not know.

        A service leaves none: a folder is made after its job's row, and goes before it. They are there when the
        store is older than the folders, after a restore.
        """
        folders = await asyncio.to_thread(self._job_folders)
        known = await self._store.known(sorted(folders))
        if orphans := folders - known:
            log.warning("removing folders of %d jobs that are not in the store", len(orphans))
            for job_id in sorted(orphans):
                await _removed(self._folder / job_id)

    def start(self) -> None:
        """Begin with what was deleted, or had succeeded, before."""
        self._task = asyncio.create_task(self._run(), name="purger")

    async def stop(self) -> None:
        """Stop; what is left goes after the next start. The folder that is being removed is removed to its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _notice(self, live: LiveJob, events: Sequence[Event]) -> None:
        if live.job.state is State.SUCCEEDED and any(
            isinstance(each.payload, StateChanged) for each in events
        ):
            self._done.add(live.job.id)
            self._wake.set()
        if live.deleted:
            self._wake.set()

    async def _run(self) -> None:
        begun = False
        while True:
            try:
                begun = begun or await self._find_done()
                with self._removing() as allowed:
                    all_gone = allowed and await self._remove() and begun
            except OSError as error:
                log.error("nothing can be removed yet: %s", error)
                all_gone = False
            # Readers do not tell when they have come further, so they are asked again.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if all_gone else _INTERVAL):
                    await self._wake.wait()
            self._wake.clear()

    async def _remove(self) -> bool:
        """Remove what can be removed; whether nothing is left."""
        await self._remove_checkpoints()
        return await self._purge() and not self._done

    async def _find_done(self) -> bool:
        """Find the checkpoints that the service before this one no longer came to remove; whether that is known."""
        found = await asyncio.to_thread(self._with_checkpoints)
        try:
            for job_id in found:
                job = await self._store.get(job_id, deleted=True)
                if job is None or job.state is State.SUCCEEDED:
                    self._done.add(job_id)
        except StoreUnavailable as error:
            log.error("old checkpoints cannot be looked for yet: %s", error)
            return False
        return True

    async def _remove_checkpoints(self) -> None:
        for job_id in tuple(self._done):
            try:
                await _removed(self._folder / job_id / CHECKPOINTS)
            except OSError as error:
                log.error("cannot remove the checkpoints of %s yet: %s", job_id, error)
            else:
                self._done.discard(job_id)

    async def _purge(self) -> bool:
        """Purge what can be purged; whether nothing is left."""
        try:
            deleted = await self._store.deleted()
            limit = self._read_up_to()
            ready = [
                job.job_id
                for job in deleted
                if job.state.terminal
                and (limit is None or job.position <= limit)
                and not self._is_busy_with(job.job_id)
            ]
            if ready:
                # Files first: should the service die in between, the rows still tell what to do.
                for job_id in ready:
                    await _removed(self._folder / job_id)
                # Out of memory before the ids are free, or a new job would find its predecessor there.
                self._journal.forget(ready)
                self._done.difference_update(ready)
                await self._store.purge(ready)
        except (OSError, StoreUnavailable) as error:
            log.error("cannot purge deleted jobs yet: %s", error)
            return False
        return len(ready) == len(deleted)

    def _job_folders(self) -> set[str]:
        return {path.name for path in self._folder.iterdir()} if self._folder.exists() else set()

    def _with_checkpoints(self) -> set[str]:
        return {path.parent.name for path in self._folder.glob(f"*/{CHECKPOINTS}")}


async def _removed(folder: Path) -> None:
    """Remove a folder beside the loop; it is not left by halves to a thread that nobody waits for."""
    await to_the_end(asyncio.to_thread(_remove, folder))


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
