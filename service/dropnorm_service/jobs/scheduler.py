"""Brings queued jobs into free slots. Woken by what happens; the only timers are those of retries."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dropnorm.results import Event, State, StateChanged, TrainingJob, Warned
from dropnorm_service import log_context
from dropnorm_service.jobs import states
from dropnorm_service.jobs.attempts import Attempts
from dropnorm_service.jobs.errors import JobNotFound, StoreUnavailable
from dropnorm_service.jobs.journal import Decide, Entry, Journal
from dropnorm_service.jobs.live import LiveJob
from dropnorm_service.jobs.ports import Clock, Executor, JobStore, Launch, Stopped
from dropnorm_service.jobs.queue import JobQueue
from dropnorm_service.jobs.retries import Retries, RetryPolicy

_STORE_PATIENCE = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Running:
    live: LiveJob
    task: asyncio.Task[None]


class Scheduler:
    """Launches jobs by priority and age, and passes orders on to their workers.

    Args:
        journal: the jobs.
        executor: the slots.
        folder: where each job gets a folder of its own.
        retry: what becomes of lost attempts.
        clock: the time.
    """

    def __init__(
        self,
        journal: Journal,
        executor: Executor,
        *,
        folder: Path,
        retry: RetryPolicy,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._executor = executor
        self._folder = folder
        self._clock = clock
        self._queue = JobQueue()
        self._retries = Retries(retry)
        self._attempts = Attempts(journal, executor, self._retries, clock)
        self._running: dict[str, _Running] = {}
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False
        journal.listen(self._notice)

    def waiting(self, owner: str) -> int:
        """Jobs of a user that wait in the queue."""
        return self._queue.waiting(owner)

    @property
    def all_waiting(self) -> int:
        """Jobs of all users that wait in the queue."""
        return len(self._queue)

    def is_busy_with(self, job_id: str) -> bool:
        """Whether an attempt of a job runs, or is still being put away."""
        return job_id in self._running

    async def start(self, store: JobStore) -> None:
        """Take over what the service before this one left, then launch what is queued."""
        deleted = {each.job_id for each in await store.deleted()}
        async for job in store.unfinished():
            turns = await store.turns(job.id) if job.attempt else []
            step = self._retries.recall(job.id, turns)
            live = LiveJob(job)
            live.deleted = job.id in deleted
            if job.state.active:
                may_retry = self._retries.crashed(job.id, step)
                move = states.after_restart(job.state, may_retry=may_retry)
                await self._journal.change(live, self._moving(move))
            if live.job.state is State.QUEUED:
                await self._requeue(live)
        self._loop = asyncio.create_task(self._run(), name="scheduler")

    async def stop(self, grace: float) -> Sequence[LiveJob]:
        """Launch nothing more, let running attempts write a checkpoint, and end those that do not.

        Args:
            grace: seconds that they have; those that need longer go on from an older checkpoint.

        Returns:
            The jobs of these, for `requeue`.
        """
        self._stopping = self._attempts.stopping = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        for job_id, running in self._running.items():
            if running.live.job.state in (State.QUEUED, State.RUNNING):
                self._executor.order(job_id, "pause")
        if not self._running:
            return ()
        await asyncio.wait([running.task for running in self._running.values()], timeout=grace)
        late = tuple(self._running.values())
        for running in late:
            running.task.cancel()
        if late:
            await asyncio.wait([running.task for running in late])
        return [running.live for running in late]

    async def requeue(self, late: Sequence[LiveJob]) -> None:
        """Requeue the jobs of attempts that were ended; waits as long as the store leaves them in doubt."""
        await asyncio.gather(*map(self._give_up, late))

    async def _run(self) -> None:
        while True:
            await self._work()
            self._wake.clear()
            while (job_id := self._queue.first(self._executor)) is not None:
                try:
                    await self._launch(job_id)
                except StoreUnavailable as error:
                    log.error("cannot launch %s: %s", job_id, error)
                    await asyncio.sleep(_STORE_PATIENCE)
                except Exception:
                    log.exception("%s cannot be launched before the next start", job_id)
                    self._queue.discard(job_id)

    async def _work(self) -> None:
        """Wait until something has happened, or a slot that rested can be used again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._executor.rest() if len(self._queue) else None):
                await self._wake.wait()

    async def _launch(self, job_id: str) -> None:
        """Launch a job, unless something has come between.

        Raises:
            StoreUnavailable: it cannot be read; it stays in the queue.
        """
        try:
            live = await self._journal.hold(job_id)
        except JobNotFound:
            self._queue.discard(job_id)
            return
        began = False
        try:
            began = self._begin(live, await self._journal.epochs_told(live.job))
        finally:
            if not began:
                self._journal.release(live)
        await asyncio.sleep(0)  # its first step takes the slot, before the next job asks for one

    def _begin(self, live: LiveJob, epochs_told: int) -> bool:
        """Begin an attempt of a job that is held; false when it is not its turn any more."""
        job = live.job
        if job.state is not State.QUEUED:
            self._queue.discard(job.id)
            return False
        if not self._executor.fits(job.spec):
            return False  # it was read for a while, and stays in the queue
        self._queue.discard(job.id)
        launch = Launch(
            job_id=job.id,
            attempt=job.attempt + 1,
            spec=job.spec,
            folder=self._folder / job.id,
            epochs_told=epochs_told,
        )
        task = asyncio.create_task(self._attempt(live, launch), name=f"attempt of {job.id}")
        self._running[job.id] = _Running(live, task)
        return True

    async def _attempt(self, live: LiveJob, launch: Launch) -> None:
        try:
            with log_context.bound(job=launch.job_id, attempt=launch.attempt):
                await self._attempts.run(live, launch)
        except Exception:
            log.exception("attempt %d of %s failed", launch.attempt, launch.job_id)
        finally:
            self._ended(live)

    def _ended(self, live: LiveJob) -> None:
        job = live.job
        del self._running[job.id]
        self._journal.release(live)
        if job.state.terminal:
            self._retries.forget(job.id)
        elif job.state is State.QUEUED:
            loop = asyncio.get_running_loop()
            loop.call_later(self._retries.delay(job.id), self._enqueue, job)
        self._wake.set()

    def _enqueue(self, job: TrainingJob) -> None:
        # A job whose attempt is still being put away comes back through `_ended`.
        if not self._stopping and job.id not in self._running:
            self._queue.push(job)
            self._wake.set()

    def _notice(self, live: LiveJob, events: Sequence[Event]) -> None:
        if not any(isinstance(event.payload, StateChanged) for event in events):
            return
        job = live.job
        if job.state.terminal:  # it may have had no attempt then that would end
            self._retries.forget(job.id)
        match job.state:
            case State.QUEUED:
                self._enqueue(job)
            case State.PAUSING:
                self._executor.order(job.id, "pause")
            case State.CANCELLING:
                self._executor.order(job.id, "cancel")
            case _:
                self._queue.discard(job.id)

    def _moving(self, move: states.Move) -> Decide:
        return lambda job: [self._entry(job, move)]

    async def _requeue(self, live: LiveJob) -> None:
        job = live.job
        obstacle = self._executor.obstacle(job.spec)
        if obstacle is not None:
            # What cannot run today may run when the missing GPU is back, so it is no failure.
            warning = Warned(code="CANNOT_FIT", field="compute.gpus", message=obstacle)
            entry = Entry(self._clock(), warning, job.attempt)
            job = await self._journal.change(live, lambda _: [entry])
        self._queue.push(job)
        self._wake.set()

    async def _give_up(self, live: LiveJob) -> None:
        try:
            await self._journal.change(live, self._abandon)
        except StoreUnavailable as error:
            log.error("%s is requeued at the next start: %s", live.job.name, error)

    def _abandon(self, job: TrainingJob) -> Sequence[Entry]:
        if not job.state.active:
            return []
        move = states.after(job.state, Stopped("pause"), stopping=True, may_retry=True)
        return [self._entry(job, move)]

    def _entry(self, job: TrainingJob, move: states.Move) -> Entry:
        return Entry(self._clock(), StateChanged(**move._asdict()), job.attempt)
