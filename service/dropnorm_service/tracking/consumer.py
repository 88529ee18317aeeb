"""One consumer of the journal's feed: a durable cursor, and a mirror process that is fed from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dropnorm.results import Event, Tracked
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.ports import JobStore
from dropnorm_service.tracking.config import TrackingConfig
from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.messages import Batch, JobContext, Role, RunMade, Setup
from dropnorm_service.tracking.process import CLOSING_TIME, MirrorProcess, ProcessEnded

_FEED_LIMIT = 500
# Events of a busy service come in droves, and a batch of them costs little more than one. A training that is under
# way feels each delivery, since it has all cores in use; its curves may lag, the beginning and end of jobs may not.
_LINGER = 0.1
_CURVES_LINGER = 2.0
_UNSAVED_LIMIT = 1000
_DEADLY = 3  # deaths of the process over one and the same event before that event is left out
_SHORTEST_RETRY = 0.5
_MOST_DOUBLINGS = 30
_LONGEST_RESTART = (
    30.0  # seconds between two starts of a process that dies; each takes seconds of a core
)

Delivering = Callable[[str, Sequence[Event]], contextlib.AbstractContextManager[None]]
"""A mirror and events -> what surrounds their delivery."""

log = logging.getLogger(__name__)


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


class Consumer:
    """Delivers the feed's events to a mirror process, in order and at least once.

    The cursor moves only behind what MLflow holds, so neither a crash nor an outage loses anything, and what is sent
    twice is written once. A consumer with an `upstream` stays behind it.
    """

    def __init__(
        self,
        role: Role,
        config: TrackingConfig,
        journal: Journal,
        *,
        wants: Callable[[Event], bool],
        batch_size: int,
        longest_retry: float,
        upstream: Consumer | None = None,
        idle_limit: float | None = None,
    ) -> None:
        """A consumer, not yet running.

        Args:
            role: what its process writes.
            config: the MLflow store.
            journal: the service around it.
            wants: which events its process is sent; the others are passed over.
            batch_size: events sent at once.
            longest_retry: longest pause in seconds until MLflow is tried again when it is away.
            upstream: the consumer that this one must not overtake.
            idle_limit: seconds without work after which its process is ended until there is some again; None: never,
                and it is started at once.
        """
        self.name = role.cursor
        self.position = 0
        """Global position up to which everything is mirrored."""
        self.closing_time = CLOSING_TIME
        """Seconds that its process has, at the end, to finish what it does."""
        self.failed: Counter[str] = Counter()
        """Tries that failed: `unavailable` MLflow, its process `died`, another `error`."""
        self._journal = journal
        self._wants = wants
        self._batch_size = batch_size
        self._longest_retry = longest_retry
        self._upstream = upstream
        self._idle_limit = idle_limit
        self._process = MirrorProcess(Setup.of(role, config), self._record)
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._idle = asyncio.Event()
        self._hindered = asyncio.Event()
        self._followers: list[Consumer] = []
        self._begun = False
        self._saved = 0
        self._failures = 0
        self._deaths = 0
        if upstream is not None:
            upstream._followers.append(self)

    def notify(self, *, urgent: bool = True) -> None:
        """Say that the journal has grown, or that the upstream has come further.

        Args:
            urgent: somebody waits for it, or may; otherwise it is taken along with what comes within seconds.
        """
        self._idle.clear()
        self._wake.set()
        if urgent:
            self._urgent.set()

    async def caught_up(self) -> None:
        """Wait until everything is mirrored that was in the journal at the last notification."""
        await self._idle.wait()

    @property
    def hindered(self) -> bool:
        """Whether its last try failed, so that there is no telling when it will go on."""
        return self._hindered.is_set()

    async def settled(self) -> None:
        """Wait until it has caught up, or is hindered."""
        waits = [asyncio.create_task(event.wait()) for event in (self._idle, self._hindered)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def run(self) -> None:
        """Deliver events until cancelled."""
        try:
            while True:
                self._wake.clear()
                self._urgent.clear()
                pause = await self._step()
                if pause is not None:
                    await self._pause(pause)
                elif not self._wake.is_set():
                    self._idle.set()
                    await self._wait_for_work()
        finally:
            await self._process.close(self.closing_time)

    async def _step(self) -> float | None:
        """Try to go on; seconds to wait before the next try, None when there is nothing to do now."""
        try:
            await self._begin()
            if self._idle_limit is None:
                await self._process.prepare()
            entries = await self._next()
            wanted = [entry for entry in entries if self._wants(entry[1])]
            if entries:
                await self._deliver(wanted)
                await self._advance(entries[-1][0], durable=False)
        except MlflowUnavailable as error:
            level = logging.DEBUG if self._failures else logging.WARNING  # once per outage
            log.log(level, "%s: MLflow is unavailable, will try again: %s", self.name, error)
            await self._back_off(self._longest_retry, "unavailable")
        except StoreUnavailable as error:
            level = logging.DEBUG if self._failures else logging.WARNING
            log.log(level, "%s: the journal cannot be read, will try again: %s", self.name, error)
            await self._back_off(self._longest_retry, "store")
        except ProcessEnded as error:
            log.error("%s: the process that writes to MLflow died: %s", self.name, error)
            await self._back_off(_LONGEST_RESTART, "died")
        except Exception:
            # Whatever it is, jobs must not notice, and the cursor has not moved.
            log.exception("%s: mirroring failed, will try again", self.name)
            await self._back_off(_LONGEST_RESTART, "error")
        else:
            self._hindered.clear()
            if not entries:
                return None
            return _CURVES_LINGER if wanted and len(entries) < _FEED_LIMIT else _LINGER
        return 0.0

    async def _begin(self) -> None:
        """Find out, once, where to begin."""
        if not self._begun:
            self.position = self._saved = await self._journal.store.cursor(self.name)
            self._begun = True

    async def _next(self) -> Sequence[tuple[int, Event]]:
        entries = await self._journal.store.feed(after=self.position, limit=_FEED_LIMIT)
        if self._upstream is None:
            return entries
        bound = self._upstream.position
        return [entry for entry in entries if entry[0] <= bound]

    async def _deliver(self, entries: Sequence[tuple[int, Event]]) -> None:
        while entries:
            # After a death one event at a time, to find the one that kills.
            size = 1 if self._deaths else self._batch_size
            batch, entries = entries[:size], entries[size:]
            # The run is told of what is left out, unless the process dies of that too.
            if self._deaths <= _DEADLY:
                await self._write([event for _, event in batch], fatal=self._deaths == _DEADLY)
            if self._deaths >= _DEADLY:
                event = batch[0][1]
                log.error(
                    "%s: event %d of %s is left out, the process dies of it",
                    self.name,
                    event.sequence,
                    event.training_job,
                )
            if self._failures:
                log.info("%s: goes on", self.name)
            self._deaths = self._failures = 0
            await self._advance(batch[-1][0], durable=True)

    async def _write(self, events: Sequence[Event], *, fatal: bool) -> None:
        await self._process.prepare()  # should it die of that, no event is to blame
        batch = await self._batch(events, fatal=fatal)
        try:
            with self._journal.delivering(self.name, events):
                await self._process.deliver(batch)
        except ProcessEnded:
            self._deaths += 1
            raise

    async def _batch(self, events: Sequence[Event], *, fatal: bool) -> Batch:
        jobs = {}
        for name in dict.fromkeys(event.training_job for event in events):
            job = await self._journal.store.get(name.rpartition("/")[2], deleted=True)
            if job is not None:
                jobs[name] = JobContext(job=job, folder=self._journal.folder_of(job.id))
        return Batch(events=tuple(events), jobs=jobs, fatal=fatal)

    async def _record(self, run: RunMade) -> None:
        await self._journal.record_tracking(
            run.job_id,
            Tracked(mlflow_experiment_id=run.experiment_id, mlflow_run_id=run.run_id),
        )

    async def _advance(self, position: int, *, durable: bool) -> None:
        self.position = position
        # Events that are passed over cost no write: after a crash they are passed over again.
        if durable or position - self._saved >= _UNSAVED_LIMIT:
            await self._journal.store.move_cursor(self.name, position)
            self._saved = position
        for follower in self._followers:
            follower.notify()

    async def _pause(self, seconds: float) -> None:
        """Wait, though for what is urgent not longer than events need to gather."""
        await asyncio.sleep(min(_LINGER, seconds))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds - _LINGER)):
                await self._urgent.wait()

    async def _wait_for_work(self) -> None:
        try:
            async with asyncio.timeout(self._idle_limit if self._process.running else None):
                await self._wake.wait()
        except TimeoutError:
            await self._process.close()
            await self._wake.wait()

    async def _back_off(self, longest: float, reason: str) -> None:
        self.failed[reason] += 1
        delay = retry_delay(self._failures, longest)
        self._failures += 1
        self._hindered.set()
        await asyncio.sleep(delay)


def retry_delay(failures: int, longest: float) -> float:
    """Seconds to wait after so many failures in a row, and one: doubled each time, up to the longest."""
    # In a long outage there are so many that their power of two is no float any more.
    return min(_SHORTEST_RETRY * 2.0 ** min(failures, _MOST_DOUBLINGS), longest)
