"""The journals' only writer, and the way to read and follow them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from dropnorm.results import Event, Payload, State, StateChanged, TrainingJob
from dropnorm_service.jobs.errors import (
    InvalidRequest,
    JobNotFound,
    ServiceError,
    ShuttingDown,
)
from dropnorm_service.jobs.live import LiveJob, LiveJobs
from dropnorm_service.jobs.pages import Pages
from dropnorm_service.jobs.ports import Change, JobStore, RequestAccepted, RequestRecord
from dropnorm_service.jobs.projection import project
from dropnorm_service.unbroken import changing

_PAGE = 100

T = TypeVar("T")

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """An event to be, before it has its number."""

    time: datetime
    payload: Payload
    attempt: int


Decide = Callable[[TrainingJob], Sequence[Entry]]
"""What a job's journal gets next, given its row as it is then. It may refuse by raising."""

Seen = Callable[[TrainingJob], bool]
"""Whether a reader may know of a job, given its row."""

Listener = Callable[[LiveJob, Sequence[Event]], None]
"""Hears of a change: the job after it, and the events of it."""


class Transition(NamedTuple):
    """A change of one job that is on disk, as those see it who only look on."""

    before: TrainingJob | None
    """The job as callers saw it before; None: there was none for them."""
    after: TrainingJob
    events: Sequence[Event]
    hidden: bool
    """Whether the job is deleted now."""


Observer = Callable[[Transition], None]
"""Hears of every change of every job. Called before the listeners, in the context of who changed it."""


def _by_all(job: TrainingJob) -> bool:
    return True


class Journal:
    """Every job's journal and row, with those in use kept in memory.

    A row is what its journal makes of it (`projection`), and both are written in one transaction.
    Changes of one job happen one after the other; each is finished once begun, also when its caller
    is cancelled, because the rest of the service must hear of what is on disk.

    Args:
        store: where they are.
        idle_capacity: jobs that nobody works on or watches to keep in memory.
        idle_bytes: memory for their evaluations, which the store has too.
    """

    def __init__(
        self, store: JobStore, *, idle_capacity: int = 512, idle_bytes: int = 8 * 2**20
    ) -> None:
        self._store = store
        self._jobs = LiveJobs(idle_capacity, idle_bytes)
        self._pages = Pages(store)
        self._loading: dict[str, asyncio.Task[LiveJob | None]] = {}
        self._changing: set[asyncio.Task[Any]] = set()
        self._listeners: list[Listener] = []
        self._observers: list[Observer] = []
        self._closed = False

    def listen(self, listener: Listener) -> None:
        """Call a function after each change, once it is on disk, with the job and its new events."""
        self._listeners.append(listener)

    def observe(self, observer: Observer) -> None:
        """Call a function after each change, once it is on disk, with the job before and after it."""
        self._observers.append(observer)

    def watched(self) -> Sequence[LiveJob]:
        """The jobs whose journals are being followed."""
        return [live for live in self._jobs if live.watchers]

    async def close(self, patience: float) -> None:
        """End all who follow a journal, and wait for changes under way.

        Args:
            patience: seconds that these have. While the store is away nobody knows when they end, and the next service
                reads from the store what became of them.
        """
        self._closed = True
        for live in self._jobs:
            live.wake()
        if self._changing:
            await asyncio.wait(self._changing, timeout=patience)

    async def create(
        self,
        job: TrainingJob,
        request: RequestRecord | None = None,
        within: AbstractAsyncContextManager[Any] | None = None,
    ) -> TrainingJob:
        """Write a new job with its first event.

        Args:
            job: as it will be written.
            request: remembered with it.
            within: entered before, and left when the job is on disk or refused, also when the caller is cancelled.

        Raises:
            RequestAccepted, JobAlreadyExists: as in `JobStore.commit`.
        """

        async def create() -> TrainingJob:
            async with within or contextlib.nullcontext():
                return await self._create(job, request)

        return await self._to_the_end(create())

    async def get(self, job_id: str, seen: Seen = _by_all) -> TrainingJob:
        """The job as it is now.

        Args:
            job_id: which.
            seen: whether the reader sees it.

        Raises:
            JobNotFound: there is none, it is deleted, or it is not seen.
        """
        live = self._jobs.get(job_id) or await self._load(job_id)
        if live.deleted or not seen(live.job):
            raise JobNotFound(job_id)
        return live.job if live.whole else await self._whole(live)

    async def hold(self, job_id: str) -> LiveJob:
        """The job, kept in memory until it is released.

        Raises:
            JobNotFound: there is none, or it is deleted.
        """
        live = self._jobs.get(job_id)
        while live is None:
            await self._load(job_id)
            live = self._jobs.get(job_id)
        if live.deleted:
            raise JobNotFound(job_id)
        self._jobs.hold(live)
        return live

    async def epochs_told(self, job: TrainingJob) -> int:
        """The epoch that a job's journal told of last; 0 when there is none."""
        return await self._store.epochs_told(job.id) if job.attempt else 0

    def release(self, live: LiveJob) -> None:
        """Let go of a job."""
        self._jobs.release(live)

    @contextlib.asynccontextmanager
    async def holding(self, job_id: str) -> AsyncIterator[LiveJob]:
        """Hold the job within a block.

        Raises:
            JobNotFound: there is none, or it is deleted.
        """
        live = await self.hold(job_id)
        try:
            yield live
        finally:
            self.release(live)

    async def change(self, live: LiveJob, decide: Decide, *, delete: bool = False) -> TrainingJob:
        """Append to a job's journal what `decide` says; the row after it.

        Args:
            live: the job.
            decide: called when no other change is under way.
            delete: hide the job from now on.
        """
        self._jobs.hold(live)
        return await self._to_the_end(self._change(live, decide, delete))

    async def watch(
        self, job_id: str, after: int, seen: Seen = _by_all
    ) -> AsyncGenerator[Event, None]:
        """The journal from sequence `after + 1` on, then what comes.

        It ends when the job is in a final state and its whole journal has been told.

        Args:
            job_id: whose.
            after: number of the last event that is known.
            seen: whether the reader sees the job; asked again before each event.

        Raises:
            JobNotFound: there is none, it is deleted, or it is not seen, perhaps no longer.
            InvalidRequest: the journal does not reach so far.
            ShuttingDown: the service stops; all events so far have been told.
        """
        async with self.holding(job_id) as live:
            if not seen(live.job):
                raise JobNotFound(job_id)
            newest = live.job.last_sequence
            if not 0 <= after <= newest:
                text = f"must be 0 to {newest}, the number of the newest event, not {after}"
                raise InvalidRequest.of("after_sequence", text)
            live.watchers += 1
            try:
                async for event in self._follow(live, after, seen):
                    yield event
            finally:
                live.watchers -= 1

    def forget(self, job_ids: Sequence[str]) -> None:
        """Drop jobs from memory that are about to be purged."""
        for job_id in job_ids:
            self._jobs.discard(job_id)

    async def _follow(self, live: LiveJob, after: int, seen: Seen) -> AsyncGenerator[Event, None]:
        while True:
            events = live.recent(after, _PAGE)
            if events is None:
                events = await self._pages.after(live.job, after)
                if not events:  # purged under the reader's feet
                    raise JobNotFound(live.job.id)
            for event in events:
                if not seen(live.job):
                    raise JobNotFound(live.job.id)
                yield event
                after = event.sequence
            if after < live.job.last_sequence:
                continue
            if live.job.state.terminal:
                return
            if self._closed:
                raise ShuttingDown
            await live.news()

    async def _create(self, job: TrainingJob, request: RequestRecord | None) -> TrainingJob:
        entry = Entry(job.create_time, StateChanged(state=State.QUEUED), 0)
        events = _numbered(job, [entry])
        job, _ = project(job, events)
        await self._store.commit(Change(job=job, events=events, insert=True, request=request))
        self._tell(None, self._jobs.add(job, events), events)
        return job

    async def _change(self, live: LiveJob, decide: Decide, delete: bool) -> TrainingJob:
        try:
            async with live.lock:
                events = _numbered(live.job, decide(live.job))
                if not events and not delete:
                    return live.job
                before = None if live.deleted else live.job
                job, evaluation = project(live.job, events, live.evaluation)
                await self._store.commit(Change(job=job, events=events, deleted=delete))
                live.deleted |= delete
                live.advance(job, events, evaluation)
                self._tell(before, live, events)
                return job
        finally:
            self._jobs.release(live)

    def _tell(self, before: TrainingJob | None, live: LiveJob, events: Sequence[Event]) -> None:
        for observer in self._observers:
            observer(Transition(before, live.job, events, live.deleted))
        for listener in self._listeners:
            listener(live, events)

    async def _load(self, job_id: str) -> LiveJob:
        """Read a job into memory, once for all who ask at the same time.

        While it is being read nobody can change it, so what was read is still true afterwards.
        """
        task = self._loading.get(job_id)
        if task is None:
            task = self._loading[job_id] = asyncio.create_task(self._read(job_id))
            task.add_done_callback(lambda _: self._loading.pop(job_id, None))
        live = await asyncio.shield(task)
        if live is None:
            raise JobNotFound(job_id)
        return live

    async def _whole(self, live: LiveJob) -> TrainingJob:
        job = await self._store.get(live.job.id)
        if job is None or live.deleted:
            raise JobNotFound(live.job.id)
        # What else the row says may have changed meanwhile; the evaluation of a job that succeeded cannot.
        whole = live.job.model_copy(update={"evaluation": job.evaluation})
        self._jobs.complete(live, job.evaluation)
        return whole

    async def _read(self, job_id: str) -> LiveJob | None:
        job = await self._store.get(job_id)
        return None if job is None else self._jobs.add(job)

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        changing()
        task = asyncio.create_task(work)
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_hear_alone)
            raise


def _hear_alone(task: asyncio.Task[Any]) -> None:
    """Take note of how a change ends whose caller is gone. That it is refused is no news to anybody."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ServiceError | RequestAccepted):
        log.error("a change that nobody waits for any more failed", exc_info=error)


def _numbered(job: TrainingJob, entries: Sequence[Entry]) -> tuple[Event, ...]:
    return tuple(
        Event(
            training_job=job.name,
            sequence=job.last_sequence + number,
            time=entry.time,
            attempt=entry.attempt,
            payload=entry.payload,
        )
        for number, entry in enumerate(entries, start=1)
    )
